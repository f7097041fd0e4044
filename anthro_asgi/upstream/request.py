"""One HTTP/1.1 request: its head as bytes, and what of its body has not been written yet."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import h11

HeaderText = bytes | str  # a str must be ASCII
RequestHeaders = Sequence[tuple[HeaderText, HeaderText]]
Body = bytes | list[bytes]  # in one piece, or several

# These frame the message or belong to the connection: one hand writes them, or two hands contradict each other.
_OURS = frozenset(
    b"accept-encoding connection content-length expect host te trailer transfer-encoding upgrade user-agent".split()
)
_WITH_CONTENT = frozenset(("PATCH", "POST", "PUT"))  # a length is said even when it is 0 (RFC 9110 section 8.6)
_UNSPOKEN = frozenset(("CONNECT", "HEAD"))  # their answers are framed in other ways

BURST: Final = 16
"""Slices that may be written in one turn of the event loop: a megabyte takes a few tenths of a millisecond."""
_SLICE: Final = 64 * 1024  # bytes


def request_head(method: str, target: str, ours: RequestHeaders, theirs: RequestHeaders, length: int) -> bytes:
    """The head of a request whose body has `length` bytes: `ours` is the pool's fields, `theirs` the caller's.

    Raises ValueError for what must not be written: a CR or LF anywhere, a malformed name, method or target, and a
    field or method that is not the caller's to use. It never quotes a value: that may be a key.
    """
    if method in _UNSPOKEN:
        raise ValueError(f"method {method} is not spoken here")
    try:
        fields = [(_ascii(name), _ascii(value)) for name, value in [*ours, *theirs]]
        for name, _ in fields[len(ours) :]:
            if name.lower() in _OURS:
                raise ValueError(f"header {name.decode()}: the connection writes it itself")
        if length or method in _WITH_CONTENT:
            fields.append((b"content-length", b"%d" % length))
        return h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=fields)) or b""
    except (h11.LocalProtocolError, UnicodeError):
        raise ValueError("the method, the target or a header cannot be written in HTTP") from None  # it quotes values


def _ascii(text: HeaderText) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text


class UnsentBody:
    """Hands a body out in slices, in order, and keeps nothing of what it has handed out. Its length is in bytes."""

    __slots__ = ("_length", "_pieces")

    def __init__(self, body: Body = b"") -> None:
        pieces = [body] if isinstance(body, bytes) else body
        self._pieces = deque(memoryview(piece) for piece in pieces if piece)
        self._length = sum(map(len, self._pieces))

    def __len__(self) -> int:
        return self._length

    def take(self) -> memoryview | bytes:
        """The next slice, of 64 KiB at the most; b"" when there is none."""
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if len(piece) > _SLICE:
            self._pieces.appendleft(piece[_SLICE:])
            piece = piece[:_SLICE]
        self._length -= len(piece)
        return piece

    def clear(self) -> None:
        """The rest will not be written."""
        self._pieces.clear()
        self._length = 0
