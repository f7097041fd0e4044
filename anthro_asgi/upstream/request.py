"""One HTTP/1.1 request: its head as bytes, and the part of its body that is not written yet."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import h11

HeaderText = bytes | str  # a str must be ASCII
RequestHeaders = Sequence[tuple[HeaderText, HeaderText]]
Headers = tuple[tuple[HeaderText, HeaderText], ...]
Body = bytes | list[bytes]  # in one piece, or several

# These headers frame the message or belong to the connection, so only the pool writes them.
_RESERVED = frozenset(
    b"accept-encoding connection content-length expect host te trailer transfer-encoding upgrade user-agent".split()
)
_WITH_CONTENT = frozenset(("PATCH", "POST", "PUT"))  # have a content-length even when it is 0 (RFC 9110 section 8.6)
_UNSUPPORTED = frozenset(("CONNECT", "HEAD"))  # their responses are framed in other ways

SLICES_PER_YIELD: Final = 16
"""Slices of a body that may be written before other callbacks of the event loop run: 1 MiB takes about 0.3 ms."""
_SLICE: Final = 64 * 1024  # bytes


def request_head(method: str, target: str, pool_headers: RequestHeaders, headers: RequestHeaders, length: int) -> bytes:
    """The head of a request whose body has `length` bytes: `pool_headers`, then the caller's `headers`.

    Raises ValueError for a CR or LF anywhere, for a malformed name, method or target, and for a method or a header
    that the caller must not use. The text never contains a header value, because that may be an API key.
    """
    head = _head(method, target, tuple(pool_headers), tuple(headers))
    if length or method in _WITH_CONTENT:
        return b"%bcontent-length: %d\r\n\r\n" % (head, length)
    return head + b"\r\n"


@lru_cache(maxsize=32)
def _head(method: str, target: str, pool_headers: Headers, headers: Headers) -> bytes:
    """The head without its last line. h11 takes 30 µs to write it, and it is the same for nearly every request."""
    if method in _UNSUPPORTED:
        raise ValueError(f"method {method} is not supported")
    try:
        fields = [(_ascii(name), _ascii(value)) for name, value in [*pool_headers, *headers]]
        for name, _ in fields[len(pool_headers) :]:
            if name.lower() in _RESERVED:
                raise ValueError(f"header {name.decode()} is reserved: the connection sets it")
        written = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=fields)) or b""
        return written.removesuffix(b"\r\n")
    except (h11.LocalProtocolError, UnicodeError):
        # without the cause, which quotes header values
        raise ValueError("the method, the target or a header cannot be written in HTTP") from None


def _ascii(text: HeaderText) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text


class UnsentBody:
    """The slices of a body, in order. A slice that was taken is not kept. The length is in bytes."""

    __slots__ = ("_length", "_pieces")

    def __init__(self, body: Body = b"") -> None:
        pieces = [body] if isinstance(body, bytes) else body
        self._pieces = [memoryview(piece) for piece in reversed(pieces) if piece]  # in reverse order
        self._length = sum(map(len, self._pieces))

    def __len__(self) -> int:
        return self._length

    def take(self) -> memoryview | bytes:
        """Remove and return the next slice, at most 64 KiB; b"" when nothing is left."""
        if not self._pieces:
            return b""
        piece = self._pieces.pop()
        if len(piece) > _SLICE:
            self._pieces.append(piece[_SLICE:])
            piece = piece[:_SLICE]
        self._length -= len(piece)
        return piece

    def clear(self) -> None:
        """Drop what is left."""
        self._pieces.clear()
        self._length = 0
