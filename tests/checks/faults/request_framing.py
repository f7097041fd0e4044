"""Requests with wrong or unusual framing."""

from collections.abc import Callable
from typing import Final

from tests.checks.faults.client import head_of, request_of
from tests.checks.faults.request_bodies import MAX_BODY
from tests.checks.faults.session import ClientSession
from tests.checks.faults.stream_faults import framed

Make = Callable[[ClientSession], bytes]
_LAST: Final = b"0\r\n\r\n"
_CHUNKED: Final = "transfer-encoding: chunked"


def _bytes(data: bytes) -> Make:
    return lambda _: data


def _lines(*lines: str) -> Make:
    """A correct request with these header lines added."""
    return lambda session: request_of(session.body(), *lines)


def _unframed(*lines: str) -> Make:
    """A request without a content-length, unless `lines` have one."""
    return lambda session: head_of(None, *lines) + session.body()


def _turned(old: bytes, new: bytes) -> Make:
    return lambda session: session.request().replace(old, new, 1)


def _chunks(*lines: str, pieces: int = 3) -> Make:
    def make(session: ClientSession) -> bytes:
        body = session.body()
        size = len(body) // pieces + 1
        chunks = (framed(body[at : at + size]) for at in range(0, len(body), size))
        return head_of(None, _CHUNKED, *lines) + b"".join(chunks) + _LAST

    return make


def bad_chunk(session: ClientSession) -> bytes:
    return head_of(None, _CHUNKED) + framed(session.body()[:20]) + b"zz\r\nrest\r\n"


REFUSED: Final[dict[str, Make]] = {
    "bytes that are not HTTP": _bytes(bytes(range(256))),
    "TLS on a plain port": _bytes(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(155)),
    "HTTP/2": _bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "HTTP/0.9": _bytes(b"GET /healthz\r\n\r\n"),
    "no host": _turned(b"host: service\r\n", b""),
    "no colon": _lines("gibberish"),
    "a NUL in a header": _lines("x-nul: a\x00b"),
    "a space before the colon": _lines("x-space : a"),
    "content-length: negative": _unframed("content-length: -1"),
    "content-length: words": _unframed("content-length: nine"),
    "content-length: two": _unframed("content-length: 9", "content-length: 10"),
    "content-length: and chunks": _lines(_CHUNKED),
    "transfer-encoding: unknown": _unframed("transfer-encoding: rot13"),
}
TOO_LARGE: Final[dict[str, Make]] = {
    "content-length: over the limit": lambda _: head_of(MAX_BODY + 1),
    "chunks over the limit": lambda _: head_of(None, _CHUNKED) + framed(b" " * (MAX_BODY + 1)),
    "chunks over the limit, without an end": lambda _: head_of(None, _CHUNKED) + framed(b" " * 60_000) * 9,
}
HEADS_TOO_LARGE: Final[dict[str, Make]] = {
    "empty lines without an end": _bytes(b"\r\n" * 50_000),
    "too many header fields": _lines(*["x-many: a"] * 300),
    "a target that is too long": _turned(b"/v1/messages", b"/" + b"a" * 9000),
    "a header of 100 KB": _lines("x-large: " + "x" * 100_000),
    "5 000 headers": _lines(*(f"x-many-{number}: x" for number in range(5_000))),
    "a path of 100 KB": lambda session: head_of(0, target="/" + "x" * 100_000),
    "a head without an end": lambda _: head_of(0)[:-2] + b"x-more: x\r\n" * 10_000,
}
TAKEN: Final[dict[str, Make]] = {
    "chunks": _chunks(),
    "chunks of a byte": _chunks(pieces=10_000),
    "an upgrade to HTTP/2": _lines("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAAA"),
    "an upgrade to a WebSocket": _lines("connection: upgrade", "upgrade: websocket"),
    "a path with a query": _turned(b"/v1/messages", b"/v1/messages?beta=true"),
}
