"""A MessagesRequest → the body of a chat-completions request (contract section 3). Pure.

The order of the content is kept. Content that has no place in a chat request becomes text that describes it. Only these
are left out: redacted thinking, container uploads and cache marks (contract section 3), and thinking if the engine has
no field for it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ...wire.errors import InvalidRequest
from ...wire.json_codec import dumps
from ...wire.large.cooperative import LARGE_BODY, Steps, run_to_end
from ...wire.large.json_writer import JoinedText, dumps_in_steps
from ...wire.request import MessagesRequest, Tool
from .dialects import PLAIN, Dialect
from .history import join_texts, server_tool_texts
from .tool_names import short_names

Json = dict[str, Any]
Part = str | Json
"""A part of a chat message's content; a plain string is a text part."""

_MESSAGES_PER_STEP: Final = 16
_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
# An engine refuses words that are not on its own scale of efforts.
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def as_chat(request: MessagesRequest) -> Json:
    """The request as the body of a chat-completions request, for an in-process engine that takes one.

    Raises InvalidRequest for content that such a body cannot hold.
    """
    return to_chat(request, PLAIN)


def to_chat(request: MessagesRequest, dialect: Dialect) -> Json:
    """The body to post. It always asks for a stream, because an engine stops early only when it streams."""
    return _chat_body(chat_messages(request, dialect), request, dialect)


def to_chat_in_steps(request: MessagesRequest, dialect: Dialect) -> Steps[Json]:
    """The same in steps, for a large request."""
    messages, names = _system_message(request), tool_names(request, dialect)
    for number, message in enumerate(request.messages, 1):
        _add_turn(messages, message, dialect, names)
        if number % _MESSAGES_PER_STEP == 0:
            yield
    return _chat_body(messages, request, dialect)


def _chat_body(messages: list[Json], request: MessagesRequest, dialect: Dialect) -> Json:
    body: Json = {
        "model": request.engine_model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True, **dialect.early_usage},
        **dialect.always,
    }
    _add_sampling(body, request, dialect)
    add_thinking(body, request, dialect)
    if request.tools:
        _add_tools(body, request, dialect)
    if request.output_schema is not None:
        shape = {"name": "output", "schema": request.output_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    if messages and _is_prefill(messages[-1]):
        body.update(dialect.prefill)
    for field in dialect.never:
        body.pop(field, None)
    return body


def _is_prefill(last: Json) -> bool:
    """Whether the last message is an assistant's text, which the answer continues."""
    return last["role"] == "assistant" and "tool_calls" not in last and bool(last["content"].strip())


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


def tool_names(request: MessagesRequest, dialect: Dialect) -> dict[str, str]:
    """The short names of the tools whose names are too long for the engine, including calls in the history."""
    if dialect.longest_tool_name is None:
        return {}
    names = (block["name"] for block in _tool_uses(request))
    return short_names([*(tool.name for tool in request.tools), *names], dialect.longest_tool_name)


def _tool_uses(request: MessagesRequest) -> Iterator[Json]:
    for message in request.messages:
        if type(message["content"]) is list:
            yield from (block for block in message["content"] if block["type"] == "tool_use")


def _add_sampling(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None and dialect.top_k:
        body["top_k"] = request.top_k
    if request.stop_sequences and dialect.stops:
        body["stop"] = _effective_stops(request.stop_sequences)
        body.update(dialect.stop_extras)
    if request.user_id is not None:
        body["user"] = request.user_id


def _effective_stops(stops: Sequence[str]) -> list[str]:
    """The stop sequences that can match.

    A sequence that contains another one before its end never completes first. It is left out, because an engine that
    produces both in one token may report the one that begins first.
    """
    return [stop for stop in stops if not any(other in stop[:-1] for other in stops)]


def add_thinking(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    if request.effort in _EFFORTS and dialect.effort:
        body["reasoning_effort"] = _EFFORTS[request.effort]
    thinking = request.thinking
    if thinking is None:
        return
    body.update(dialect.thinking_off if thinking.type == "disabled" else dialect.thinking_on)
    if thinking.budget_tokens is not None and dialect.thinking_budget is not None:
        body[dialect.thinking_budget] = thinking.budget_tokens


def thinking_disabled(request: MessagesRequest, dialect: Dialect) -> bool:
    """Whether the request tells the engine not to think."""
    return request.thinking is not None and request.thinking.type == "disabled" and bool(dialect.thinking_off)


def _add_tools(body: Json, request: MessagesRequest, dialect: Dialect) -> None:
    names = tool_names(request, dialect)
    tools, choice = request.tools, request.tool_choice
    if choice is not None:
        if choice.type == "none" and not dialect.none_choice:
            return
        if choice.type != "tool":
            body["tool_choice"] = _CHOICES[choice.type]
        elif dialect.named_choice:
            body["tool_choice"] = {"type": "function", "function": {"name": names.get(choice.name or "", choice.name)}}
        else:
            tools = [tool for tool in tools if tool.name == choice.name]
            body["tool_choice"] = "required"
        if not choice.parallel:
            body["parallel_tool_calls"] = False
    body["tools"] = [_function(names.get(tool.name, tool.name), tool) for tool in tools]


def _function(name: str, tool: Tool) -> Json:
    function: Json = {"name": name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = _NO_PARAMETERS if tool.input_schema is None else tool.input_schema
    return {"type": "function", "function": function}


# messages


def chat_messages(request: MessagesRequest, dialect: Dialect) -> list[Json]:
    """The messages of the chat request, the system prompt first."""
    out, names = _system_message(request), tool_names(request, dialect)
    for message in request.messages:
        _add_turn(out, message, dialect, names)
    return out


def _system_message(request: MessagesRequest) -> list[Json]:
    return [{"role": "system", "content": "\n".join(request.system)}] if request.system else []


def _add_turn(out: list[Json], message: Json, dialect: Dialect, names: dict[str, str]) -> None:
    role, content = message["role"], message["content"]
    if role == "user":
        if type(content) is str:
            out.append({"role": "user", "content": content})
        else:
            _add_user(out, content)
        return
    blocks = content if type(content) is list else [{"type": "text", "text": content}]
    if role == "assistant":
        out.append(_assistant(blocks, dialect, names))
    else:
        _add_system(out, join_texts(block["text"] for block in blocks), dialect)


def _add_system(out: list[Json], text: str, dialect: Dialect) -> None:
    """Add a system message. Before the first turn it becomes, or continues, the system prompt."""
    if not text:
        return
    if len(out) == 1 and out[0]["role"] == "system":
        out[0]["content"] += f"\n{text}"
    elif not out or dialect.late_system:
        out.append({"role": "system", "content": text})
    else:
        out.append({"role": "user", "content": f"<system>\n{text}\n</system>"})


def _add_user(out: list[Json], blocks: list[Json]) -> None:
    """Add a user turn: tool results first, next to the calls they answer, then the other content in order."""
    parts: list[Part] = []
    images: list[Part] = []
    results: list[Json] = []
    for block in blocks:
        if block["type"] == "tool_result":
            text = _tool_result(block, images)
            results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": text})
        else:
            parts += _parts(block)
    if results:
        behind = _index_after_calls(out)
        out[behind:behind] = results
    if parts or images or not results:
        out.append({"role": "user", "content": _content(images + parts)})


def _index_after_calls(out: list[Json]) -> int:
    """The index for tool results: after the latest assistant turn and its earlier results.

    A client may put a system or user message between a call and its result, but engines refuse a gap there.
    """
    for index in range(len(out), 0, -1):
        if out[index - 1]["role"] in ("assistant", "tool"):
            return index
    return len(out)


def _content(parts: list[Part]) -> str | list[Json]:
    """The content of a chat message: a plain string if there is only text, because many templates require one."""
    texts = [part for part in parts if type(part) is str]
    if len(texts) == len(parts):
        return "\n".join(texts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def _parts(block: Json) -> list[Part]:
    """A block of a user turn, a tool result or a document as parts of a chat message. An empty text has no part."""
    kind = block["type"]
    if kind == "text":
        text = block["text"]
        return [text] if text else []
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _url(block)}}]
    if kind == "video":
        return [{"type": "video_url", "video_url": {"url": _url(block)}}]
    if kind == "document":
        return _document(block)
    to_text = _TO_TEXT.get(kind)
    text = to_text(block) if to_text is not None else ""
    return [text] if text else []


def _url(block: Json) -> str | JoinedText:
    source = block["source"]
    if source["type"] == "url":
        return str(source["url"])
    scheme, data = f"data:{source['media_type']};base64,", source["data"]
    return JoinedText(scheme, data) if len(data) > LARGE_BODY else scheme + data


def _document(block: Json) -> list[Part]:
    """A document's title and context, then its text; if its content is blocks, their texts and images in order."""
    source = block["source"]
    heads = [block.get("title"), block.get("context")]
    content = source["data"] if source["type"] == "text" else source["content"]
    if isinstance(content, str):
        text = join_texts([*heads, content])
        return [text] if text else []
    head = join_texts(heads)
    parts: list[Part] = [head] if head else []
    for inner in content:
        parts += _parts(inner)
    return parts


def _search_result(block: Json) -> str:
    content = block.get("content") or ()
    texts = [content] if isinstance(content, str) else [inner["text"] for inner in content]
    return join_texts([block.get("title"), block.get("source"), *texts])


_TO_TEXT: Final[dict[str, Callable[[Json], str]]] = {
    "search_result": _search_result,
    "tool_reference": lambda block: block["tool_name"],
}


def _tool_result(block: Json, images: list[Part]) -> str:
    """The text of the tool message. It cannot hold images, so they are added to `images` and replaced by a mark."""
    content = block.get("content") or ""
    if isinstance(content, str):
        text = content
    else:
        texts: list[str] = []
        for inner in content:
            for part in _parts(inner):
                if isinstance(part, str):
                    texts.append(part)
                else:
                    texts.append("[image: see the next message]")
                    images.append(part)
        text = "\n".join(texts)
    if block.get("is_error"):
        text = f"[tool error] {text}" if text else "[tool error]"
    return text


def _assistant(blocks: list[Json], dialect: Dialect, names: dict[str, str]) -> Json:
    """One assistant turn. Its texts are joined without a separator, as the model produced them."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for block in blocks:
        kind = block["type"]
        if kind == "text":
            texts.append(block["text"])
        elif kind == "thinking":
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            name = block["name"]
            function = {"name": names.get(name, name), "arguments": encode(block["input"]).decode()}
            calls.append({"id": block["id"], "type": "function", "function": function})
        else:
            texts += server_tool_texts(block)
    message: Json = {"role": "assistant", "content": "".join(texts)}
    if dialect.reasoning_key is not None and any(thoughts):
        message[dialect.reasoning_key] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return message
