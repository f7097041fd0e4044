"""Reads the body of a request, within bounds, and decompresses it."""

import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Final

from ..wire.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from ..wire.large.cooperative import Steps, run_with_yields
from .body_memory import BodyShare
from .http_request import ClientDisconnected, HttpRequest

_MAX_MEMBERS: Final = 64  # of one compressed body
_INPUT_STEP: Final = 64 * 1024  # compressed bytes per step, between which the event loop may run other tasks
_STREAM_STEP: Final = 4 * 1024  # compressed bytes per piece of a streamed body, each of which may become 4 MB
_OUTPUT_STEP: Final = 256 * 1024  # decompressed bytes per step, at most
# zlib's `wbits` for each content-encoding: 31 reads gzip, 15 zlib's own format.
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_RAW_DEFLATE: Final = -15
_NOT_AS_DECLARED: Final = "body: cannot be decompressed as its content-encoding declares"


async def read_body(http_request: HttpRequest, max_body: int, max_decompressed: int, share: BodyShare) -> list[bytes]:
    """The whole body, decompressed, in pieces.

    Args:
        max_body: largest body in bytes as it is received.
        max_decompressed: largest body in bytes after decompression.
        share: counts the bytes, before and after decompression, as they arrive.

    Raises RequestTooLarge as soon as a bound is known to be passed, Overloaded when all bodies together take too much
    memory, UnsupportedEncoding, InvalidRequest and ClientDisconnected.
    """
    encoding = _checked_encoding(http_request, max_body)
    pieces = await _receive(http_request, max_body, share)
    if encoding == b"identity":
        return pieces
    steps = _decompress(pieces, _WINDOW_BITS[encoding], max_decompressed, share)
    return await run_with_yields(steps, perf_counter)


async def stream_body(http_request: HttpRequest, max_body: int, max_decompressed: int) -> AsyncGenerator[bytes, None]:
    """The body, decompressed, piece by piece while it arrives. The caller counts what it keeps.

    Arguments and errors are those of `read_body`.
    """
    encoding = _checked_encoding(http_request, max_body)
    async with aclosing(_arriving(http_request, max_body)) as pieces:
        if encoding == b"identity":
            async for piece in pieces:
                yield piece
            return
        decompressor: _Decompressor | None = None
        try:
            async for piece in pieces:
                if decompressor is None:
                    decompressor = _Decompressor(_window_bits(encoding, piece), max_decompressed, _uncounted)
                for start in range(0, len(piece), _STREAM_STEP):
                    await run_with_yields(decompressor.feed(piece[start : start + _STREAM_STEP]), perf_counter)
                    for plain in decompressor.taken():
                        yield plain
        except zlib.error:
            raise _invalid_encoding(_NOT_AS_DECLARED) from None
        if decompressor is None or not decompressor.is_complete:
            raise _invalid_encoding("body: the compressed data ends too early")


def _checked_encoding(http_request: HttpRequest, max_body: int) -> bytes:
    """The content-encoding, from a head that announces no body that is too large."""
    length = http_request.header(b"content-length")
    if length is not None and length.isdigit() and int(length) > max_body:
        raise _too_large(max_body)
    encoding = (http_request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding != b"identity" and encoding not in _WINDOW_BITS:
        message = f"content-encoding: {encoding.decode('latin-1')!r:.60} is not supported; use gzip"
        raise UnsupportedEncoding(message, error_code="request_body_encoding_unsupported")
    return encoding


def _window_bits(encoding: bytes, begin: bytes) -> int:
    """zlib's `wbits` for a body that begins with these bytes: `deflate` may lack the zlib format (RFC 1950, 2.2)."""
    has_header = len(begin) > 1 and begin[0] & 0x0F == 8 and int.from_bytes(begin[:2], "big") % 31 == 0
    return _RAW_DEFLATE if encoding == b"deflate" and not has_header else _WINDOW_BITS[encoding]


async def _receive(http_request: HttpRequest, max_body: int, share: BodyShare) -> list[bytes]:
    pieces = []
    size = 0
    more = True
    while more:
        message = await http_request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_body:
            raise _too_large(max_body)
        share.take(len(piece))
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces


async def _arriving(http_request: HttpRequest, max_body: int) -> AsyncGenerator[bytes, None]:
    """What `_receive` returns, piece by piece. A request that is read whole does not pay for a generator."""
    size = 0
    more = True
    while more:
        message = await http_request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_body:
            raise _too_large(max_body)
        more = message.get("more_body", False)
        yield piece


def _uncounted(size: int) -> None:
    pass


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"body: larger than {limit} bytes")


def _invalid_encoding(message: str) -> InvalidRequest:
    return InvalidRequest(message, error_code="request_body_encoding_invalid")


def _decompress(pieces: Sequence[bytes], bits: int, limit: int, share: BodyShare) -> Steps[list[bytes]]:
    """Decompress to at most `limit` bytes, so that a small body cannot fill the memory."""
    try:
        return (yield from _Decompressor(bits, limit, share.take).feed_all(pieces))
    except zlib.error:
        if bits != _WINDOW_BITS[b"deflate"]:
            raise _invalid_encoding(_NOT_AS_DECLARED) from None
    # RFC 9110 section 8.4.1.2: many clients send `deflate` without the zlib format around it.
    return (yield from _decompress(pieces, _RAW_DEFLATE, limit, share))


class _Decompressor:
    """Decompresses one body. It may have several members, one after the other (RFC 1952, section 2.2)."""

    def __init__(self, bits: int, limit: int, count: Callable[[int], object]) -> None:
        self._count = count
        self._bits = bits
        self._limit = limit
        self._inflater = zlib.decompressobj(bits)
        self._members = 1
        self._plain: list[bytes] = []
        self._size = 0

    def feed_all(self, pieces: Sequence[bytes]) -> Steps[list[bytes]]:
        """The decompressed pieces. Raises InvalidRequest, RequestTooLarge and zlib.error."""
        for piece in pieces:
            for start in range(0, len(piece), _INPUT_STEP):  # small steps, because zlib copies what it leaves
                yield from self.feed(piece[start : start + _INPUT_STEP])
        if not self._inflater.eof:
            raise _invalid_encoding("body: the compressed data ends too early")
        return self._plain

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data may end here."""
        return self._inflater.eof

    def taken(self) -> list[bytes]:
        """The decompressed pieces that were not taken before."""
        plain, self._plain = self._plain, []
        return plain

    def feed(self, data: bytes) -> Steps[None]:
        """Decompress. Raises as `feed_all`."""
        more = True
        while data or more:
            if self._inflater.eof:
                if not data:
                    return
                self._start_member()
            plain = self._inflater.decompress(data, _OUTPUT_STEP)
            self._plain.append(plain)
            self._size += len(plain)
            if self._size > self._limit:
                raise _too_large(self._limit)
            self._count(len(plain))
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            more = len(plain) == _OUTPUT_STEP  # zlib may hold back more output
            yield

    def _start_member(self) -> None:
        if self._members == _MAX_MEMBERS:
            raise _invalid_encoding(f"body: compressed in more than {_MAX_MEMBERS} members")
        self._members += 1
        self._inflater = zlib.decompressobj(self._bits)
