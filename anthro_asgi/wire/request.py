"""The body of `POST /v1/messages`: bytes → MessagesRequest, validated in one pass (contract section 3).

`REQUEST_FIELDS` lists every field of the body: its name, its nature, the attribute that holds it, and the function that
checks and stores it. Fields are read in the order of the table, so the first error of a body is always the same one.
What `create` and `count_tokens` validate, and what may be left out when an engine refuses it, follow from the natures.

Options are lenient: an unknown field is accepted and ignored. Content is strict (see `blocks`). Messages and schemas
stay the parsed dicts: they are checked, never rebuilt.

A large body is parsed and checked in steps, with the same result. Its messages are checked before the other fields,
but an error in them is raised at their place in the table.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from .blocks import block_checks
from .cited_documents import CitedDocuments
from .client_tools import CLIENT_TOOLS, RUN_BY_CLIENTS
from .compaction import Compaction, read_compaction
from .context_edits import ContextEdit, read_context_edits
from .direct_output import DirectOutput
from .errors import InvalidRequest, NotFound, quoted
from .field_checks import (
    FieldError,
    check_depth_in_steps,
    one_of,
    optional,
    optional_array,
    optional_integer,
    optional_number,
    required,
)
from .history_folding import History, ToolChange, fold_history
from .json_codec import loads_exactly, loads_with_bound
from .known_tools import KnownTools, ToolCache
from .large.cooperative import Steps, clear_in_steps, drop_in_steps, run_to_end
from .large.cuts import Cuts
from .large.json_reader import loads_in_steps
from .messages_checks import Findings, check_messages, check_messages_in_steps, check_system
from .offered_tools import has_deferred, net_changes, offered_tools, read_entries, searchable_tools
from .request_policy import DEFAULT_RULES, Rules
from .server_tools import ServerTool, ToolSearch, read_server_tool, with_calls

_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_UNSUPPORTED: Final = "unsupported_tool_type"
_TOOL_TYPE: Final = re.compile(r"^(?:tools\.\d+|messages\.[\w.]+\.definition)\.type: ")
_FIELD_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
_LONGEST_MODEL: Final = 4096  # characters; the name is written into the answer and into the log
_TOOLS_PER_STEP: Final = 64
_MAX_REPORTED: Final = 16  # names of unknown fields
_MAX_EXAMINED: Final = 512  # fields; a body of a MiB may have a hundred thousand
_NOT_COMPACTED: Final = "compaction is left to a relayed upstream"
_CHOICES: Final = frozenset({"auto", "any", "none", "tool"})
_THINKING: Final = frozenset({"disabled", "enabled", "adaptive", "between_tools"})


@dataclass(slots=True)
class Tool:
    """A client tool. `input_schema` is the client's own JSON Schema; it is not interpreted here.

    `strict` asks the engine to follow the schema exactly, where the engine supports it.
    """

    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(slots=True)
class ToolChoice:
    """`type` is auto, any, none or tool. `name` is set for tool only. `parallel` False asks for at most one call."""

    type: str
    name: str | None = None
    parallel: bool = True


@dataclass(slots=True)
class ThinkingConfig:
    """`type` is disabled, enabled or adaptive; `between_tools` of the body is one of them (contract 3.9).

    `budget_tokens` limits the reasoning, where the engine supports it."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class Estimate(NamedTuple):
    """The estimated length of the prompt in tokens. It holds as long as the request has these messages and tools."""

    tokens: int
    messages: list[dict[str, Any]]
    tools: list[Tool]


@dataclass(slots=True)
class MessagesRequest:
    """A validated request. `engine_model` is the model name for the engine, with aliases resolved.

    `dropped_tools` names the server tools that were removed because the operator's rules say so.
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
    server_tools: dict[str, ServerTool] = field(default_factory=dict)
    """The tools that the service runs inside the answer, by name. The engine sees them as functions in `tools`."""
    deferred_tools: list[Tool] = field(default_factory=list)
    """The tools that a tool search can find, with those that were found already. Empty without a tool search."""
    tool_changes: list[dict[str, Any]] = field(default_factory=list)
    """What the messages changed in the list of tools, for the `tool_changes` of a `compaction` block."""
    dropped_tools: tuple[str, ...] = ()
    only_warms_cache: bool = False
    """`max_tokens` was 0: the engine reads the prompt, and the answer is empty. `max_tokens` is 1 then."""
    compaction: Compaction | None = None
    """The conversation is summarized, at once or if it is too long. None if a relayed upstream does it."""
    context_edits: tuple[ContextEdit, ...] = ()
    """Edits of the messages, which the service makes before it asks the engine."""
    engine_model: str = ""
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The parsed body, for an engine that speaks the Messages API itself."""
    ignored: list[str] = field(default_factory=list, compare=False)
    """The paths of fields without effect on the answer. An engine adds those that its upstream does not support."""
    applied_edits: list[dict[str, Any]] = field(default_factory=list, compare=False)
    """The edits that changed the messages, for the answer. It is empty if a relayed upstream edits them itself."""
    relay_only: list[str] = field(default_factory=list, compare=False)
    """Why only a relayed upstream can answer the request, as `path: reason`. Any other engine refuses the first."""
    has_pdfs: bool = field(default=False, compare=False)
    """Whether the messages hold PDFs, which the service replaces by their pages before the engine is asked."""
    has_files: bool = field(default=False, compare=False)
    """Whether the messages refer to uploaded files, whose content is put into them before anything else is done."""
    cites: bool = field(default=False, compare=False)
    """Whether a document asks for citations."""
    cited: CitedDocuments | None = field(default=None, repr=False, compare=False)
    """The documents in which quotes of the answer are searched. `cite_documents` sets it."""
    body_size: int = field(default=0, repr=False, compare=False)
    """Bytes of the body."""
    is_large: bool = field(default=False, repr=False, compare=False)
    """Whether the body was read in steps. Then the request is also converted and encoded in steps."""
    estimate: Estimate | None = field(default=None, repr=False, compare=False)
    """The estimated length of a large prompt, which `estimate.estimate_in_steps` has stored."""
    cuts: Cuts | None = field(default=None, repr=False, compare=False)
    """What was cut out of a large request, for an engine that takes such requests. The request has marks instead."""
    held: list[Any] | None = field(default=None, repr=False, compare=False)
    """The values of a large request that are freed in steps (see `hold`). Copies of the request share the list."""
    trace_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    """W3C Trace Context headers (`traceparent`, `tracestate`) to send to the engine."""

    relay_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    """The client's `anthropic-beta` and `anthropic-version`, for an upstream that speaks the Messages API."""
    response_headers: list[tuple[str, str]] = field(default_factory=list, repr=False, compare=False)
    """Headers of the response to the client. An engine adds those of its upstream before its first output."""

    request_id: str = field(default="", repr=False, compare=False)
    """The id in the client's response, for the log lines of an engine."""

    is_batched: bool = field(default=False, repr=False, compare=False)
    """It belongs to a batch: it fails rather than waits where an engine of several has no free slot."""

    direct_output: DirectOutput | None = field(default=None, repr=False, compare=False)
    """The client of the stream, for an engine that can write deltas to it directly."""

    report_engine: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """Is called with the name of each engine that is asked, where there are several."""

    def __post_init__(self) -> None:
        self.engine_model = self.engine_model or self.model

    def hold(self) -> list[Any]:
        """Add the values that take most of the memory of a large request to `held`, and return that list.

        The code that uses the request last drops its own references first. Then it empties the list with
        `drop_in_steps`.
        """
        if self.held is None:
            self.held = []
        values: list[Any] = [self.raw, self.messages, self.tools, self.deferred_tools, self.tool_changes]
        if self.cuts is not None:
            values.append(self.cuts.content())
        self.held += [value for value in values if all(value is not known for known in self.held)]
        return self.held

    def refuse_relay_only(self) -> None:
        """For an engine that is no relayed upstream. Raises InvalidRequest for the first entry of `relay_only`."""
        if self.relay_only:
            is_tool = _TOOL_TYPE.search(self.relay_only[0]) is not None
            raise InvalidRequest(self.relay_only[0], error_code=_UNSUPPORTED if is_tool else None)


@dataclass(slots=True)
class CheckedMessages:
    """What the messages hold, and the reason why only a relayed upstream can read them; None if there is none."""

    history: History
    relay_only: FieldError | None = None
    deep: bool = True
    """Whether the body may be nested more deeply than the rules allow."""
    has_pdfs: bool = False
    has_files: bool = False
    cites: bool = False


def parse_request(
    body: bytes, *, counting: bool = False, rules: Rules = DEFAULT_RULES, cache: ToolCache[Tool] | None = None
) -> MessagesRequest:
    """The request in `body`, read by the operator's `rules`.

    `counting` is for `count_tokens`, which ignores the fields of nature GENERATION (contract section 10). `cache`
    keeps the tools of earlier requests. A cache is for one set of rules. No code may change tools from it.

    Raises InvalidRequest; NotFound for `thread: continue`, so that SDKs send the whole conversation again.
    """
    found = None if cache is None else _with_known_tools(body, cache)
    try:
        parsed, levels = loads_with_bound(body) if found is None else found
    except orjson.JSONDecodeError as exc:
        raise _invalid_json(exc) from None
    raw = parsed if type(parsed) is dict and not counting else _relevant_fields(parsed, counting)
    try:
        request = _read(raw, counting, rules, len(body), levels > rules.max_depth)
    except FieldError as error:
        raise _invalid_request(error) from None
    if cache is not None and found is None and request.tools:
        _keep_tools(body, request, cache, rules)
    return request


def _with_known_tools(body: bytes, cache: ToolCache[Tool]) -> tuple[dict[str, Any], int] | None:
    """The parsed body and its depth without its tools, in whose place KnownTools stand; None if they are not known."""
    found = cache.find(body)
    if found is None:
        return None
    known, rest = found
    try:
        parsed, levels = loads_exactly(rest)
    except orjson.JSONDecodeError:  # the caller finds out where
        return None
    if type(parsed) is not dict or not cache.is_mark(parsed.get("tools")):
        return None
    parsed["tools"] = known
    return parsed, levels


def _keep_tools(body: bytes, request: MessagesRequest, cache: ToolCache[Tool], rules: Rules) -> None:
    """Let the cache keep the tools of this request, if the body is read in the same way with and without them."""
    if request.dropped_tools or request.server_tools or request.relay_only:
        return
    raw = cache.unknown(body)
    if not raw:
        return
    checked = MessagesRequest("", 1, [])
    try:
        entries, levels = loads_exactly(raw)
        if levels >= rules.max_depth:
            return
        fields = {"tools": entries}
        run_to_end(_check_tools(checked, fields, rules, False))
    except (FieldError, orjson.JSONDecodeError):  # they are not the request's tools
        return
    if not checked.dropped_tools and not checked.server_tools and not checked.relay_only:
        cache.keep(raw, fields["tools"], checked.tools)


def parse_request_in_steps(
    pieces: list[bytes],
    *,
    counting: bool = False,
    rules: Rules = DEFAULT_RULES,
    cuts: Cuts | None = None,
    expansion: float | None = None,
) -> Steps[MessagesRequest]:
    """`parse_request` in steps, for a large body in pieces. Empties `pieces`.

    `cuts` receives long strings and what is not read. `expansion` limits the memory of the rest, as a multiple of the
    body. Raises as `parse_request`, and RequestTooLarge.
    """
    size = sum(map(len, pieces))
    try:
        parsed, levels = yield from loads_in_steps(pieces, cuts, expansion=expansion, max_depth=rules.max_depth)
    except orjson.JSONDecodeError as exc:
        raise _invalid_json(exc) from None
    raw = _relevant_fields(parsed, counting)
    yield from clear_in_steps(pieces)
    deep = levels > rules.max_depth
    try:
        checked: CheckedMessages | FieldError = yield from _check_messages_in_steps(raw, rules, cuts, deep=deep)
    except FieldError as error:
        checked = error.copy()
    try:
        request = yield from _read_in_steps(raw, counting, rules, size, checked)
        request.cuts = cuts
        request.is_large = True
        return request
    except FieldError as error:
        refusal = _invalid_request(error)
    held = [raw]
    del raw, parsed, checked
    try:
        yield from drop_in_steps(held)
        raise refusal
    finally:
        del refusal  # its traceback refers to this frame: a cycle for the garbage collector otherwise


def _invalid_json(exc: orjson.JSONDecodeError) -> InvalidRequest:
    return InvalidRequest(f"body: not valid JSON: {exc.msg} at character {exc.pos}")


def _invalid_request(error: FieldError) -> InvalidRequest:
    return InvalidRequest(f"{error.path}: {error.reason}", error_code=error.error_code)


def _relevant_fields(parsed: Any, counting: bool) -> dict[str, Any]:
    """The fields of a parsed body that are read. The others are removed from it."""
    if type(parsed) is not dict:
        raise InvalidRequest("body: must be a JSON object")
    if counting:
        for key in _GENERATION_KEYS:
            parsed.pop(key, None)
    return parsed


def _check_messages(raw: dict[str, Any], rules: Rules, *, deep: bool) -> CheckedMessages:
    """Raises FieldError."""
    findings, refused = Findings(), None
    try:
        messages = check_messages(raw, block_checks(rules, deep=deep), rules, findings)
    except FieldError as error:
        if not rules.pass_server_tools:
            raise
        findings, refused = Findings(), error.copy()
        messages = check_messages(raw, block_checks(rules, deep=deep, relay=True), rules, findings)
    if findings.needs_folding:
        history = run_to_end(fold_history(messages, has_citations=findings.has_citations))
    else:
        history = History(messages, has_citations=findings.has_citations)
    return _checked(history, findings, refused, deep=deep)


def _checked(history: History, findings: Findings, refused: FieldError | None, *, deep: bool) -> CheckedMessages:
    """What was found in the messages. Those that are only relayed are not read for PDFs, files and citations."""
    is_read_here = refused is None
    return CheckedMessages(
        history,
        refused,
        deep=deep,
        has_pdfs=findings.has_pdfs and is_read_here,
        has_files=findings.has_files and is_read_here,
        cites=findings.cites and is_read_here,
    )


def _check_messages_in_steps(
    raw: dict[str, Any], rules: Rules, cuts: Cuts | None, *, deep: bool
) -> Steps[CheckedMessages]:
    """`_check_messages` in steps. Raises FieldError."""
    findings, refused = Findings(), None
    try:
        messages = yield from check_messages_in_steps(raw, rules, deep=deep, findings=findings, cuts=cuts)
    except FieldError as error:
        if not rules.pass_server_tools:
            raise
        findings, refused = Findings(), error.copy()
        messages = yield from check_messages_in_steps(raw, rules, deep=deep, findings=findings, relay=True, cuts=cuts)
    if findings.needs_folding:
        history = yield from fold_history(messages, has_citations=findings.has_citations)
    else:
        history = History(messages, has_citations=findings.has_citations)
    return _checked(history, findings, refused, deep=deep)


def _read(
    raw: dict[str, Any], counting: bool, rules: Rules, size: int, checks: bool | CheckedMessages | FieldError
) -> MessagesRequest:
    """The request in `raw`. `checks` is the result of the check of its messages, if that was done in steps.

    Otherwise `checks` says whether the body is nested more deeply than the rules allow.
    """
    request = _unread(raw, size)
    for key, is_required, read in _COUNT_READERS if counting else _CREATE_READERS:
        if key in raw or is_required:
            steps = read(request, raw, rules, checks)
            if steps is not None:
                run_to_end(steps)
    return request


def _read_in_steps(
    raw: dict[str, Any], counting: bool, rules: Rules, size: int, checked: CheckedMessages | FieldError
) -> Steps[MessagesRequest]:
    """`_read` in steps."""
    request = _unread(raw, size)
    for key, is_required, read in _COUNT_READERS if counting else _CREATE_READERS:
        if key in raw or is_required:
            yield
            steps = read(request, raw, rules, checked)
            if steps is not None:
                yield from steps
    return request


def _unread(raw: dict[str, Any], size: int) -> MessagesRequest:
    request = MessagesRequest("", 1, [], raw=raw, body_size=size)
    if not raw.keys() <= _KEYS_WITH_EFFECT:
        request.ignored += _ignored(raw)
    return request


def _ignored(raw: dict[str, Any]) -> list[str]:
    """The fields that are dropped and have a value, in the order of the body."""
    dropped = (key for key, value in islice(raw.items(), _MAX_EXAMINED) if key not in _KEYS_WITH_EFFECT and value)
    names = (key for key in dropped if _FIELD_NAME.fullmatch(key) is not None)
    return list(islice(names, _MAX_REPORTED))


# Readers: each checks one field of the body and stores it in the request. They raise FieldError. What takes long for
# a large body is left to the steps that some of them return.


def _refuse_thread(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    thread = raw["thread"]
    if type(thread) is dict and thread.get("type") == "continue":
        raise NotFound("thread: not found; send the whole conversation", error_code="thread_not_found")


def _compaction(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    if rules.pass_server_tools:
        if raw["compaction"]:
            _refuse(request, rules, "compaction", _NOT_COMPACTED)
        return
    config = optional(raw, "compaction", dict)
    if config is None:
        return
    if raw.get("context_management"):
        raise FieldError("compaction", "cannot be combined with context_management")
    try:
        request.compaction = read_compaction(config)
    except FieldError as error:
        raise error.within("compaction") from None


def _refuse_mcp_servers(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    if raw["mcp_servers"]:
        _refuse(request, rules, "mcp_servers", "this service does not connect to MCP servers")


def _context_edits(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    config = optional(raw, "context_management", dict)
    if not config:
        return
    try:
        edits = read_context_edits(config)
    except FieldError as error:
        raise error.within("context_management") from None
    request.context_edits = tuple(edits.clearing)
    if edits.compaction is not None and rules.pass_server_tools:
        _refuse(request, rules, f"context_management.{edits.compaction[0]}", _NOT_COMPACTED)
    elif edits.compaction is not None:
        request.compaction = edits.compaction[1]
    for path, kind in edits.unknown:
        if kind.startswith("compact_"):
            reason = f"{quoted(kind, 80)} is an edit that this service does not know"
            _refuse(request, rules, f"context_management.{path}", reason)
        else:
            request.ignored.append(f"context_management.{path}")


def _refuse(request: MessagesRequest, rules: Rules, path: str, reason: str) -> None:
    """Refuse what would make the answer another one, unless the engine may be a relayed upstream that does it."""
    if not rules.pass_server_tools:
        raise FieldError(path, reason)
    request.relay_only.append(f"{path}: {reason}")


def _model(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    model = required(raw, "model", str)
    if not model:
        raise FieldError("model", "must not be empty")
    if len(model) > _LONGEST_MODEL:
        raise FieldError("model", f"must have at most {_LONGEST_MODEL} characters")
    request.model = request.engine_model = model


def _max_tokens(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    """Stores the length. 0 asks for no answer, but engines accept no such length, so they are asked for one token."""
    max_tokens = optional_integer(raw, "max_tokens", 0)
    if max_tokens is None:
        raise FieldError("max_tokens", "required")
    if max_tokens == 0:
        request.only_warms_cache = True
        raw["max_tokens"] = max_tokens = 1
    request.max_tokens = max_tokens


def _messages(
    request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: bool | CheckedMessages | FieldError
) -> Steps[None] | None:
    """Stores the messages and what they change: the list of tools and the effort."""
    if isinstance(checks, FieldError):
        raise checks.copy()
    checked = _check_messages(raw, rules, deep=checks) if isinstance(checks, bool) else checks
    history = checked.history
    if checked.relay_only is not None:
        request.relay_only.append(f"{checked.relay_only.path}: {checked.relay_only.reason}")
    if not history.messages:
        raise FieldError("messages", "must hold at least one message with content")
    request.messages = history.messages
    request.has_pdfs = checked.has_pdfs
    request.has_files = checked.has_files
    request.cites = checked.cites
    if history.has_citations:
        request.ignored.append("citations")
    request.effort = history.effort or request.effort
    tools = raw.get("tools")
    if not history.tool_changes and not request.server_tools and not (tools and has_deferred(tools)):
        return None
    return _offer_tools(request, raw, rules, history.tool_changes, deep=checked.deep)


def _offer_tools(
    request: MessagesRequest, raw: dict[str, Any], rules: Rules, changes: list[ToolChange], *, deep: bool
) -> Steps[None]:
    """Stores which of the tools are offered after these changes, in steps. `deep` is as in CheckedMessages."""
    declared = {tool.name: tool for tool in request.tools}
    entries = yield from read_entries(raw.get("tools") or ())
    request.tools = yield from offered_tools(
        declared,
        entries,
        changes,
        lambda entry, path: _defined_tool(entry, path, request, rules, may_be_deep=deep),
        relay_only=request.relay_only if rules.pass_server_tools else None,
        forced=_forced_tool(raw),
    )
    if changes:
        request.tool_changes = yield from net_changes(raw.get("tools") or (), changes)
    if request.server_tools:
        if any(isinstance(tool, ToolSearch) for tool in request.server_tools.values()):
            found = yield from searchable_tools(declared, entries, changes)
            request.deferred_tools = [tool for tool in found if tool.name not in request.server_tools]
        yield from show_calls(request)
    yield from clear_in_steps(changes)


def show_calls(request: MessagesRequest) -> Steps[None]:
    """Let the engine see the server tools that run here as functions, and their calls in the history as calls.

    This holds for `raw`, too: a server that speaks Messages must not run them. It is done in steps.
    """
    request.messages = yield from with_calls(request.messages, frozenset(request.server_tools))
    tools: list[dict[str, Any]] = []
    for number, tool in enumerate(request.tools, 1):
        tools.append(definition(tool))
        if number % _TOOLS_PER_STEP == 0:
            yield
    request.raw |= {"messages": request.messages, "tools": tools}


def raw_with_messages(request: MessagesRequest, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The body with other messages. If those that they replace changed the list of tools, `tools` has the changes."""
    raw = {**request.raw, "messages": messages}
    if request.tool_changes:
        raw["tools"] = [definition(tool) for tool in request.tools]
    return raw


def definition(tool: Tool) -> dict[str, Any]:
    """The tool as an entry of `tools`."""
    entry: dict[str, Any] = {"name": tool.name, "input_schema": tool.input_schema or {"type": "object"}}
    if tool.description is not None:
        entry["description"] = tool.description
    if tool.strict is not None:
        entry["strict"] = tool.strict
    return entry


def _defined_tool(
    entry: dict[str, Any], path: str, request: MessagesRequest, rules: Rules, *, may_be_deep: bool
) -> Steps[tuple[str, Tool] | None]:
    """The tool of a definition in a message, and its name; None for a server tool that the rules drop or pass."""
    tool = _tool(entry, rules)
    if may_be_deep and tool is not None and type(entry.get("input_schema")) is dict:
        yield from check_depth_in_steps(entry, "input_schema", rules.max_depth)
    if tool is None and rules.pass_server_tools:
        request.relay_only.append(f"{path}.type: {_not_run_here(entry['type'])}")
    return None if tool is None else (tool.name, tool)


def _forced_tool(raw: dict[str, Any]) -> str | None:
    """The name in `tool_choice`, which is checked later."""
    choice = raw.get("tool_choice")
    name = choice.get("name") if type(choice) is dict else None
    return name if type(name) is str else None


def _system(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> Steps[None]:
    request.system = yield from check_system(raw, keep_billing_header=rules.keep_billing_header)


def _tools(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> Steps[None] | None:
    """Stores the tools."""
    known = raw["tools"]
    if isinstance(known, KnownTools):
        request.tools, raw["tools"] = known.tools, known.entries
        return None
    return _check_tools(request, raw, rules, checks)


def _check_tools(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> Steps[None]:
    """Stores the tools and the names of the dropped ones, in steps; writes what the rules changed into `raw`, too.

    `checks` is as in `_read`.
    """
    tools: dict[str, Tool] = {}
    dropped: list[str] = []
    kept = []
    may_be_deep = _may_be_deep(checks)
    for index, entry in enumerate(optional_array(raw, "tools", rules.max_tools)):
        try:
            tool = _tool(entry, rules, served=request.server_tools)
            if may_be_deep and tool is not None and type(entry.get("input_schema")) is dict:
                yield from check_depth_in_steps(entry, "input_schema", rules.max_depth)
            if tool is None and rules.pass_server_tools:
                kept.append(entry)
                request.relay_only.append(f"tools.{index}.type: {_not_run_here(entry['type'])}")
            elif tool is None:
                dropped.append(optional(entry, "name", str) or entry["type"])
            elif tool.name in tools:
                raise FieldError("name", f"two tools have the name {tool.name!r}")
            else:
                tools[tool.name] = tool
                kind = entry.get("type")
                kept.append(CLIENT_TOOLS[kind]._asdict() if kind in CLIENT_TOOLS else entry)
        except FieldError as error:
            raise error.within(f"tools.{index}") from None
        if index % _TOOLS_PER_STEP == _TOOLS_PER_STEP - 1:
            yield
    if dropped and not kept:
        raise FieldError(
            "tools", f"{quoted(dropped[0], 80)} does not run here, and no other tool is left", _UNSUPPORTED
        )
    if kept or dropped:
        raw["tools"] = kept
    request.tools, request.dropped_tools = list(tools.values()), tuple(dropped)


def _may_be_deep(checks: object) -> bool:
    """Whether the body may be nested more deeply than the rules allow. `checks` is as in `_read`."""
    return checks is not False and not (isinstance(checks, CheckedMessages) and not checks.deep)


def _tool(entry: Any, rules: Rules, *, served: dict[str, ServerTool] | None = None) -> Tool | None:
    """The tool; None for one of Anthropic's tools that the rules drop or pass. The depth of its schema is not checked.

    `served` collects the tools that the service runs itself; without it, they are refused.
    """
    if type(entry) is not dict:
        raise FieldError("", "must be an object")
    kind = optional(entry, "type", str)
    if kind is not None and served is not None and not rules.pass_server_tools:
        server_tool = read_server_tool(entry, web_search=rules.web_search)
        if server_tool is not None:
            served[server_tool.name] = server_tool
            return Tool(server_tool.name, server_tool.description, server_tool.input_schema)
    if kind in CLIENT_TOOLS and (rules.client_tools_as_functions or not rules.pass_server_tools):
        return _client_tool(entry, kind, rules)
    if kind is not None and kind != "custom":
        if rules.pass_server_tools or (rules.drop_server_tools and _may_drop(kind)):
            return None
        raise FieldError("type", _not_run_here(kind), _UNSUPPORTED)
    optional(entry, "defer_loading", bool)
    name = required(entry, "name", str)
    if _TOOL_NAME.fullmatch(name) is None:
        raise FieldError("name", "must be 1 to 128 letters, digits, _ or -")
    schema = optional(entry, "input_schema", dict)
    return Tool(name, optional(entry, "description", str), schema, optional(entry, "strict", bool))


def _may_drop(kind: str) -> bool:
    """Whether a tool of this type may be left out.

    A client's own tool may not. Nor may web search: a client whose request is only about a search would take an
    invented answer for its results.
    """
    return RUN_BY_CLIENTS.match(kind) is None and not kind.startswith("web_search_")


def _not_run_here(kind: str) -> str:
    if RUN_BY_CLIENTS.match(kind) is not None:
        return f"{quoted(kind, 80)} is a tool that only Anthropic's models know"
    return f"{quoted(kind, 80)} is a server tool, which does not run here"


def _client_tool(entry: dict[str, Any], kind: str, rules: Rules) -> Tool:
    """One of Anthropic's client tools as a function, if the rules allow that.

    Otherwise it is refused, never dropped: an agent without its tools would fail without knowing why.
    """
    known = CLIENT_TOOLS[kind]
    if not rules.client_tools_as_functions:
        raise FieldError("type", _not_run_here(kind), _UNSUPPORTED)
    if (optional(entry, "name", str) or known.name) != known.name:
        raise FieldError("name", f"must be {known.name!r}")
    return Tool(*known)


def _tool_choice(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    entry = optional(raw, "tool_choice", dict)
    if entry is None:
        return
    try:
        kind = one_of(entry, "type", _CHOICES)
        name = required(entry, "name", str) if kind == "tool" else None
        if name is not None and all(tool.name != name for tool in request.tools) and not request.relay_only:
            raise FieldError("name", f"no tool is named {quoted(name, 150)}")
        if kind == "any" and not request.tools and not request.relay_only:
            raise FieldError("type", "any needs tools")
        request.tool_choice = ToolChoice(kind, name)
    except FieldError as error:
        raise error.within("tool_choice") from None


def _parallel_tool_use(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    if request.tool_choice is None:
        return
    try:
        request.tool_choice.parallel = not optional(raw["tool_choice"], "disable_parallel_tool_use", bool)
    except FieldError as error:
        raise error.within("tool_choice") from None


def _temperature(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    request.temperature = optional_number(raw, "temperature", 0, 2)


def _top_p(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    request.top_p = optional_number(raw, "top_p", 0, 1)


def _top_k(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    request.top_k = optional_integer(raw, "top_k", 0) or None


def _stop_sequences(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    stops = optional_array(raw, "stop_sequences", rules.max_stop_sequences)
    for index, stop in enumerate(stops):
        if type(stop) is not str or not stop:
            raise FieldError(f"stop_sequences.{index}", "must be a non-empty string")
    request.stop_sequences = tuple(stops)


def _stream(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    request.stream = bool(optional(raw, "stream", bool))


def _user_id(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    metadata = optional(raw, "metadata", dict)
    if metadata is None:
        return
    try:
        request.user_id = optional(metadata, "user_id", str)
    except FieldError as error:
        raise error.within("metadata") from None


def _thinking(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    entry = optional(raw, "thinking", dict)
    if entry is None:
        return
    try:
        kind = one_of(entry, "type", _THINKING)
        budget = optional_integer(entry, "budget_tokens", 1) if kind != "disabled" else None
        if kind == "enabled" and budget is None:
            raise FieldError("budget_tokens", "required")
        if kind == "between_tools":
            kind = "adaptive" if request.tools else "disabled"
        request.thinking = ThinkingConfig(kind, budget, optional(entry, "display", str))
    except FieldError as error:
        raise error.within("thinking") from None


def _effort(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> None:
    config = optional(raw, "output_config", dict)
    if config is None:
        return
    try:
        request.effort = optional(config, "effort", str)
    except FieldError as error:
        raise error.within("output_config") from None


def _output_format(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> Steps[None]:
    """Stores the schema of `output_config.format: {type: json_schema, schema}`."""
    config = optional(raw, "output_config", dict)
    if config is None:
        return
    try:
        request.output_schema = yield from _schema(config, "format", rules, checks)
    except FieldError as error:
        raise error.within("output_config") from None


def _older_output_format(request: MessagesRequest, raw: dict[str, Any], rules: Rules, checks: object) -> Steps[None]:
    """Stores the schema of `output_format`, which older clients send, unless there is an `output_config.format`."""
    schema = yield from _schema(raw, "output_format", rules, checks)
    if request.output_schema is None:
        request.output_schema = schema


def _schema(container: dict[str, Any], key: str, rules: Rules, checks: object) -> Steps[dict[str, Any] | None]:
    """The schema of the output format at `key`; None if there is none. `checks` is as in `_read`."""
    output_format = optional(container, key, dict)
    if output_format is None:
        return None
    try:
        one_of(output_format, "type", {"json_schema"})
        schema: dict[str, Any] = required(output_format, "schema", dict)
        if _may_be_deep(checks):
            yield from check_depth_in_steps(output_format, "schema", rules.max_depth)
    except FieldError as error:
        raise error.within(key) from None
    return schema


# The table of fields


class Nature(Enum):
    """What a request field is about."""

    PROMPT = "prompt"
    """Part of the prompt, or changes how the engine builds it. `create` and `count_tokens` validate it."""
    GENERATION = "generation"
    """How the answer is generated and delivered. `count_tokens` ignores it."""
    COMFORT = "comfort"
    """Dispensable. If an engine refuses it, the request is sent again without it."""
    IGNORED = "ignored"
    """Accepted, and without effect here."""
    REFUSED = "refused"
    """Refused by name, because the answer would be another one. A relayed upstream may receive it."""


Reader = Callable[[MessagesRequest, dict[str, Any], Rules, Any], Steps[None] | None]


class RequestField(NamedTuple):
    """One field of the body."""

    path: str
    """Keys from the body to the field, joined by dots."""
    nature: Nature
    attribute: str | None
    """Attribute of MessagesRequest that holds the value, as a dotted path; None if no attribute does."""
    read: Reader | None
    """Checks the field and stores it; None if the field is not looked at."""
    is_required: bool = False
    seeds_answer: bool = False
    """Whether a different value makes the engine give a different answer. The simulator draws its answer from these."""

    @property
    def key(self) -> str:
        """The key in the body."""
        return self.path.partition(".")[0]


_PROMPT, _GENERATION, _COMFORT, _IGNORED, _REFUSED = Nature
REQUEST_FIELDS: Final = (
    RequestField("thread", _IGNORED, None, _refuse_thread),
    RequestField("model", _PROMPT, "model", _model, is_required=True, seeds_answer=True),
    RequestField("max_tokens", _GENERATION, "max_tokens", _max_tokens, is_required=True),
    RequestField("tools", _PROMPT, "tools", _tools, seeds_answer=True),
    RequestField("output_config.effort", _COMFORT, "effort", _effort, seeds_answer=True),
    RequestField("output_config.format", _PROMPT, "output_schema", _output_format, seeds_answer=True),
    RequestField("output_format", _PROMPT, "output_schema", _older_output_format, seeds_answer=True),
    RequestField("messages", _PROMPT, "messages", _messages, is_required=True, seeds_answer=True),
    RequestField("system", _PROMPT, "system", _system, seeds_answer=True),
    RequestField("temperature", _GENERATION, "temperature", _temperature, seeds_answer=True),
    RequestField("top_p", _GENERATION, "top_p", _top_p, seeds_answer=True),
    RequestField("top_k", _GENERATION, "top_k", _top_k, seeds_answer=True),
    RequestField("stop_sequences", _GENERATION, "stop_sequences", _stop_sequences),
    RequestField("stream", _GENERATION, "stream", _stream),
    RequestField("metadata.user_id", _COMFORT, "user_id", _user_id),
    RequestField("thinking", _COMFORT, "thinking", _thinking, seeds_answer=True),
    RequestField("tool_choice", _PROMPT, "tool_choice", _tool_choice, seeds_answer=True),
    RequestField("tool_choice.disable_parallel_tool_use", _COMFORT, "tool_choice.parallel", _parallel_tool_use),
    RequestField("cache_control", _IGNORED, None, None),
    RequestField("container", _IGNORED, None, None),
    RequestField("compaction", _GENERATION, "compaction", _compaction),
    RequestField("context_management", _PROMPT, "context_edits", _context_edits),
    RequestField("diagnostics", _IGNORED, None, None),
    RequestField("fallbacks", _IGNORED, None, None),
    RequestField("inference_geo", _IGNORED, None, None),
    RequestField("mcp_servers", _REFUSED, None, _refuse_mcp_servers),
    RequestField("service_tier", _IGNORED, None, None),
    RequestField("speed", _IGNORED, None, None),
)
"""Every known field of the body, in the order in which they are read. Any other field is accepted and ignored."""

_GENERATION_KEYS: Final = frozenset(row.key for row in REQUEST_FIELDS if row.nature is _GENERATION)
_CREATE_READERS: Final = tuple((row.key, row.is_required, row.read) for row in REQUEST_FIELDS if row.read is not None)
_COUNT_READERS: Final = tuple(reader for reader in _CREATE_READERS if reader[0] not in _GENERATION_KEYS)
_KEYS_WITH_EFFECT: Final = frozenset(
    ["thread", "cache_control", "container", "service_tier"]
    + [row.key for row in REQUEST_FIELDS if row.nature is not _IGNORED]
)
"""All keys but those that `ignored` names. Four fields without effect are dropped without a report (contract 3.21)."""
