"""A MessagesRequest → the body of a chat-completions request (contract section 3). Pure.

The order of the content is kept. Content that has no place in a chat request becomes text that describes it. Only these
are left out: redacted thinking, container uploads and cache marks (contract section 3), and thinking if the engine has
no field for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

import orjson

from ...wire.errors import InvalidRequest
from ...wire.json_codec import dumps
from ...wire.known_tools import SharedTools
from ...wire.large.cooperative import LARGE_BODY, Steps, run_to_end
from ...wire.large.cuts import is_value_mark, with_properties
from ...wire.large.json_writer import JoinedText, StoredArray, dumps_in_steps
from ...wire.request import MessagesRequest, Tool
from .call_ids import engine_call_id, thought_signature
from .dialects import PLAIN, Dialect
from .history import join_texts, server_tool_texts
from .tool_names import short_names

Json = dict[str, Any]
Part = str | Json
"""A part of a chat message's content; a plain string is a text part."""

_MESSAGES_PER_STEP: Final = 16
_BLOCKS_PER_STEP: Final = 256
_TEXT_ONLY: Final = frozenset({str})
_BEFORE_IMAGES: Final = "I will look at the next message."
_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
# Google's published value for a call that has no signature of its own, such as one of another model.
NO_SIGNATURE: Final = "skip_thought_signature_validator"
# An engine refuses words that are not on its own scale of efforts.
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def as_chat(request: MessagesRequest) -> Json:
    """The request as the body of a chat-completions request, for an in-process engine that takes one.

    Raises InvalidRequest for content that such a body cannot hold.
    """
    return to_chat(request, PLAIN)


def to_chat(request: MessagesRequest, dialect: Dialect) -> Json:
    """The body to post. It always asks for a stream, because an engine stops early only when it streams."""
    messages = chat_messages(request, dialect)
    return _chat_body(messages, messages[-1] if messages else None, request, dialect)


def to_chat_in_steps(request: MessagesRequest, dialect: Dialect) -> Steps[Json]:
    """The same in steps, for a large request. Its messages are a `StoredArray`."""
    messages = StoredArray()
    last = yield from _store_messages(messages, request, dialect)
    body = _chat_body(messages, last, request, dialect)
    if last is not None:
        yield from messages.append(last)
    return body


def _chat_body(
    messages: list[Json] | StoredArray, last: Json | None, request: MessagesRequest, dialect: Dialect
) -> Json:
    """The body with these messages. `last` is the last one, which a prefill changes."""
    body: Json = {
        "model": request.engine_model,
        "messages": messages,
        dialect.max_tokens_field: request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True, **dialect.early_usage},
        **dialect.always,
    }
    _add_sampling(body, request, dialect)
    add_thinking(body, request, dialect)
    if request.tools:
        _add_tools(body, request, dialect)
    if request.output_schema is not None:
        _add_output_schema(body, request.output_schema, dialect)
    if last is not None and _is_prefill(last):
        body.update(dialect.prefill)
        last.update(dialect.prefill_mark)
    for field in dialect.never:
        body.pop(field, None)
    return body


def whole_answer_body(body: Json) -> Json:
    """The same request for an answer that is not streamed."""
    return {key: value for key, value in body.items() if key != "stream_options"} | {"stream": False}


def _add_output_schema(body: Json, schema: Json, dialect: Dialect) -> None:
    if dialect.output_schema == "json_schema":
        shape: Json = {"name": "output", "schema": schema}
        if dialect.strict_schema:
            shape["strict"] = True
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    elif dialect.output_schema == "json_object":
        body["response_format"] = {"type": "json_object", "schema": schema}


def _is_prefill(last: Json) -> bool:
    """Whether the last message is an assistant's text, which the answer continues."""
    if last["role"] != "assistant" or "tool_calls" in last:
        return False
    content = last["content"]
    return any(map(str.strip, content.parts if type(content) is JoinedText else (content,)))


def encode_body(body: Json) -> bytes:
    """The body of a chat request as JSON. Raises as `encode`."""
    tools = body.get("tools")
    if isinstance(tools, EncodedTools):
        body = {**body, "tools": orjson.Fragment(tools.json)}
        try:
            return orjson.dumps(body)
        except TypeError:  # the rest of the body is not as simple: see `dumps`
            body["tools"] = tools
    return encode(body)


def encode(value: Any) -> bytes:
    """`value` as JSON. Raises InvalidRequest if it is nested more deeply than Python can walk."""
    try:
        return dumps(value)
    except (RecursionError, TypeError):  # TypeError: it may hold a JoinedText
        return b"".join(run_to_end(encode_in_steps(value)))


def encode_in_steps(value: Any) -> Steps[list[bytes]]:
    """The same in pieces, for a large value. Raises as `encode`."""
    try:
        return (yield from dumps_in_steps(value))
    except RecursionError:
        raise InvalidRequest("body: nested too deeply") from None


def call_ids(request: MessagesRequest) -> set[str]:
    """The ids of the tool calls in the history. An engine that numbers its calls may use the same ids again."""
    return {block["id"] for block in _tool_uses(request)}


def call_ids_in_steps(request: MessagesRequest) -> Steps[set[str]]:
    """The same in steps, for a large request."""
    found: set[str] = set()
    for number, block in enumerate(_all_blocks(request), 1):
        if block["type"] == "tool_use":
            found.add(block["id"])
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return found


def tool_names(request: MessagesRequest, dialect: Dialect) -> dict[str, str]:
    """The short names of the tools whose names are too long for the engine, including calls in the history."""
    if dialect.longest_tool_name is None:
        return {}
    names = (block["name"] for block in _tool_uses(request))
    return short_names([*(tool.name for tool in request.tools), *names], dialect.longest_tool_name)


def _tool_uses(request: MessagesRequest) -> Iterator[Json]:
    return (block for block in _all_blocks(request) if block["type"] == "tool_use")


def _all_blocks(request: MessagesRequest) -> Iterator[Json]:
    for message in request.messages:
        if type(message["content"]) is list:
            yield from message["content"]


def _add_sampling(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p == 0:
        body["temperature"] = 0  # means the same: the most likely token; several engines refuse the zero as top_p
    elif request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None and dialect.top_k:
        body["top_k"] = request.top_k
    if request.stop_sequences and dialect.stops and not _may_hold_more_than_text(request, dialect):
        body["stop"] = _effective_stops(request.stop_sequences)[: dialect.max_stops]
        body.update(dialect.stop_extras)
    if request.user_id is not None:
        body["user"] = request.user_id


def _may_hold_more_than_text(request: MessagesRequest, dialect: Dialect) -> bool:
    """Whether the answer may hold more than text, in which no stop sequence may match (contract 4.9).

    An engine matches them in thinking and in tool calls too. So this service alone matches them.
    """
    may_call = bool(request.tools) and (request.tool_choice is None or request.tool_choice.type != "none")
    wants_thinking = request.thinking is not None and request.thinking.type != "disabled"
    thinks = dialect.thinks_when_off if thinking_disabled(request, dialect) else dialect.thinks
    return may_call or wants_thinking or thinks


def _effective_stops(stops: Sequence[str]) -> list[str]:
    """The stop sequences that can match.

    A sequence that contains another one before its end never completes first. It is left out, because an engine that
    produces both in one token may report the one that begins first.
    """
    return [stop for stop in stops if not any(len(other) < len(stop) and other in stop[:-1] for other in stops)]


def add_thinking(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    """Add the thinking switch, the budget and the effort. A request that disables thinking has no effort."""
    if thinking_off(request, dialect):
        body.update(dialect.thinking_off)
        return
    if request.effort in _EFFORTS and dialect.effort:
        body["reasoning_effort"] = _EFFORTS[request.effort]
    thinking = request.thinking
    if thinking is None:
        return
    body.update(dialect.thinking_on)
    if thinking.budget_tokens is not None and dialect.thinking_budget is not None:
        body[dialect.thinking_budget] = thinking.budget_tokens


def thinking_off(request: MessagesRequest, dialect: Dialect) -> bool:
    """Whether the request to the engine turns thinking off: the client disables it, or forces a call.

    Some engines refuse a forced call together with thinking. The Messages API does not allow both either.
    """
    if request.thinking is not None and request.thinking.type == "disabled":
        return True
    return bool(dialect.thinking_off) and not dialect.forced_choice_while_thinking and _forces_a_call(request)


def _forces_a_call(request: MessagesRequest) -> bool:
    return request.tool_choice is not None and request.tool_choice.type in ("any", "tool")


def thinking_disabled(request: MessagesRequest, dialect: Dialect) -> bool:
    """Whether the request tells the engine not to think."""
    return thinking_off(request, dialect) and bool(dialect.thinking_off)


def ignored_fields(request: MessagesRequest, dialect: Dialect) -> list[str]:
    """The paths of fields of `request` that would have an effect, and have none on an engine of this dialect."""
    thinking, choice = request.thinking, request.tool_choice
    switch = dialect.thinking_off if thinking_off(request, dialect) else dialect.thinking_on
    has_effort = dialect.effort and "reasoning_effort" not in dialect.never and request.effort in _EFFORTS
    has_budget = dialect.thinking_budget is not None and dialect.thinking_budget not in dialect.never
    budget = None if thinking is None else thinking.budget_tokens
    parallel = choice is None or choice.parallel
    ignored = {
        "metadata.user_id": request.user_id is not None and "user" in dialect.never,
        "output_config.effort": request.effort is not None and not has_effort and not thinking_off(request, dialect),
        "output_config.format": request.output_schema is not None and dialect.output_schema == "no",
        "thinking": thinking is not None and dialect.never >= switch.keys(),
        "thinking.budget_tokens": budget is not None and not has_budget,
        "tool_choice": _forces_a_call(request) and ("tool_choice" in dialect.never or not _can_force(dialect)),
        "tool_choice.disable_parallel_tool_use": not parallel and "parallel_tool_calls" in dialect.never,
        "tools.strict": any(tool.strict for tool in request.tools) and not dialect.strict_tools,
        "top_k": request.top_k is not None and not dialect.top_k,
    }
    return [path for path, is_ignored in ignored.items() if is_ignored]


def _add_tools(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    names = tool_names(request, dialect)
    tools, choice = request.tools, request.tool_choice
    if choice is not None:
        if choice.type == "none" and not dialect.none_choice:
            return
        if choice.type == "tool" and not (dialect.named_choice and _can_force(dialect)):
            tools = [tool for tool in tools if tool.name == choice.name]
        if _forces_a_call(request) and not _can_force(dialect):
            body["tool_choice"] = "auto"
        elif choice.type != "tool":
            body["tool_choice"] = _CHOICES[choice.type]
        elif dialect.named_choice:
            body["tool_choice"] = {"type": "function", "function": {"name": names.get(choice.name or "", choice.name)}}
        else:
            body["tool_choice"] = "required"
        if not choice.parallel:
            body["parallel_tool_calls"] = False
    if isinstance(tools, SharedTools) and not names:
        body["tools"] = tools.made(_strict_functions if dialect.strict_tools else _functions)
    else:
        body["tools"] = [_function(names.get(tool.name, tool.name), tool, dialect.strict_tools) for tool in tools]


class EncodedTools(list[Json]):
    """The tools of a chat request, with their JSON text in `json`. Requests share them, so no code may change them."""

    __slots__ = ("json",)

    def __init__(self, tools: Iterable[Json]) -> None:
        super().__init__(tools)
        self.json = bytes(memoryview(encode(list(self))))  # a copy: orjson's own bytes keep the memory of its buffer


def _functions(tools: list[Tool]) -> EncodedTools:
    return EncodedTools(_function(tool.name, tool, False) for tool in tools)


def _strict_functions(tools: list[Tool]) -> EncodedTools:
    """The same for an engine that knows `strict` on a tool."""
    return EncodedTools(_function(tool.name, tool, True) for tool in tools)


def _can_force(dialect: Dialect) -> bool:
    """Whether the engine accepts a forced call: always, or because its thinking is switched off for it."""
    return dialect.forced_choice and (dialect.forced_choice_while_thinking or bool(dialect.thinking_off))


def _function(name: str, tool: Tool, knows_strict: bool) -> Json:
    function: Json = {"name": name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = _parameters(tool.input_schema)
    if tool.strict is not None and knows_strict:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _parameters(schema: Json | None) -> Json:
    """The schema of a tool's input, with an empty `properties` if it has none: some engines require the key."""
    if not schema:
        return _NO_PARAMETERS
    if is_value_mark(schema):
        return with_properties(schema)
    if "properties" in schema or schema.get("type") != "object":
        return schema
    return schema | {"properties": {}}


# messages


def chat_messages(request: MessagesRequest, dialect: Dialect) -> list[Json]:
    """The messages of the chat request, the system prompt first."""
    conversation = _Conversation(request, dialect)
    for message in request.messages:
        run_to_end(conversation.add(message))
    return [_chat_message(turn, dialect) for turn in conversation.turns]


def _store_messages(messages: StoredArray, request: MessagesRequest, dialect: Dialect) -> Steps[Json | None]:
    """Add the messages of the chat request to `messages`, but for the last one, which is returned."""
    conversation = _Conversation(request, dialect)
    for number, message in enumerate(request.messages, 1):
        yield from conversation.add(message)
        if number % _MESSAGES_PER_STEP == 0:
            for turn in conversation.take_complete():
                yield from messages.append(_chat_message(turn, dialect, in_parts=True))
            yield
    for number, turn in enumerate(conversation.turns[:-1], 1):
        yield from messages.append(_chat_message(turn, dialect, in_parts=True))
        if number % _MESSAGES_PER_STEP == 0:
            yield
    return _chat_message(conversation.turns[-1], dialect, in_parts=True) if conversation.turns else None


_NOTHING: Final[list[Any]] = []  # for the roles that have no calls and thoughts: nothing is ever added to it


class _Turn:
    """A chat message that further content may still join. Which of the fields are used depends on the role."""

    __slots__ = ("call_id", "calls", "parts", "role", "thoughts")

    def __init__(
        self,
        role: str,
        parts: list[Part],
        call_id: str = "",
        calls: list[Json] = _NOTHING,
        thoughts: list[str] = _NOTHING,
    ) -> None:
        self.role = role
        self.parts = parts
        self.call_id = call_id
        self.calls = calls
        self.thoughts = thoughts


class _Conversation:
    """The turns of a chat request, built from the messages of a Messages request.

    Neighbouring messages of one role become one turn, as in the Messages API: many chat templates accept only roles
    that alternate. Content is collected in lists and joined once at the end, so the time is linear in the content.
    """

    def __init__(self, request: MessagesRequest, dialect: Dialect) -> None:
        request.refuse_relay_only()
        self.turns: list[_Turn] = [_Turn("system", list(request.system))] if request.system else []
        self._dialect = dialect
        self._only_system = True  # no turn has another role
        self._names = tool_names(request, dialect)
        self._results_at = len(
            self.turns
        )  # the index for tool results: after the latest assistant turn and its earlier results

    def add(self, message: Json) -> Steps[None]:
        role, content = message["role"], message["content"]
        if role == "user":
            if type(content) is list:
                yield from self._add_user(content)
            else:
                self._add_user_parts([content] if content else [])
            return
        blocks = content if type(content) is list else [{"type": "text", "text": content}]
        if role == "assistant":
            yield from self._add_assistant(blocks)
        else:
            self._add_system(join_texts(block["text"] for block in blocks))

    def _add_system(self, text: str) -> None:
        """Add a system message. Before the first turn it becomes, or continues, the system prompt."""
        if not text:
            return
        if self._dialect.late_system or self._is_all_system():
            self._join("system", [text])
        else:
            self._add_user_parts([f"<system>\n{text}\n</system>"])

    def _is_all_system(self) -> bool:
        self._only_system = self._only_system and all(turn.role == "system" for turn in self.turns)
        return self._only_system

    def take_complete(self) -> list[_Turn]:
        """Remove and return the turns that no further content can join."""
        count = min(self._results_at, len(self.turns) - 1)
        if count <= 0 or self._is_all_system():
            return []
        complete = self.turns[:count]
        del self.turns[:count]
        self._results_at -= count
        return complete

    def _add_user(self, blocks: list[Json]) -> Steps[None]:
        """Add a user turn: tool results first, next to the calls they answer, then the other content in order.

        A client may put a system or user message between a call and its result, but engines refuse a gap there.
        """
        parts: list[Part] = []
        images: list[Part] = []
        results: list[_Turn] = []
        for number, block in enumerate(blocks, 1):
            if block["type"] == "tool_result":
                identity = engine_call_id(block["tool_use_id"], self._dialect.call_id_length)
                results.append(_Turn("tool", [(yield from _tool_result(block, images))], identity))
            elif block["type"] == "document":
                parts += yield from _document(block)
            else:
                parts += _parts(block)
            if number % _BLOCKS_PER_STEP == 0:
                yield
        if results:
            self.turns[self._results_at : self._results_at] = results
            self._results_at += len(results)
        if parts or images or not results:
            self._add_user_parts(images + parts)

    def _add_user_parts(self, parts: list[Part]) -> None:
        """Add the content of a user turn. Where only an assistant turn may follow a tool message, its text goes into
        the tool message. Images have no place there, so they get a user turn of their own, behind an assistant turn.
        """
        behind_tool = bool(self.turns) and self.turns[-1].role == "tool"
        if not behind_tool or not self._dialect.text_in_tool_result:
            self._join("user", parts)
        elif all(type(part) is str for part in parts):
            self.turns[-1].parts += parts
        else:
            self.turns += (_Turn("assistant", [_BEFORE_IMAGES]), _Turn("user", parts))

    def _join(self, role: str, parts: list[Part]) -> None:
        """Add `parts` to the last turn if it has this role; otherwise begin a turn."""
        if self.turns and self.turns[-1].role == role:
            self.turns[-1].parts += parts
        else:
            self.turns.append(_Turn(role, parts))

    def _add_assistant(self, blocks: list[Json]) -> Steps[None]:
        """Add an assistant turn. The texts of one message are joined without a separator, as the model produced them.

        A message that holds nothing that the engine can receive is left out.
        """
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for number, block in enumerate(blocks, 1):
            if number % _BLOCKS_PER_STEP == 0:
                yield
            kind = block["type"]
            if kind == "text":
                texts.append(block["text"])
            elif kind == "thinking":
                thoughts.append(block["thinking"])
            elif kind == "tool_use":
                calls.append(self._call(block, first=not calls))
            else:
                texts += server_tool_texts(block)
        text = "".join(texts)
        if self._dialect.thinking_tags and any(thoughts):
            text = "<think>\n" + "\n".join(thoughts) + f"\n</think>\n\n{text}"
        if self._dialect.reasoning_key is None:
            thoughts = []
        if not text and not calls and not any(thoughts):
            return
        if self.turns and self.turns[-1].role == "assistant":
            turn = self.turns[-1]
            turn.calls += calls
            turn.thoughts += thoughts
        else:
            turn = _Turn("assistant", [], calls=calls, thoughts=thoughts)
            self.turns.append(turn)
            self._results_at = len(self.turns)
        if text:
            turn.parts.append(text)

    def _call(self, block: Json, *, first: bool) -> Json:
        """The call. Of parallel calls only the first has a signature."""
        name, dialect = block["name"], self._dialect
        function = {"name": self._names.get(name, name), "arguments": encode(block["input"]).decode()}
        call: Json = {"id": engine_call_id(block["id"], dialect.call_id_length), "type": "function"}
        if dialect.thought_signatures:
            signature = thought_signature(block["id"]) or (NO_SIGNATURE if first else None)
            if signature is not None:
                call["extra_content"] = {"google": {"thought_signature": signature}}
        call["function"] = function
        return call


def _chat_message(turn: _Turn, dialect: Dialect, *, in_parts: bool = False) -> Json:
    """The chat message. `in_parts` leaves a long text in parts: joining it would block the event loop."""
    role, content = turn.role, _content(turn.parts, in_parts=in_parts)
    if role == "tool":
        return {"role": "tool", "tool_call_id": turn.call_id, "content": content}
    message: Json = {"role": role, "content": content}
    if role == "assistant":
        thoughts, calls, key = turn.thoughts, turn.calls, dialect.reasoning_key
        if key is not None and (any(thoughts) or (calls and dialect.needs_reasoning)):
            text = "\n".join(thoughts)
            message[key] = text if key != "reasoning_details" else [{"type": "reasoning.text", "text": text}]
        if calls:
            message["tool_calls"] = calls
            message["content"] = content or dialect.no_content
    return message


def _content(parts: list[Part], *, in_parts: bool) -> str | JoinedText | list[Json]:
    """The content of a chat message: a plain string if there is only text, because many templates require one."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    if _TEXT_ONLY.issuperset(map(type, parts)):
        texts = cast("list[str]", parts)
        is_long = in_parts and sum(map(len, texts)) > LARGE_BODY
        return JoinedText(*texts, between="\n") if is_long else "\n".join(texts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def _parts(block: Json) -> list[Part]:
    """A block of a user turn, a tool result or a document as parts of a chat message. An empty text has no part.

    It is not for documents: see `_document`.
    """
    kind = block["type"]
    if kind == "text":
        text = block["text"]
        return [text] if text else []
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _url(block)}}]
    if kind == "video":
        return [{"type": "video_url", "video_url": {"url": _url(block)}}]
    to_text = _TO_TEXT.get(kind)
    text = to_text(block) if to_text is not None else ""
    return [text] if text else []


def _url(block: Json) -> str | JoinedText:
    source = block["source"]
    if source["type"] == "url":
        return str(source["url"])
    scheme, data = f"data:{source['media_type']};base64,", source["data"]
    return JoinedText(scheme, data) if len(data) > LARGE_BODY else scheme + data


def _document(block: Json) -> Steps[list[Part]]:
    """A document between marks, in steps: its title and context, then its text or its texts and images in order."""
    source = block["source"]
    content = source["data"] if source["type"] == "text" else source["content"]
    head = join_texts(["<document>", _title(block), block.get("context")])
    if isinstance(content, str):
        return [join_texts([head, content, "</document>"])]
    parts: list[Part] = [head]
    for number, inner in enumerate(content, 1):
        parts += _parts(inner)
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return [*parts, "</document>"]


def _title(block: Json) -> str:
    title = block.get("title")
    return f"<title>{title}</title>" if title else ""


def _search_result(block: Json) -> str:
    content = block.get("content") or ()
    texts = [content] if isinstance(content, str) else [inner["text"] for inner in content]
    return join_texts(["<search_result>", _title(block), block.get("source"), *texts, "</search_result>"])


_TO_TEXT: Final[dict[str, Callable[[Json], str]]] = {
    "search_result": _search_result,
    "tool_reference": lambda block: block["tool_name"],
}


def _tool_result(block: Json, images: list[Part]) -> Steps[str]:
    """The text of the tool message, in steps.

    It cannot hold images, so they are added to `images` and replaced by a mark.
    """
    content = block.get("content") or ""
    if isinstance(content, str):
        text = content
    else:
        texts: list[str] = []
        for number, inner in enumerate(content, 1):
            if number % _BLOCKS_PER_STEP == 0:
                yield
            for part in (yield from _document(inner)) if inner["type"] == "document" else _parts(inner):
                if isinstance(part, str):
                    texts.append(part)
                else:
                    texts.append("[image: see the next message]")
                    images.append(part)
        text = "\n".join(texts)
    if block.get("is_error"):
        text = f"[tool error] {text}" if text else "[tool error]"
    return text
