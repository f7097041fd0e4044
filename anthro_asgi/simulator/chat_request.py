"""The body of `POST /v1/chat/completions`: bytes → MessagesRequest. Pure.

What an engine of ours reads is read; it is checked as far as that goes, naming the field at fault, and all else is
ignored. System messages that come first are the system prompt, tool messages become results in a user turn, and text
parts, tool calls and reasoning become blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import orjson

from ..wire.errors import InvalidRequest, quoted
from ..wire.field_checks import FieldError, one_of, optional, optional_integer, optional_number, required
from ..wire.json_codec import loads_exactly
from ..wire.request import MessagesRequest, ThinkingConfig, Tool, ToolChoice

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_SYSTEM: Final = ("system", "developer")
_RESULT: Final = ("tool", "function")
_CHOICES: Final = {"none": "none", "auto": "auto", "required": "any"}
_ENDLESS: Final = 1_000_000  # tokens of an answer whose length the client leaves open, at the most

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request, and what of it is about chunks. `usage` is whether the stream's last one has the counts."""

    request: MessagesRequest
    usage: bool


def parse(body: bytes) -> CompletionRequest:
    """Raises InvalidRequest."""
    try:
        raw, _ = loads_exactly(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"body: not valid JSON: {exc.msg} at character {exc.pos}") from None
    if type(raw) is not dict:
        raise InvalidRequest("body: must be a JSON object")
    try:
        return CompletionRequest(_request(raw), bool(_within(raw, "stream_options", "include_usage")))
    except FieldError as fault:
        raise InvalidRequest(f"{fault.path}: {fault.reason}", error_code=fault.path) from None


def _request(raw: dict[str, Any]) -> MessagesRequest:
    if optional_integer(raw, "n", 1) not in (None, 1):
        raise FieldError("n", "must be 1: the simulator returns one choice")
    turns = [_checked(message, index) for index, message in enumerate(required(raw, "messages", list))]
    if not turns:
        raise FieldError("messages", "must not be empty")
    first = next((at for at, turn in enumerate(turns) if turn["role"] not in _SYSTEM), len(turns))
    tools = _tools(raw)
    return MessagesRequest(
        model=required(raw, "model", str),
        max_tokens=optional_integer(raw, "max_completion_tokens", 1)
        or optional_integer(raw, "max_tokens", 1)
        or _ENDLESS,
        messages=list(_messages(turns[first:])),
        system=[_text(turn["content"]) for turn in turns[:first]],
        temperature=optional_number(raw, "temperature", 0, 2),
        top_p=optional_number(raw, "top_p", 0, 1),
        top_k=optional_integer(raw, "top_k", -1),
        stop_sequences=_stops(raw),
        stream=bool(optional(raw, "stream", bool)),
        user_id=optional(raw, "user", str),
        thinking=_thinking(raw),
        tools=tools,
        tool_choice=_tool_choice(raw, tools),
        effort=optional(raw, "reasoning_effort", str),
        output_schema=_schema(raw),
    )


def _within(raw: dict[str, Any], outer: str, key: str) -> bool | None:
    """A switch in an object that may be there."""
    value: bool | None = optional(optional(raw, outer, dict) or {}, key, bool)
    return value


# the turns


def _checked(message: Any, index: int) -> dict[str, Any]:
    """A message whose role and content are what they must be; content that is absent is empty."""
    try:
        if type(message) is not dict:
            raise FieldError("", "must be an object")
        one_of(message, "role", _ROLES)
        content = message.get("content")
        if content is not None and type(content) not in (str, list):
            raise FieldError("content", "must be a string or an array")
        for part in content if type(content) is list else ():
            if type(part) is not dict or type(part.get("type")) is not str:
                raise FieldError("content", "must have parts with a type")
            if part["type"] == "text":
                required(part, "text", str)
        return {**message, "content": content or ""}
    except FieldError as fault:
        raise fault.within(f"messages.{index}") from None


def _messages(turns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for is_result, group in groupby(turns, lambda turn: turn["role"] in _RESULT):
        if is_result:
            yield {"role": "user", "content": [_result(turn) for turn in group]}
            continue
        for turn in group:
            if turn["role"] == "assistant":
                yield {"role": "assistant", "content": _assistant(turn)}
            else:
                role = "system" if turn["role"] in _SYSTEM else "user"
                yield {"role": role, "content": _content(turn["content"])}


def _content(content: str | list[Any]) -> str | list[Block]:
    return content if isinstance(content, str) else list(map(_block, content))


def _block(part: dict[str, Any]) -> Block:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    return {"type": "image", "source": part}  # sound and video too: no engine of ours looks into them


def _text(content: str | list[Any]) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _result(turn: dict[str, Any]) -> Block:
    return {"type": "tool_result", "tool_use_id": turn.get("tool_call_id"), "content": _content(turn["content"])}


def _assistant(turn: dict[str, Any]) -> str | list[Block]:
    reasoning = turn.get("reasoning_content") or turn.get("reasoning")
    calls = optional(turn, "tool_calls", list) or []
    if not reasoning and not calls:
        return _content(turn["content"])
    blocks: list[Block] = [{"type": "thinking", "thinking": reasoning}] if isinstance(reasoning, str) else []
    content = _content(turn["content"])
    blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks + [_call(call) for call in calls]


def _call(call: Any) -> Block:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise FieldError("messages", "tool_calls must have a function")
    arguments = function.get("arguments")
    try:
        given = orjson.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        given = arguments
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


# the options


def _stops(raw: dict[str, Any]) -> tuple[str, ...]:
    stops = raw.get("stop")
    given = [stops] if isinstance(stops, str) else stops or []
    if type(given) is not list or not all(isinstance(stop, str) for stop in given):
        raise FieldError("stop", "must be a string or an array of strings")
    return tuple(filter(None, given))


def _tools(raw: dict[str, Any]) -> list[Tool]:
    tools = []
    for index, entry in enumerate(optional(raw, "tools", list) or ()):
        try:
            function = required(entry if type(entry) is dict else {}, "function", dict)
            name, schema = required(function, "name", str), optional(function, "parameters", dict)
            tools.append(Tool(name, optional(function, "description", str), schema))
        except FieldError as fault:
            raise fault.within(f"tools.{index}") from None
    return tools


def _tool_choice(raw: dict[str, Any], tools: list[Tool]) -> ToolChoice | None:
    choice, parallel = raw.get("tool_choice"), optional(raw, "parallel_tool_calls", bool) is not False
    if choice is None:
        return None
    if isinstance(choice, dict):
        name = required(required(choice, "function", dict), "name", str)
        if all(tool.name != name for tool in tools):
            raise FieldError("tool_choice", f"no tool is named {quoted(name, 150)}")
        return ToolChoice("tool", name, parallel)
    kind = _CHOICES[one_of(raw, "tool_choice", frozenset(_CHOICES))]
    if kind == "any" and not tools:
        raise FieldError("tool_choice", "required needs tools")
    return ToolChoice(kind, None, parallel)


def _thinking(raw: dict[str, Any]) -> ThinkingConfig | None:
    """What the switches of engines say, and the effort; None is to leave it open."""
    said = [_within(raw, "chat_template_kwargs", key) for key in ("enable_thinking", "thinking")]
    effort = optional(raw, "reasoning_effort", str)
    if effort is not None:
        said.append(effort != "none")
    if True in said:
        return ThinkingConfig("adaptive")
    return ThinkingConfig("disabled") if False in said else None


def _schema(raw: dict[str, Any]) -> dict[str, Any] | None:
    shape = optional(raw, "response_format", dict)
    if shape is None or shape.get("type") not in ("json_schema", "json_object"):
        return None
    if shape["type"] == "json_object":
        return {"type": "object"}
    return required(required(shape, "json_schema", dict), "schema", dict)  # type: ignore[no-any-return]  # it is checked
