"""Validators of content blocks (contract section 3, "Blocks in messages").

Content is strict: a block that cannot be sent to an engine is refused by its type, never dropped silently. A valid
block stays the parsed dict, and an engine converts it. Unknown keys (`cache_control`, `citations`, …) are ignored.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Final

from .errors import quoted
from .field_checks import FieldError, check_depth, one_of, optional, required, too_deep
from .history_folding import TOOL_CHANGES
from .json_codec import loads_exactly
from .request_policy import DEFAULT_RULES, PdfSupport, Rules

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
VIDEO_TYPES = frozenset({"video/mp4"})
PDF_TYPES: Final = frozenset({"application/pdf"})
NO_PDFS: Final[dict[PdfSupport, str]] = {
    "refuse": "this service does not support PDFs, only text and content sources",
    "not_installed": "this service does not support PDFs until its extra pdf is installed: "
    "pip install 'anthro-asgi[pdf]'",
    "read": "this service does not support PDFs of this source; send them as base64",
}

_NO_FILES: Final = "'file' is not supported: this service keeps no files; it was started without --batch-store"
_IMAGE_URL: Final = re.compile(r"(?:https?://|data:)\S+", re.IGNORECASE)

_BLOCKS_PER_STEP: Final = 512  # more than arrays can be nested, because a check that was paused enters them again

Check = Callable[[dict[str, Any]], None]
RoleChecks = dict[str, dict[str, Check]]
"""Role of a message → type of a block → its check."""
Base64Decoder = Callable[[str], object]
"""Raises ValueError for invalid base64. Its result is only tested for being empty."""

InputReader = Callable[[Any, int], Any]
"""A value in the place of a tool's input, and the levels that are allowed → the input. Raises FieldError."""
DepthCheck = Callable[[dict[str, Any], str, int], None]
"""A container, the key of a value in it, and the levels that are allowed. Raises FieldError."""

decode_base64: Final[Base64Decoder] = partial(a2b_base64, strict_mode=True)


class CheckPaused(Exception):
    """Enough blocks were checked in this step. The check begins again in the next one, and goes on where it was."""


class Progress:
    """How far the arrays of blocks of one message have been checked, in steps."""

    __slots__ = ("_checked", "_left")

    def __init__(self) -> None:
        self._checked: dict[int, int] = {}  # by id() of an array that lives as long as the request
        self._left = _BLOCKS_PER_STEP

    def start(self, content: list[Any]) -> int:
        """The index at which the check of `content` goes on."""
        return self._checked.get(id(content), 0)

    def end(self, content: list[Any]) -> None:
        """Called when all of `content` has been checked: what follows it may be paused, and it is entered again."""
        self._checked[id(content)] = len(content)

    def note(self, content: list[Any], index: int) -> None:
        """Called before the block at `index` is checked. Raises CheckPaused at the end of a step."""
        self._checked[id(content)] = index
        self._left -= 1
        if not self._left:
            self._left = _BLOCKS_PER_STEP
            raise CheckPaused


def check_content(content: Any, checks: dict[str, Check], where: str, progress: Progress | None = None) -> None:
    """Checks a string, or an array of blocks whose types are in `checks`. `where` is for the error text.

    In the path of an error, the type of the block follows its index, as Anthropic's API writes it (contract 7.3).
    With `progress`, it raises CheckPaused after some blocks.
    """
    if type(content) is str:
        return
    if type(content) is not list:
        raise FieldError("content", "required" if content is None else "must be a string or an array of blocks")
    index = 0
    try:
        if progress is None:
            for index, block in enumerate(content):  # noqa: B007 - used in the except clauses
                checks[block["type"]](block)
            return
        for index in range(progress.start(content), len(content)):
            progress.note(content, index)
            block = content[index]
            checks[block["type"]](block)
    except FieldError as error:
        raise error.within(f"content.{index}.{block['type']}") from None
    except (LookupError, TypeError):
        block = content[index]
        if type(block) is not dict:
            raise FieldError(f"content.{index}", "must be an object") from None
        kind = block.get("type")
        if type(kind) is str and kind in checks:
            raise
        raise FieldError(f"content.{index}.type", _unknown(kind, checks, where)) from None


def _unknown(kind: Any, known: Iterable[str], where: str) -> str:
    if kind is None:
        return "required"
    return f"{quoted(kind, 80)} is not supported in {where}; supported: {', '.join(known)}"


# Checks of the block types


def check_text(block: dict[str, Any]) -> None:
    if type(block.get("text")) is not str:
        required(block, "text", str)


def check_base64(media_types: frozenset[str], decode: Base64Decoder, block: dict[str, Any]) -> None:
    source = required(block, "source", dict)
    kind = required(source, "type", str)
    if kind == "url":
        raise FieldError("type", "url sources are not fetched by this service; send the bytes as base64")
    if kind != "base64":
        raise FieldError("type", f"{quoted(kind, 80)} is not supported; supported: base64")
    one_of(source, "media_type", media_types)
    data = required(source, "data", str)
    try:
        if not decode(data):
            raise FieldError("data", "must not be empty")
    except ValueError:
        raise FieldError("data", "must be base64") from None


def check_image(decode: Base64Decoder, urls: bool, files: bool, block: dict[str, Any]) -> None:
    """An image. Its source may be a URL if the operator allows the engine to fetch images (`urls`).

    It may be an uploaded file if the service keeps `files`. The reason begins with words that make clients remove the
    image from the history and go on (contract 7.8).
    """
    source = required(block, "source", dict)
    try:
        if source.get("type") == "file":
            _check_file(source, files)
        elif not urls or source.get("type") != "url":
            check_base64(IMAGE_TYPES, decode, block)
        elif _IMAGE_URL.fullmatch(required(source, "url", str)) is None:
            raise FieldError("url", "must be an http, https or data URL")
    except FieldError as error:
        raise FieldError(f"source.{error.path}", f"could not process image: {error.reason}") from None


def check_video(decode: Base64Decoder, block: dict[str, Any]) -> None:
    required(block, "source", dict)
    try:
        check_base64(VIDEO_TYPES, decode, block)
    except FieldError as error:
        raise error.within("source") from None


def check_document(
    inside: dict[str, Check],
    decode: Base64Decoder,
    pdfs: PdfSupport,
    files: bool,
    progress: Progress | None,
    block: dict[str, Any],
) -> None:
    """`inside` are the checks of the blocks that the document may hold. `pdfs`: whether the service reads PDFs.

    `files`: whether it keeps uploaded files.
    """
    source = required(block, "source", dict)
    optional(block, "title", str)
    optional(block, "context", str)
    try:
        kind = required(source, "type", str)
        if kind == "text":
            required(source, "data", str)
        elif kind == "content":
            check_content(source.get("content"), inside, "a document", progress)
        elif kind == "base64" and pdfs == "read":
            _check_pdf(source, decode)
        elif kind == "file":
            _check_file(source, files)
        else:
            raise FieldError("type", f"{quoted(kind, 80)} is not supported: {NO_PDFS[pdfs]}")
    except FieldError as error:
        raise error.within("source") from None


def _check_file(source: dict[str, Any], files: bool) -> None:
    """The source of a block that refers to an uploaded file. Whether the file exists is checked later."""
    if not files:
        raise FieldError("type", _NO_FILES)
    if not required(source, "file_id", str):
        raise FieldError("file_id", "must not be empty")


def _check_pdf(source: dict[str, Any], decode: Base64Decoder) -> None:
    """The reasons contain words that make clients remove the PDF from the history and go on (contract 7.8)."""
    one_of(source, "media_type", PDF_TYPES)
    try:
        if not decode(required(source, "data", str)):
            raise FieldError("data", "PDF cannot be empty")
    except ValueError:
        raise FieldError("data", "the PDF specified was not valid: must be base64") from None


def check_search_result(progress: Progress | None, block: dict[str, Any]) -> None:
    optional(block, "title", str)
    optional(block, "source", str)
    if block.get("content") is not None:
        check_content(block["content"], _TEXT_ONLY, "a search result", progress)


def check_tool_use(read_input: InputReader, max_depth: int, block: dict[str, Any]) -> None:
    if not required(block, "id", str):
        raise FieldError("id", "must not be empty")
    if not required(block, "name", str):
        raise FieldError("name", "must not be empty")
    if type(block.get("input")) is not dict and "input" in block:
        block["input"] = read_input(block["input"], max_depth)
    required(block, "input", dict)


def read_input(value: Any, max_depth: int) -> Any:
    """The object in a string, perhaps encoded twice; {} for null and for white space. Any other value as it is.

    Clients keep such inputs in the history of models that produced them (contract 3.35).
    """
    if value is None or (type(value) is str and not value.strip()):
        return {}
    found = value
    for _ in range(2):
        if type(found) is not str:
            break
        try:
            found, levels = loads_exactly(found.encode("utf-8", "surrogatepass"))
        except ValueError:
            return value
        if levels > max_depth:
            raise too_deep("input", max_depth)
    return found if type(found) is dict else value


def check_tool_result(inside: dict[str, Check], progress: Progress | None, block: dict[str, Any]) -> None:
    """`inside` are the checks of the blocks that the result may hold."""
    required(block, "tool_use_id", str)
    optional(block, "is_error", bool)
    content = block.get("content")
    if content is not None and type(content) is not str:
        check_content(content, inside, "a tool result", progress)


def check_browser_state(progress: Progress | None, block: dict[str, Any]) -> None:
    for index, tab in _entries(required(block, "tabs", list), progress):
        _check_entry(tab, f"tabs.{index}", "tab_id")
    for index, change in _entries(optional(block, "state_changes", list) or [], progress):
        _check_entry(change, f"state_changes.{index}", "type")


def _entries(entries: list[Any], progress: Progress | None) -> Iterator[tuple[int, Any]]:
    """The entries that are still to be checked, with their indices. With `progress`, it raises CheckPaused."""
    if progress is None:
        yield from enumerate(entries)
        return
    for index in range(progress.start(entries), len(entries)):
        progress.note(entries, index)
        yield index, entries[index]
    progress.end(entries)


def _check_entry(entry: Any, path: str, key: str) -> None:
    """Checks that `entry` is an object with a string at `key`."""
    try:
        if type(entry) is not dict:
            raise FieldError("", "must be an object")
        required(entry, key, str)
    except FieldError as error:
        raise error.within(path) from None


def check_compaction(progress: Progress | None, block: dict[str, Any]) -> None:
    optional(block, "content", str)
    for index, change in _entries(optional(block, "tool_changes", list) or [], progress):
        try:
            kind = change.get("type") if type(change) is dict else None
            if type(kind) is not str or kind not in TOOL_CHANGES:  # a dict or an array cannot be looked up
                raise FieldError("type", f"must be one of {', '.join(sorted(TOOL_CHANGES))}")
            check_tool_change(change)
        except FieldError as error:
            raise error.within(f"tool_changes.{index}") from None


def check_connector_text(block: dict[str, Any]) -> None:
    if "text" not in block:
        required(block, "connector_text", str)
    elif "connector_text" not in block:
        required(block, "text", str)


def check_tool_change(block: dict[str, Any]) -> None:
    """A `tool_addition` or `tool_removal`. What it refers to is checked when the tools are known."""
    tool = required(block, "tool", dict)
    try:
        kind = one_of(tool, "type", _ADDED if block["type"] == "tool_addition" else _REMOVED)
        for key in _REFERENCE_KEYS.get(kind, ()):
            required(tool, key, str)
        if kind == "tool_definition":
            required(tool, "definition", dict)
    except FieldError as error:
        raise error.within("tool") from None


def check_tool_reference(block: dict[str, Any]) -> None:
    required(block, "tool_name", str)


def check_thinking(block: dict[str, Any]) -> None:
    required(block, "thinking", str)
    optional(block, "signature", str)


def check_server_result(block: dict[str, Any]) -> None:
    required(block, "tool_use_id", str)
    if type(block.get("content")) not in (dict, list):
        raise FieldError("content", "required" if block.get("content") is None else "must be an object or an array")


def check_mcp_result(block: dict[str, Any]) -> None:
    if type(block.get("content")) in (str, type(None)):
        required(block, "tool_use_id", str)
    else:
        check_server_result(block)


def _with_depth_check(check: Check, key: str, most: int, depth: DepthCheck) -> Check:
    """`check`, and a check of the depth at `key`. Used only if the request is deep somewhere."""

    def checked(block: dict[str, Any]) -> None:
        check(block)
        if key in block:
            depth(block, key, most)

    return checked


def accept_any_block(block: dict[str, Any]) -> None:
    """Accepts blocks that are not sent to an engine, whatever they hold."""


KNOWN_EVERYWHERE: Final = frozenset({"tool_use", "tool_result"})
"""Types of blocks that are checked for a relayed upstream too: calls and results must fit together."""


class _RelayChecks(dict[str, Check]):
    """Checks for a relayed upstream, which may know types of blocks that are unknown here.

    A type that is known only in another place has the check of that place. So code that reads a block of a known type
    can rely on its fields.
    """

    def __init__(self, here: dict[str, Check], elsewhere: dict[str, Check]) -> None:
        super().__init__(here)
        self._elsewhere = elsewhere

    def __missing__(self, kind: object) -> Check:
        if type(kind) is not str or not kind or kind in KNOWN_EVERYWHERE:
            raise KeyError(kind)
        return self._elsewhere.get(kind, accept_any_block)


def _or_any_source(check: Check, block: dict[str, Any]) -> None:
    """`check` for the sources that this service knows by their content. A relayed upstream reads all others itself."""
    source = required(block, "source", dict)
    try:
        kind = required(source, "type", str)
    except FieldError as error:
        raise error.within("source") from None
    if kind in ("text", "content"):
        check(block)


SERVER_RESULTS = (
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "mcp_tool_result",
    "advisor_tool_result",
)
_REFERENCE_KEYS: Final = {
    "tool_reference": ("name",),
    "mcp_tool_reference": ("server_name", "name"),
    "mcp_toolset_reference": ("server_name",),
}
_REMOVED: Final = frozenset(_REFERENCE_KEYS)
_ADDED: Final = _REMOVED | {"tool_definition"}
_TEXT_ONLY: dict[str, Check] = {"text": check_text}
SYSTEM_PROMPT_CHECKS: Final = _TEXT_ONLY
"""The checks of the blocks of the field `system`."""
_SYSTEM_MESSAGE: Final[dict[str, Check]] = {**_TEXT_ONLY, **dict.fromkeys(sorted(TOOL_CHANGES), check_tool_change)}
_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_RESULTS: dict[str, Check] = {**dict.fromkeys(SERVER_RESULTS, check_server_result), "mcp_tool_result": check_mcp_result}


def _assistant_checks(
    read: InputReader, depth: DepthCheck, progress: Progress | None, max_depth: int, deep: bool
) -> dict[str, Check]:
    call: Check = partial(check_tool_use, read, max_depth)
    results = _RESULTS
    if deep:
        call = _with_depth_check(call, "input", max_depth, depth)
        results = {kind: _with_depth_check(check, "content", max_depth, depth) for kind, check in results.items()}
    calls = dict.fromkeys(_CALLS, call)
    return {
        "text": check_text,
        "tool_use": calls["tool_use"],
        "thinking": check_thinking,
        "redacted_thinking": accept_any_block,
        **calls,
        "container_upload": accept_any_block,
        **results,
        "compaction": partial(check_compaction, progress),
        "connector_text": check_connector_text,
        "fallback": accept_any_block,
        "mcp_tool_listing": accept_any_block,
    }


def _checks_by_role(
    decode: Base64Decoder,
    read: InputReader,
    depth: DepthCheck,
    progress: Progress | None,
    urls: bool,
    max_depth: int,
    pdfs: PdfSupport,
    files: bool,
    deep: bool,
    relay: bool = False,
) -> RoleChecks:
    image: Check = partial(check_image, decode, urls, files)
    video: Check = partial(check_video, decode)
    if relay:
        image, video = partial(_or_any_source, image), partial(_or_any_source, video)
    document: Check = partial(check_document, {"text": check_text, "image": image}, decode, pdfs, files, progress)
    search_result: Check = partial(check_search_result, progress)
    if relay:
        document = partial(_or_any_source, document)
    inside: dict[str, Check] = {
        "document": document,
        "search_result": search_result,
        "tool_reference": check_tool_reference,
    }
    in_result: dict[str, Check] = {
        "text": check_text,
        "image": image,
        **inside,
        "browser_state": partial(check_browser_state, progress),
    }
    assistant = _assistant_checks(read, depth, progress, max_depth, deep)
    user: dict[str, Check] = {
        "text": check_text,
        "image": image,
        "video": video,
        "document": document,
        "search_result": search_result,
        "tool_result": partial(check_tool_result, in_result, progress),
        "container_upload": accept_any_block,
    }
    checks = {"user": user, "assistant": assistant, "system": _SYSTEM_MESSAGE}
    if not relay:
        return checks
    elsewhere = {**assistant, **in_result, **user}
    user["tool_result"] = partial(check_tool_result, _RelayChecks(in_result, elsewhere), progress)
    return {role: _RelayChecks(known, elsewhere) for role, known in checks.items()}


# A service has one set of rules, and needs four entries for it: for deep requests, for relayed ones, and for others.
_cached_checks = lru_cache(maxsize=8)(partial(_checks_by_role, decode_base64, read_input, check_depth, None))
DEFAULT_BLOCK_CHECKS: Final = _cached_checks(
    DEFAULT_RULES.pass_image_urls, DEFAULT_RULES.max_depth, DEFAULT_RULES.pdfs, DEFAULT_RULES.files, False
)


def block_checks(
    rules: Rules = DEFAULT_RULES,
    *,
    deep: bool,
    decode: Base64Decoder = decode_base64,
    read: InputReader = read_input,
    depth: DepthCheck = check_depth,
    progress: Progress | None = None,
    relay: bool = False,
) -> RoleChecks:
    """The checks of the blocks that a message of each role may hold.

    `deep`: the request holds more levels than the rules allow, so values of tools have to be measured. `decode` checks
    base64, `read` reads inputs that are strings, and `depth` checks the depth of a value. `progress` lets long arrays
    of blocks be checked in steps. `relay`: a relayed upstream will read the blocks.
    """
    if decode is decode_base64 and progress is None:
        return _cached_checks(rules.pass_image_urls, rules.max_depth, rules.pdfs, rules.files, deep, relay)
    return _checks_by_role(
        decode, read, depth, progress, rules.pass_image_urls, rules.max_depth, rules.pdfs, rules.files, deep, relay
    )
