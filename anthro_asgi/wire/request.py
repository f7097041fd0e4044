"""The body of `POST /v1/messages`: bytes → MessagesRequest, in one pass, naming the path at fault (contract section 3).

Options are lenient: what is unknown or has no effect here is accepted and dropped. Content is strict (see `blocks`).
Messages and schemas stay the parsed dicts they came as: they are checked, never rebuilt.

A large body is parsed and checked in steps, to the same end. The messages are then checked before all else, but what is
wrong with them is said in its turn.
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from .blocks import RoleChecks, block_checks
from .client_tools import CLIENT_TOOLS
from .errors import InvalidRequest, NotFound
from .field_checks import (
    FieldError,
    check_depth,
    one_of,
    optional,
    optional_array,
    optional_integer,
    optional_number,
    required,
)
from .json_codec import loads_exactly
from .large.cooperative import Steps, clear_in_steps
from .large.json_reader import loads_in_steps
from .messages_checks import check_messages, check_messages_in_steps, check_system
from .request_policy import DEFAULT_RULES, Rules

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_GENERATION = frozenset({"max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream"})
_CHOICES = frozenset({"auto", "any", "none", "tool"})
_THINKING = frozenset({"disabled", "enabled", "adaptive"})


@dataclass(slots=True)
class Tool:
    """A client tool. `input_schema` is the client's own JSON Schema, never interpreted."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None


@dataclass(slots=True)
class ToolChoice:
    """`type` is auto, any, none or tool; `name` belongs to tool; `parallel` False asks for one call at the most."""

    type: str
    name: str | None = None
    parallel: bool = True


@dataclass(slots=True)
class ThinkingConfig:
    """`type` is disabled, enabled or adaptive; `budget_tokens` bounds the reasoning, where an engine can."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


@dataclass(slots=True)
class MessagesRequest:
    """A request that has passed validation. `engine_model` is what the engine is asked for, an alias resolved.

    `dropped_tools` names the server tools that were left out, as the operator's rules want it.
    """

    model: str
    max_tokens: int
    messages: list[dict[str, Any]]
    system: list[str] = field(default_factory=list)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] = ()
    stream: bool = False
    user_id: str | None = None
    thinking: ThinkingConfig | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    effort: str | None = None
    output_schema: dict[str, Any] | None = None
    dropped_tools: tuple[str, ...] = ()
    engine_model: str = ""
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The body as it came, for an engine that speaks Messages itself."""
    body_size: int = field(default=0, repr=False, compare=False)
    """Bytes of that body: what is large is worked on in steps."""
    trace_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    """Headers that tell an engine of whose trace this is part (W3C Trace Context): `traceparent`, `tracestate`."""

    def __post_init__(self) -> None:
        self.engine_model = self.engine_model or self.model


def parse_request(body: bytes, *, counting: bool = False, rules: Rules = DEFAULT_RULES) -> MessagesRequest:
    """The request in `body`, read by the operator's `rules`.

    `counting` is for `count_tokens`, where what is about generation is ignored (section 10).

    Raises InvalidRequest, or NotFound for `thread: continue`, so that SDKs replay the conversation.
    """
    try:
        parsed, levels = loads_exactly(body)
    except orjson.JSONDecodeError as exc:
        raise _no_json(exc) from None
    raw = parsed if type(parsed) is dict and not counting else _fields(parsed, counting)
    try:
        _refuse_thread(raw)
        checks = block_checks(rules, deep=levels > rules.max_depth)
        return _request(raw, counting, rules, len(body), checks)
    except FieldError as fault:
        raise _invalid(fault) from None


def parse_request_in_steps(
    pieces: list[bytes], *, counting: bool = False, rules: Rules = DEFAULT_RULES
) -> Steps[MessagesRequest]:
    """The same for a body in pieces, which may be large; the list is emptied. Raises as `parse_request`."""
    size = sum(map(len, pieces))
    try:
        parsed, levels = yield from loads_in_steps(pieces)
    except orjson.JSONDecodeError as exc:
        raise _no_json(exc) from None
    raw = _fields(parsed, counting)
    yield from clear_in_steps(pieces)
    try:
        _refuse_thread(raw)
        checked = yield from _checked(raw, rules, deep=levels > rules.max_depth)
        return _request(raw, counting, rules, size, checked)
    except FieldError as fault:
        raise _invalid(fault) from None


def _no_json(exc: orjson.JSONDecodeError) -> InvalidRequest:
    return InvalidRequest(f"body: not valid JSON: {exc.msg} at character {exc.pos}")


def _invalid(fault: FieldError) -> InvalidRequest:
    return InvalidRequest(f"{fault.path}: {fault.reason}", error_code=fault.error_code)


def _fields(parsed: Any, counting: bool) -> dict[str, Any]:
    """Those that are looked at."""
    if type(parsed) is not dict:
        raise InvalidRequest("body: must be a JSON object")
    return {key: value for key, value in parsed.items() if not counting or key not in _GENERATION}


def _checked(raw: dict[str, Any], rules: Rules, *, deep: bool) -> Steps[list[dict[str, Any]] | FieldError]:
    """The messages, or what is wrong with them, to be said when it is their turn."""
    try:
        return (yield from check_messages_in_steps(raw, rules, deep=deep))
    except FieldError as fault:
        return fault


def _told(checked: list[dict[str, Any]] | FieldError) -> list[dict[str, Any]]:
    if isinstance(checked, FieldError):
        raise checked
    return checked


def _request(
    raw: dict[str, Any], counting: bool, rules: Rules, size: int, checks: RoleChecks | list[dict[str, Any]] | FieldError
) -> MessagesRequest:
    """`checks` are those of the messages, or else what has come of them."""
    model = required(raw, "model", str)
    if not model:
        raise FieldError("model", "must not be empty")
    max_tokens = 1 if counting else optional_integer(raw, "max_tokens", 1)
    if max_tokens is None:
        raise FieldError("max_tokens", "required")
    tools, dropped = _tools(raw, rules)
    effort, output_schema = _output_config(raw, rules)
    return MessagesRequest(
        model=model,
        max_tokens=max_tokens,
        messages=check_messages(raw, checks, rules) if isinstance(checks, dict) else _told(checks),
        system=check_system(raw, keep_billing_header=rules.keep_billing_header),
        temperature=optional_number(raw, "temperature", 0, 2),
        top_p=optional_number(raw, "top_p", 0, 1),
        top_k=optional_integer(raw, "top_k", 0) or None,
        stop_sequences=_stop_sequences(raw, rules),
        stream=bool(optional(raw, "stream", bool)),
        user_id=_user_id(raw),
        thinking=_thinking(raw),
        tools=tools,
        tool_choice=_tool_choice(raw, tools),
        effort=effort,
        output_schema=output_schema,
        raw=raw,
        body_size=size,
        dropped_tools=dropped,
    )


def _refuse_thread(raw: dict[str, Any]) -> None:
    thread = raw.get("thread")
    if type(thread) is dict and thread.get("type") == "continue":
        raise NotFound("thread: not found; send the whole conversation", error_code="thread_not_found")


# tools


def _tools(raw: dict[str, Any], rules: Rules) -> tuple[list[Tool], tuple[str, ...]]:
    """The tools, and the names of those that were dropped. What the rules change is changed in `raw` too."""
    tools: dict[str, Tool] = {}
    dropped: list[str] = []
    kept = []
    for index, entry in enumerate(optional_array(raw, "tools", rules.max_tools)):
        try:
            tool = _tool(entry, rules)
            if tool is None:
                dropped.append(optional(entry, "name", str) or entry["type"])
            elif tool.name in tools:
                raise FieldError("name", f"two tools have the name {tool.name!r}")
            else:
                tools[tool.name] = tool
                kept.append(asdict(tool) if entry.get("type") in CLIENT_TOOLS else entry)
        except FieldError as fault:
            raise fault.within(f"tools.{index}") from None
    if kept or dropped:
        raw["tools"] = kept
    return list(tools.values()), tuple(dropped)


def _tool(entry: Any, rules: Rules) -> Tool | None:
    """The tool, None for one that is to be dropped."""
    if type(entry) is not dict:
        raise FieldError("", "must be an object")
    kind = optional(entry, "type", str)
    if kind in CLIENT_TOOLS:
        return _client_tool(entry, kind, rules)
    if kind is not None and kind != "custom":
        if rules.drop_server_tools:
            return None
        raise FieldError("type", f"{kind!r:.80} is a server tool, which does not run here", "unsupported_tool_type")
    name = required(entry, "name", str)
    if _TOOL_NAME.fullmatch(name) is None:
        raise FieldError("name", "must be 1 to 128 letters, digits, _ or -")
    schema = optional(entry, "input_schema", dict)
    if schema is not None:
        check_depth(entry, "input_schema", rules.max_depth)
    return Tool(name, optional(entry, "description", str), schema)


def _client_tool(entry: dict[str, Any], kind: str, rules: Rules) -> Tool:
    """Refused, and never dropped, unless it is to be a function: an agent would be without its hands and not know."""
    known = CLIENT_TOOLS[kind]
    if not rules.client_tools_as_functions:
        raise FieldError("type", f"{kind!r} is a tool that only Anthropic's models know", "unsupported_tool_type")
    if (optional(entry, "name", str) or known.name) != known.name:
        raise FieldError("name", f"must be {known.name!r}")
    return Tool(*known)


def _tool_choice(raw: dict[str, Any], tools: list[Tool]) -> ToolChoice | None:
    entry = optional(raw, "tool_choice", dict)
    if entry is None:
        return None
    try:
        kind = one_of(entry, "type", _CHOICES)
        name = required(entry, "name", str) if kind == "tool" else None
        if name is not None and all(tool.name != name for tool in tools):
            raise FieldError("name", f"no tool is named {name!r:.150}")
        if kind == "any" and not tools:
            raise FieldError("type", "any needs tools")
        return ToolChoice(kind, name, not optional(entry, "disable_parallel_tool_use", bool))
    except FieldError as fault:
        raise fault.within("tool_choice") from None


# options


def _stop_sequences(raw: dict[str, Any], rules: Rules) -> tuple[str, ...]:
    stops = optional_array(raw, "stop_sequences", rules.max_stop_sequences)
    for index, stop in enumerate(stops):
        if type(stop) is not str or not stop:
            raise FieldError(f"stop_sequences.{index}", "must be a non-empty string")
    return tuple(stops)


def _user_id(raw: dict[str, Any]) -> str | None:
    metadata = optional(raw, "metadata", dict)
    if metadata is None:
        return None
    try:
        user_id: str | None = optional(metadata, "user_id", str)
    except FieldError as fault:
        raise fault.within("metadata") from None
    return user_id


def _thinking(raw: dict[str, Any]) -> ThinkingConfig | None:
    entry = optional(raw, "thinking", dict)
    if entry is None:
        return None
    try:
        kind = one_of(entry, "type", _THINKING)
        budget = optional_integer(entry, "budget_tokens", 1) if kind != "disabled" else None
        if kind == "enabled" and budget is None:
            raise FieldError("budget_tokens", "required")
        return ThinkingConfig(kind, budget, optional(entry, "display", str))
    except FieldError as fault:
        raise fault.within("thinking") from None


def _output_config(raw: dict[str, Any], rules: Rules) -> tuple[str | None, dict[str, Any] | None]:
    """The effort, and the schema of `format: {type: json_schema, schema}`."""
    entry = optional(raw, "output_config", dict)
    if entry is None:
        return None, None
    try:
        effort = optional(entry, "effort", str)
        shape = optional(entry, "format", dict)
        if shape is None:
            return effort, None
        try:
            one_of(shape, "type", {"json_schema"})
            schema = required(shape, "schema", dict)
            check_depth(shape, "schema", rules.max_depth)
            return effort, schema
        except FieldError as fault:
            raise fault.within("format") from None
    except FieldError as fault:
        raise fault.within("output_config") from None
