"""JSON reading and writing that tolerates what clients and engines really send.

orjson rejects a lone surrogate escape. A JavaScript client sends one when it cuts a text inside an emoji, an engine
when a token ends there. One such character must not fail a whole conversation, so it is read as U+FFFD, as UTF-8
decoders do. In-process engines cut texts in the same way, so writing replaces lone surrogates, too.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from .defaults import MAX_DEPTH

_HALF = re.compile(
    rb"\\u(?:"
    rb"([dD][89abAB][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?"  # a first half, with the second half if it follows
    rb"|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = rb"\ufffd"
_NO_MEMORY = ("Not enough memory", "memory allocation failed")  # how messages of orjson 3.11 and 3.10 then begin
_ROUNDED = float(2**63)  # orjson turns integers beyond 64 bit into floats at least this large
_WALKED = frozenset({dict, list, float})
_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_SHORT = 4096  # bytes of a document in which this is searched


_CHECKED = 1024  # bytes of a document for which memory is checked
_ARENA = 2 * 1024 * 1024  # bytes that Python may map for the smallest object
_OBJECT_MEMORY = 240  # bytes of the largest value, an object with one member
_WIDEST = 4  # bytes of a character


def _memory_limit() -> Callable[[], bool]:
    """Whether the address space of the process has a limit (RLIMIT_AS), as a function. Never on Windows."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:
        return lambda: False
    return lambda: getrlimit(RLIMIT_AS)[0] != RLIM_INFINITY


_has_memory_limit = _memory_limit()


def check_memory(size: int) -> None:
    """Raise MemoryError if the limit on the address space (RLIMIT_AS) leaves no `size` bytes. Without a limit, nothing.

    orjson does not check all its allocations: it would end the process.
    """
    if not _has_memory_limit():
        return
    from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap  # not on Windows, where there is no such limit

    try:
        mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError(f"{size} bytes of memory are not available") from None


def count_values(data: bytes) -> int:
    """The number of JSON values in `data`, at most: punctuation in strings counts, too."""
    return len(data) - len(data.translate(None, b"[{,"))


def loads(data: bytes) -> Any:
    """The value of `data`, with lone surrogates replaced. Raises orjson.JSONDecodeError (a ValueError), MemoryError."""
    if len(data) > _CHECKED and _has_memory_limit():
        check_memory(_ARENA + _WIDEST * len(data) + _OBJECT_MEMORY * count_values(data))
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        if exc.msg.startswith(_NO_MEMORY):  # an error of the process, not of the document
            raise MemoryError(exc.msg) from None
        whole = _HALF.sub(_replace_halves, data)
        if whole == data:
            raise
        return loads(whole)


def loads_exactly(data: bytes) -> tuple[Any, int]:
    """The value of `data` as `loads` reads it, but with exact integers beyond 64 bit; and its depth.

    The depth is the number of nested arrays and objects. Raises as `loads`.
    """
    value = loads(data)
    levels, rounded = depth_and_rounding(value)
    if rounded:
        with suppress(RecursionError, ValueError):  # more levels or digits than Python can read
            value = json.loads(_HALF.sub(_replace_halves, data))
    return value, levels


def loads_with_bound(data: bytes) -> tuple[Any, int]:
    """As `loads_exactly`, but the depth may be given too high: a short document is not walked for it."""
    if len(data) <= _SHORT and _LONG_INTEGER.search(data) is None:
        return loads(data), data.count(b"{") + data.count(b"[")
    return loads_exactly(data)


def depth_and_rounding(value: Any) -> tuple[int, bool]:
    """The depth of `value`, and whether it may hold an integer beyond 64 bit that was rounded to a float.

    Looks at every value of a request in one walk, level by level. Nearly all values are strings, which are skipped.
    """
    level = [value] if type(value) in _WALKED else []
    levels, rounded = 0, False
    while level:
        numbers = [inner for inner in level if type(inner) is float]
        if numbers:
            rounded = rounded or any(abs(number) >= _ROUNDED for number in numbers)
            level = [inner for inner in level if type(inner) is not float]
        levels += bool(level)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _WALKED
        ]
    return levels, rounded


def dumps(value: Any) -> bytes:
    """`value` as JSON. Lone surrogates are replaced; integers beyond 64 bit and deep nesting are allowed.

    Raises TypeError for a value that JSON cannot hold, RecursionError for nesting beyond Python's recursion limit.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        value = _without_lone_surrogates(value)
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def replace_lone_surrogates(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def replace_lone_halves(data: bytes) -> bytes:
    """JSON text with each escape of a lone surrogate replaced by that of U+FFFD. It must not begin in an escape."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    return _HALF.sub(_replace_halves, data)


def is_shallow(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether `value` has at most `most` levels of nested arrays and objects."""
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    for _ in range(most + 1):
        if not level:
            return True
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return False


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    return value


def _replace_halves(match: re.Match[bytes]) -> bytes:
    """The matched escapes, with each lone surrogate replaced."""
    first, second = match.groups()
    if _is_escaped(match.string, match.start()):  # the backslash is escaped: plain text, perhaps followed by a half
        return match[0].removesuffix(second) + _REPLACEMENT if second else match[0]
    return match[0] if first and second else _REPLACEMENT


def _is_escaped(data: bytes, at: int) -> bool:
    """Whether an odd number of backslashes precedes position `at`."""
    look = 16  # usually enough, but a client can send a million backslashes
    before = data[max(0, at - look) : at]
    while look < at and not before.rstrip(b"\\"):
        look *= 16
        before = data[max(0, at - look) : at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
