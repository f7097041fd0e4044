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

# orjson reads 1024 levels and writes 254, and what walks a value calls itself for each. Nobody's data comes near.
MAX_DEPTH = 100
_ESCAPE = re.compile(
    rb"\\(?:[uU][dD][89abAB][0-9a-fA-F]{2}\\[uU][dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character, kept
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half a pair
    rb"|.)",  # every other escape is stepped over whole, so that an escaped backslash hides nothing
    re.DOTALL,
)
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # the least that can go beyond 64 bit


def loads(data: bytes) -> Any:
    """`data` as JSON. Raises orjson.JSONDecodeError (a ValueError) for anything but lone surrogates."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        mended = _ESCAPE.sub(_mend, data)
        if mended == data:
            raise
        return orjson.loads(mended)


def loads_exactly(data: bytes) -> Any:
    """As `loads`, but an integer beyond 64 bit stays what it is, where orjson makes a float of it."""
    value = loads(data)
    if _LONG_NUMBER in data.translate(_DIGITS_AS_ZERO):
        with suppress(RecursionError, ValueError):  # more levels or digits than Python reads
            return json.loads(_ESCAPE.sub(_mend, data))
    return value


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


def mended(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair that stands alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_shallow(value: Any) -> bool:
    """Whether no more than MAX_DEPTH arrays and objects of `value` lie in one another."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return True
    return False


def _all_mended(value: Any) -> Any:
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {_all_mended(key): _all_mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_all_mended(item) for item in value]
    return value


def _mend(match: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if match[1] else match[0]
