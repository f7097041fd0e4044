"""Checks the messages and the system prompt of a request: at once, or in steps for a large request.

In steps, base64 is checked in slices, as it takes a millisecond for a megabyte. The validators of `blocks` are not
written in steps. So `_Base64InSteps` decodes short data for them at once. For long data it raises `_CheckLater`: the
data is then checked in steps, and the block is checked again with the result known. `_InputsInSteps` reads inputs of
tool calls that are strings in the same way. A long array of blocks raises `CheckPaused` after some blocks, and the next
check of the message goes on behind these. So errors are found in the same order as in the check at once.
"""

import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .blocks import (
    DEFAULT_BLOCK_CHECKS,
    SYSTEM_PROMPT_CHECKS,
    Check,
    CheckPaused,
    Progress,
    RoleChecks,
    block_checks,
    check_content,
    decode_base64,
    read_input,
)
from .defaults import MAX_EXPANSION
from .errors import InvalidRequest, RequestTooLarge, quoted
from .field_checks import FieldError, is_shallow_in_steps, one_of, optional, optional_array, required, too_deep
from .history_folding import FOLDED_BLOCKS, FOLDED_IN_RESULTS
from .large.cooperative import Steps, run_to_end
from .large.cuts import Cuts, is_mark, is_value_mark
from .large.json_reader import INPUT, loads_in_steps
from .large.json_writer import dumps_in_steps
from .request_policy import DEFAULT_RULES, Rules

_MESSAGES_PER_STEP: Final = 8
_BLOCKS_PER_STEP: Final = 512
_DECODED: Final = 256 * 1024  # characters of base64 decoded in a step
_PARSED: Final = 16 * 1024  # characters of JSON in strings parsed in a step
_KEPT: Final = 16  # characters of such JSON that is kept as text
_VALUE: Final = 76  # bytes of memory that a JSON value takes, roughly
_ALWAYS: Final = 16 * 1024 * 1024  # bytes that these values may take in any request
_SLICE: Final = 64 * 1024
_GROUP: Final = 4  # characters of base64 that are decoded together
_ID_KEYS: Final = {"tool_use": "id", "tool_result": "tool_use_id"}
_CITED: Final = frozenset({"document", "search_result"})
_CLEARING: Final = frozenset({"never", "next_user_message"})
# Claude Code starts its system prompt with a line that changes with every call, so no prefix cache would ever hit.
_BILLING_HEADER: Final = re.compile(r"x-anthropic-billing-header:(?:[ \t]*[\w.-]+=[^;\r\n]*;)+")
_LONGEST_HEADER: Final = 1024  # characters
_PLACES: Final = {role: f"a message of role {role}" for role in DEFAULT_BLOCK_CHECKS}


class Findings:
    """What the check of the messages has seen.

    Attributes:
        called: the ids of the tool calls so far.
        needs_folding: whether the messages hold anything that `fold_history` changes.
        cites: whether a document asks for citations.
        has_citations: whether a search result asks for citations, which has no effect.
        has_files: whether an image or a document refers to an uploaded file.
        has_pdfs: whether a document is a PDF, which is to be read.
    """

    __slots__ = ("called", "cites", "has_citations", "has_files", "has_pdfs", "needs_folding")

    def __init__(self) -> None:
        self.called: set[str] = set()
        self.needs_folding = False
        self.cites = False
        self.has_citations = False
        self.has_files = False
        self.has_pdfs = False

    def add(self, kind: str, block: dict[str, Any]) -> Steps[None]:
        """Note a valid block, in steps."""
        if kind in FOLDED_BLOCKS:
            self.needs_folding = True
        elif kind in _CITED:
            self._note_citations(kind, block.get("citations"))
            if kind == "document":
                yield from self._add_document(block["source"])
        elif kind == "image":
            self.has_files |= block["source"]["type"] == "file"
        elif kind == "tool_result" and type(block.get("content")) is list:
            for number, inner in enumerate(block["content"], 1):
                if inner["type"] not in _PLAIN:
                    yield from self.add(inner["type"], inner)
                if number % _BLOCKS_PER_STEP == 0:
                    yield
        elif kind in FOLDED_IN_RESULTS:
            self.needs_folding = True

    def _note_citations(self, kind: str, citations: Any) -> None:
        if type(citations) is dict and citations.get("enabled") is True:
            if kind == "document":
                self.cites = True
            else:
                self.has_citations = True

    def _add_document(self, source: dict[str, Any]) -> Steps[None]:
        kind = source["type"]
        if kind == "base64":
            self.has_pdfs = True
        elif kind == "file":
            self.has_files = True
        elif kind == "content" and type(source["content"]) is list:
            for number, inner in enumerate(source["content"], 1):
                if inner["type"] not in _PLAIN:
                    yield from self.add(inner["type"], inner)
                if number % _BLOCKS_PER_STEP == 0:
                    yield


def check_messages(
    raw: dict[str, Any], checks: RoleChecks, rules: Rules = DEFAULT_RULES, findings: Findings | None = None
) -> list[dict[str, Any]]:
    """The messages of the request body `raw`, checked with `checks`. Raises FieldError."""
    messages = _message_list(raw, rules)
    findings = Findings() if findings is None else findings
    index = 0
    try:
        for index, message in enumerate(messages):  # noqa: B007 - used in the except clause
            if _check(message, checks, findings):
                run_to_end(_check_blocks(message["content"], findings))
    except FieldError as error:
        raise error.within(f"messages.{index}") from None
    return messages


def check_messages_in_steps(
    raw: dict[str, Any],
    rules: Rules = DEFAULT_RULES,
    *,
    deep: bool,
    findings: Findings | None = None,
    relay: bool = False,
    cuts: Cuts | None = None,
) -> Steps[list[dict[str, Any]]]:
    """`check_messages` in steps, with the checks of `block_checks`. Raises FieldError."""
    messages = _message_list(raw, rules)
    base64 = _Base64InSteps(cuts)
    inputs = _InputsInSteps(cuts)
    progress = Progress()
    checks = block_checks(
        rules,
        deep=deep,
        decode=base64.decode,
        read=inputs.read,
        depth=_DepthsInSteps().check,
        progress=progress,
        relay=relay,
    )
    findings = Findings() if findings is None else findings
    index = 0
    while index < len(messages):
        message = messages[index]
        try:
            if _check(message, checks, findings, progress):
                yield from _check_blocks(message["content"], findings)
        except _CheckLater as later:
            yield from later.steps
            continue
        except CheckPaused:
            yield
            base64.new_step()
            inputs.new_step()
            continue
        except FieldError as error:
            raise error.within(f"messages.{index}") from None
        index += 1
        if index % _MESSAGES_PER_STEP == 0:
            yield
            base64.new_step()
            inputs.new_step()
    return messages


def _message_list(raw: dict[str, Any], rules: Rules) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = required(raw, "messages", list)
    if not messages:
        raise FieldError("messages", "must hold at least one message")
    return optional_array(raw, "messages", rules.max_messages)


def _check(message: Any, checks: RoleChecks, findings: Findings, progress: Progress | None = None) -> bool:
    """Checks a message, but for what `_check_blocks` does. Returns whether that is to be called."""
    if type(message) is not dict:
        raise FieldError("", "must be an object")
    role = message.get("role")
    if type(role) is not str or role not in checks:
        role = one_of(message, "role", checks)
    content: Any = message.get("content")
    if role == "system":
        _check_system_message(message, content, checks[role], findings, progress)
    elif type(content) is not str:
        check_content(content, checks[role], _PLACES[role], progress)
        return True
    return False


def _check_system_message(
    message: dict[str, Any], content: Any, checks: dict[str, Check], findings: Findings, progress: Progress | None
) -> None:
    """A system message may hold settings and changes of the tool list. It needs no content beside settings."""
    config = optional(message, "output_config", dict)
    if config is not None:
        try:
            optional(config, "effort", str)
        except FieldError as error:
            raise error.within("output_config") from None
    clearing = message.get("clear_at")
    if clearing is not None:
        one_of(message, "clear_at", _CLEARING)
    if content is not None or not config:
        check_content(content, checks, _PLACES["system"], progress)
    has_changes = type(content) is list and any(block["type"] != "text" for block in content)
    if has_changes or clearing is not None or config is not None:
        findings.needs_folding = True


def _check_blocks(content: list[dict[str, Any]], findings: Findings) -> Steps[None]:
    """Checks that every result has an earlier call with its id, and that no id occurs twice within one message.

    It works in steps. Different messages may use the same id: some engines number the calls of each answer from the
    start.
    """
    here: set[tuple[str, str]] = set()
    for index, block in enumerate(content):
        kind = block["type"]
        key = _ID_KEYS.get(kind)
        if kind not in _PLAIN:
            yield from findings.add(kind, block)
        if index % _BLOCKS_PER_STEP == _BLOCKS_PER_STEP - 1:
            yield
        if key is None:
            continue
        identity = block[key]
        if kind == "tool_use":
            findings.called.add(identity)
        elif identity not in findings.called:
            raise FieldError(f"content.{index}.{kind}.{key}", f"no earlier tool_use has the id {quoted(identity, 80)}")
        if (kind, identity) in here:
            raise FieldError(f"content.{index}.{kind}.{key}", f"a second {kind} for the id {quoted(identity, 80)}")
        here.add((kind, identity))


_PLAIN: Final = frozenset({"text", "thinking", "tool_use"})  # of these `Findings` notes nothing


def check_system(raw: dict[str, Any], *, keep_billing_header: bool) -> Steps[list[str]]:
    """The texts of the system prompt, in steps. Removes a billing header from `raw` unless it is kept.

    Raises FieldError.
    """
    system = raw.get("system")
    if system is None:
        return []
    if type(system) is str:
        system = [{"type": "text", "text": system}]
    if type(system) is not list:
        raise FieldError("system", "must be a string or an array of text blocks")
    try:
        yield from _check_system_blocks(system)
    except FieldError as error:
        # Anthropic's API writes no type here, because all blocks have the same one.
        path = error.path.replace("content", "system", 1).replace(".text.", ".", 1)
        raise FieldError(path, error.reason) from None
    if system and not keep_billing_header and _is_billing_header(system[0]["text"]):
        raw["system"] = system = system[1:]
    texts: list[str] = []
    for number, block in enumerate(system, 1):
        if block["text"]:
            texts.append(block["text"])
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return texts


def _check_system_blocks(blocks: list[Any]) -> Steps[None]:
    progress = Progress()
    while True:
        try:
            return check_content(blocks, SYSTEM_PROMPT_CHECKS, "system", progress)
        except CheckPaused:
            yield


def _is_billing_header(text: str) -> bool:
    return len(text) <= _LONGEST_HEADER and _BILLING_HEADER.fullmatch(text) is not None


# Long values in steps


class _CheckLater(Exception):
    """A value is too long for this step. After `steps`, the check of its block is repeated."""

    def __init__(self, steps: Steps[None]) -> None:
        super().__init__()
        self.steps = steps


class _Base64InSteps:
    """Decodes base64 for the validators of one request, up to `_DECODED` characters in a step."""

    def __init__(self, cuts: Cuts | None = None) -> None:
        self._cuts = cuts
        self._is_base64: dict[int, bool] = {}  # by id() of a string that lives as long as the request
        self._left = _DECODED  # characters that may still be decoded in this step

    def decode(self, data: str) -> object:
        """A `blocks.Base64Decoder`. Raises _CheckLater if `data` is too long for this step."""
        is_base64 = self._is_base64.get(id(data))
        if is_base64 is False:
            raise ValueError
        if is_base64 or (len(data) <= self._left and not is_mark(data)):
            return is_base64 or self._decode(data)
        raise _CheckLater(self._check(data))

    def _decode(self, data: str) -> object:
        self._left -= len(data)
        decoded = decode_base64(data)
        if decoded:
            self._is_base64[id(data)] = True  # a message may be checked more than once
        return decoded

    def new_step(self) -> None:
        """Called when a new step begins."""
        self._left = _DECODED

    def _check(self, data: str) -> Steps[None]:
        """Checks `data` in steps, for the next call of `decode`."""
        yield
        parts = self._cuts.texts(data) if self._cuts is not None and is_mark(data) else _slices(data)
        self._is_base64[id(data)] = yield from is_base64_in_steps(parts)
        self.new_step()


def is_base64_in_steps(parts: Iterable[str]) -> Steps[bool]:
    """Whether `decode_base64` accepts the joined parts, which are not empty."""
    held = ""  # the last characters so far: a padded group, and the one before it
    padding = decoded = 0
    try:
        for part in parts:
            text = part.rstrip("=")
            if "=" in text or (padding and text):
                return False
            padding += len(part) - len(text)
            held += text
            end = max(0, len(held) - _GROUP - 1) // _GROUP * _GROUP
            a2b_base64(held[:end], strict_mode=True)
            decoded += end
            held = held[end:]
            if decoded >= _DECODED:
                decoded = 0
                yield
        decode_base64(held + "=" * min(padding, _GROUP))
    except ValueError:
        return False
    return True


def _slices(text: str) -> Iterator[str]:
    return (text[start : start + _SLICE] for start in range(0, len(text), _SLICE))


class _InputsInSteps:
    """Reads the inputs of tool calls that are JSON in a string, up to `_PARSED` characters in a step.

    `cuts` receives them again as JSON text, as it does with inputs that are objects. Without it, their values may take
    seven times the memory of their text, and at least 16 MiB.
    """

    def __init__(self, cuts: Cuts | None = None) -> None:
        self._cuts = cuts
        self._size = self._memory = 0  # of all strings, and of their values
        self._found: dict[int, Any] = {}  # by id() of a string that its block holds
        self._left = _PARSED  # characters that may still be read in this step

    def read(self, value: Any, max_depth: int) -> Any:
        """A `blocks.InputReader`. Raises _CheckLater if `value` is too long for this step."""
        if type(value) is not str:
            return read_input(value, max_depth)
        if id(value) in self._found:
            found = self._found.pop(id(value))
            if isinstance(found, FieldError):
                raise found
            return found
        if len(value) > self._left:
            raise _CheckLater(self._read(value, max_depth))
        self._left -= len(value)
        return run_to_end(self._read_short(value, max_depth))

    def new_step(self) -> None:
        """Called when a new step begins."""
        self._left = _PARSED

    def _read(self, value: str, max_depth: int) -> Steps[None]:
        """Reads `value` in steps, for the next call of `read`."""
        yield
        found: Any = value
        try:
            if len(value) <= _PARSED:
                found = yield from self._read_short(value, max_depth)
            else:
                found = yield from self._read_long(value, max_depth)
        except FieldError as error:
            found = error.copy()
        self._found[id(value)] = found
        yield
        self.new_step()

    def _read_short(self, value: str, max_depth: int) -> Steps[Any]:
        """`read_input` of a short string. Raises RequestTooLarge."""
        self._take_memory(value)
        found = read_input(value, max_depth)
        if self._cuts is None or type(found) is not dict or len(value) < _KEPT:
            return found
        return (yield from _cut_out(found, self._cuts))

    def _take_memory(self, value: str) -> None:
        self._size += len(value)
        self._memory += _VALUE * sum(map(value.count, "[{,"))
        if self._cuts is None and self._memory > max(_ALWAYS, 2 * MAX_EXPANSION * self._size):
            reason = f"would take more than {2 * MAX_EXPANSION:g} times its size in memory"
            raise RequestTooLarge(f"body: the JSON in the inputs of tool calls {reason}")

    def _read_long(self, value: str, max_depth: int) -> Steps[Any]:
        """`read_input` of a long string. Raises RequestTooLarge."""
        self._take_memory(value)
        if not value.strip():
            return {}
        found: Any = value
        for _ in range(2):
            if type(found) is not str:
                break
            try:
                text = [b"[", *_encoded(found), b"]"]
                whole, levels = yield from loads_in_steps(text, self._cuts, max_depth=max_depth, shape=INPUT)
            except (ValueError, InvalidRequest):
                return value
            if levels > max_depth + 1:
                raise too_deep("input", max_depth)
            if len(whole) != 1:
                return value
            found = whole[0]
        if type(found) is not dict:
            return value
        return found if self._cuts is None else (yield from _cut_out(found, self._cuts))


class _DepthsInSteps:
    """Checks the depth of values in steps. Values are checked only if the request is deep somewhere."""

    def __init__(self) -> None:
        self._is_shallow: dict[int, bool] = {}  # by id() of a value that lives as long as the request

    def check(self, container: dict[str, Any], key: str, most: int) -> None:
        """A `blocks.DepthCheck`. Raises _CheckLater the first time."""
        value = container[key]
        if type(value) is not dict and type(value) is not list:
            return
        if id(value) not in self._is_shallow:
            raise _CheckLater(self._look(value, most))
        if not self._is_shallow[id(value)]:
            raise too_deep(key, most)

    def _look(self, value: Any, most: int) -> Steps[None]:
        self._is_shallow[id(value)] = yield from is_shallow_in_steps(value, most)


def _cut_out(value: dict[str, Any], cuts: Cuts) -> Steps[dict[str, Any]]:
    """The mark of an input, as if the client had sent the object."""
    if is_value_mark(value):
        return value
    pieces = yield from dumps_in_steps(value)
    mark = cuts.add_value(pieces)
    for piece in pieces:
        cuts.count_value(mark, piece)
    return mark


def _encoded(text: str) -> list[bytes]:
    return [part.encode("utf-8", "surrogatepass") for part in _slices(text)]
