"""Request bodies that no client should send: invalid JSON of many kinds, and bombs."""

import gzip
import json
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from tests.checks.faults.client import PROMPT, body_of, request_of
from tests.checks.faults.session import ClientSession

MAX_BODY: Final = 256 * 1024  # bytes, also decompressed; a limit of the service
MAX_MESSAGES: Final = 50
MAX_TOOLS: Final = 10
MAX_STOPS: Final = 8
Make = Callable[[ClientSession], bytes]


def _with(**fields: Any) -> Make:
    """A body with these fields."""
    return lambda session: session.body(**fields)


def _put(raw: str, **fields: Any) -> Make:
    """A body in which `raw` replaces the field value "@"."""
    return lambda session: session.body(**fields).replace(b'"@"', raw.encode())


def _turned(turn: Callable[[bytes], bytes]) -> Make:
    """A body changed by `turn`."""
    return lambda session: turn(session.body())


def _bytes(data: bytes) -> Make:
    return lambda _: data


def _text(text: object) -> Make:
    return _with(messages=[{"role": "user", "content": text}])


def _used(raw: str) -> Make:
    """A body with `raw` as the input of a tool call in the history."""
    call = {"type": "tool_use", "id": "t", "name": "look", "input": "@"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": PROMPT}
    history = [("user", PROMPT), ("assistant", [call]), ("user", [result])]
    return _put(raw, messages=[{"role": role, "content": content} for role, content in history])


_DEEP: Final = 5000
_DEEP_JSON: Final = '{"a":' * 120 + "1" + "}" * 120

REFUSED: Final[dict[str, Make]] = {
    "empty": _bytes(b""),
    "white space": _bytes(b" \n"),
    "cut short": _turned(lambda body: body[:-5]),
    "extra characters after it": _turned(lambda body: body + b"}"),
    "two values": _turned(lambda body: body * 2),
    "an array": _turned(lambda body: b"[" + body + b"]"),
    "a string": _bytes(json.dumps(PROMPT).encode()),
    "null": _bytes(b"null"),
    "single quotes": _turned(lambda body: body.replace(b'"', b"'")),
    "comments": _turned(lambda body: b"/* */" + body),
    "trailing comma": _turned(lambda body: body[:-1] + b",}"),
    "control characters": _turned(lambda body: body.replace(PROMPT.encode(), b"a\x01\nb")),
    "a NUL after it": _turned(lambda body: body + b"\x00"),
    "NaN": _put("NaN", temperature="@"),
    "Infinity": _put("-Infinity", temperature="@"),
    "a number too large for its field": _put("1e999", temperature="@"),
    "an integer of 5000 digits as max_tokens": _put("9" * 5000, max_tokens="@"),
    "a half number": _put("1.", temperature="@"),
    "invalid UTF-8": _turned(lambda body: body.replace(PROMPT.encode(), b"\xff\xfe")),
    "Latin-1": _turned(lambda body: body.replace(PROMPT.encode(), "é".encode("latin-1"))),
    "a byte order mark": _turned(lambda body: b"\xef\xbb\xbf" + body),
    "UTF-16": _turned(lambda body: body.decode().encode("utf-16")),
    "UTF-32": _turned(lambda body: body.decode().encode("utf-32")),
    "surrogates in UTF-8": _turned(lambda body: body.replace(PROMPT.encode(), b"\xed\xa0\x80")),
    "depth bomb": _bytes(b"[" * 100_000),
    "depth bomb, closed": _bytes(b"[" * _DEEP + b"]" * _DEEP),
    "depth bomb of objects": _bytes(b'{"a":' * 40_000),
    "depth bomb in an unknown field": _put("[" * _DEEP + "]" * _DEEP, unknown="@"),
    "schema too deep": _put(_DEEP_JSON, tools=[{"name": "look", "input_schema": "@"}]),
    "tool input too deep": _used(_DEEP_JSON),
    "too many messages": _with(messages=[{"role": "user", "content": PROMPT}] * (MAX_MESSAGES + 1)),
    "too many tools": _with(tools=[{"name": f"t{n}", "input_schema": {}} for n in range(MAX_TOOLS + 1)]),
    "too many stop sequences": _with(stop_sequences=[f"s{number}" for number in range(MAX_STOPS + 1)]),
    "a form": _bytes(b"model=a&max_tokens=1"),
}
TAKEN: Final[dict[str, Make]] = {
    "duplicate keys": _turned(lambda body: b'{"max_tokens": "no", "messages": 7,' + body[1:]),
    "lone surrogates": _put(r'"\ud83d and \ude00"', messages=[{"role": "user", "content": "@"}]),
    "integers beyond 64 bit in tool input": _used('{"a": 12345678901234567890123456789}'),
    "a float beyond 64 bit in tool input": _used('{"a": 1e300}'),
    "100 KB of white space": _turned(lambda body: b" " * 100_000 + body),
    "10 000 unknown keys": _turned(lambda body: body[:-1] + b"".join(b',"k%d":1' % n for n in range(10_000)) + b"}"),
    "escapes only": _put('"' + r"\u0041" * 10_000 + '"', messages=[{"role": "user", "content": "@"}]),
}


# --- encodings: whole requests ---


def _encoded(name: str, turn: Callable[[bytes], bytes]) -> Make:
    return lambda session: request_of(turn(session.body()), f"content-encoding: {name}")


def _raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


@cache
def _bomb() -> bytes:
    return gzip.compress(body_of("healthy/after headers", False) + b" " * (32 * 1024 * 1024))


BOMBS: Final[dict[str, Make]] = {
    "gzip bomb": _encoded("gzip", lambda _: _bomb()),
    "deflate bomb": _encoded("deflate", lambda body: zlib.compress(body + b" " * (8 * MAX_BODY))),
    "gzip bomb in two members": _encoded("gzip", lambda body: gzip.compress(body) + _bomb()),
}
NOT_ENCODED: Final[dict[str, Make]] = {
    "gzip of nothing": _encoded("gzip", lambda _: gzip.compress(b"")),
    "gzip cut short": _encoded("gzip", lambda body: gzip.compress(body)[:-9]),
    "not gzip": _encoded("gzip", lambda body: body),
    "gzip in 100 members": _encoded("gzip", lambda body: gzip.compress(body) + gzip.compress(b" ") * 100),
    "gzip with a wrong checksum": _encoded("gzip", lambda body: gzip.compress(body)[:-8] + bytes(8)),
    "gzip and garbage": _encoded("gzip", lambda body: gzip.compress(body) + b"garbage"),
}
UNKNOWN_CODING: Final[dict[str, Make]] = {
    "br": _encoded("br", lambda body: body),
    "gzip twice": _encoded("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
}
DECODED: Final[dict[str, Make]] = {
    "gzip": _encoded("gzip", gzip.compress),
    "deflate": _encoded("deflate", zlib.compress),
    "deflate without its wrapper": _encoded("deflate", _raw_deflate),
}
