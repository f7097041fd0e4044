"""JSON as clients and engines really send it.

orjson refuses a lone surrogate escape, which a JavaScript client sends when it cuts a text inside an emoji, and an
engine when a token ends there. One such character must not cost a conversation: it is read as U+FFFD, as UTF-8
decoders do. In-process engines cut texts there too, so writing knows the same mercy.
"""

import json
import re
from contextlib import suppress
from typing import Any

import orjson

from .defaults import MAX_DEPTH

_HALF = re.compile(
    rb"\\u(?:"
    rb"([dD][89abAB][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?"  # a first half, and the second if it is there
    rb"|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = rb"\ufffd"
_ROUNDED = float(2**63)  # an integer that orjson makes a float of is as far from zero
_WALKED = frozenset({dict, list, float})


def loads(data: bytes) -> Any:
    """`data` as JSON. Raises orjson.JSONDecodeError (a ValueError) for anything but lone surrogates."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        whole = _HALF.sub(_mend, data)
        if whole == data:
            raise
        return orjson.loads(whole)


def loads_exactly(data: bytes) -> tuple[Any, int]:
    """As `loads`, but an integer beyond 64 bit stays what it is, where orjson makes a float of it.

    Beside the value, how many of its arrays and objects lie in one another.
    """
    value = loads(data)
    levels, rounded = depth_and_rounding(value)
    if rounded:
        with suppress(RecursionError, ValueError):  # more levels or digits than Python reads
            value = json.loads(_HALF.sub(_mend, data))
    return value, levels


def depth_and_rounding(value: Any) -> tuple[int, bool]:
    """How many arrays and objects of `value` lie in one another, and whether it may have had an integer beyond 64 bit.

    This looks at every value of a request, of which nearly all are strings: in one walk, a level at a time.
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
    """`value` as JSON, also with lone surrogates, integers beyond 64 bit and more levels than orjson writes.

    Raises TypeError for what is no JSON, and RecursionError for more levels than Python walks.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        value = _all_mended(value)
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def replace_lone_surrogates(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair that stands alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_shallow(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether no more than `most` arrays and objects of `value` lie in one another."""
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


def _all_mended(value: Any) -> Any:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, dict):
        return {_all_mended(key): _all_mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_all_mended(item) for item in value]
    return value


def _mend(match: re.Match[bytes]) -> bytes:
    """The match, with a replacement for each half of a pair in it that stands alone."""
    first, second = match.groups()
    if _is_escaped(match.string, match.start()):  # this is text, and then perhaps a half
        return match[0].removesuffix(second) + _REPLACEMENT if second else match[0]
    return match[0] if first and second else _REPLACEMENT


def _is_escaped(data: bytes, at: int) -> bool:
    """Whether the character at `at` has an odd number of backslashes before it."""
    look = 16  # so many as a rule, but there may be a million
    before = data[max(0, at - look) : at]
    while look < at and not before.rstrip(b"\\"):
        look *= 16
        before = data[max(0, at - look) : at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
