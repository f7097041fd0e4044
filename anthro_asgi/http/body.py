"""Reads the body of a request, within bounds, and decompresses it."""

import zlib
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from ..wire.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from ..wire.large.cooperative import Steps, run_with_yields
from .body_memory import BodyShare
from .http_request import ClientDisconnected, HttpRequest

_MAX_MEMBERS: Final = 64  # of one compressed body
_INPUT_STEP: Final = 64 * 1024  # compressed bytes per step, between which the event loop may run other tasks
_OUTPUT_STEP: Final = 256 * 1024  # decompressed bytes per step, at most
# zlib's `wbits` for each content-encoding: 31 reads gzip, 15 zlib's own format.
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_RAW_DEFLATE: Final = -15


async def read_body(http_request: HttpRequest, max_body: int, max_decompressed: int, share: BodyShare) -> list[bytes]:
    """The whole body, decompressed, in pieces.

    Args:
        max_body: largest body in bytes as it is received.
        max_decompressed: largest body in bytes after decompression.
        share: counts the bytes, before and after decompression, as they arrive.

    Raises RequestTooLarge as soon as a bound is known to be passed, Overloaded when all bodies together take too much
    memory, UnsupportedEncoding, InvalidRequest and ClientDisconnected.
    """
    length = http_request.header(b"content-length")
    if length is not None and length.isdigit() and int(length) > max_body:
        raise _too_large(max_body)
    encoding = (http_request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding != b"identity" and encoding not in _WINDOW_BITS:
        message = f"content-encoding: {encoding.decode('latin-1')!r:.60} is not supported; use gzip"
        raise UnsupportedEncoding(message, error_code="request_body_encoding_unsupported")
    pieces = await _receive(http_request, max_body, share)
    if encoding == b"identity":
        return pieces
    steps = _decompress(pieces, _WINDOW_BITS[encoding], max_decompressed, share)
    return await run_with_yields(steps, perf_counter)


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


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"body: larger than {limit} bytes")


def _invalid_encoding(message: str) -> InvalidRequest:
    return InvalidRequest(message, error_code="request_body_encoding_invalid")


def _decompress(pieces: Sequence[bytes], bits: int, limit: int, share: BodyShare) -> Steps[list[bytes]]:
    """Decompress to at most `limit` bytes, so that a small body cannot fill the memory."""
    try:
        return (yield from _Decompressor(bits, limit, share).feed_all(pieces))
    except zlib.error:
        if bits != _WINDOW_BITS[b"deflate"]:
            raise _invalid_encoding("body: cannot be decompressed as its content-encoding declares") from None
    # RFC 9110 section 8.4.1.2: many clients send `deflate` without the zlib format around it.
    return (yield from _decompress(pieces, _RAW_DEFLATE, limit, share))


class _Decompressor:
    """Decompresses one body. It may have several members, one after the other (RFC 1952, section 2.2)."""

    def __init__(self, bits: int, limit: int, share: BodyShare) -> None:
        self._share = share
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
                yield from self._feed(piece[start : start + _INPUT_STEP])
        if not self._inflater.eof:
            raise _invalid_encoding("body: the compressed data ends too early")
        return self._plain

    def _feed(self, data: bytes) -> Steps[None]:
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
            self._share.take(len(plain))
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            more = len(plain) == _OUTPUT_STEP  # zlib may hold back more output
            yield

    def _start_member(self) -> None:
        if self._members == _MAX_MEMBERS:
            raise _invalid_encoding(f"body: compressed in more than {_MAX_MEMBERS} members")
        self._members += 1
        self._inflater = zlib.decompressobj(self._bits)
