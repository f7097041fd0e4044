"""What of a request's body has not been written yet."""

from collections import deque
from typing import Final

from .request import Body

BURST: Final = 16
"""Slices that may be written in one turn of the event loop: a megabyte takes a few tenths of a millisecond."""
_SLICE: Final = 64 * 1024  # bytes


class Unsent:
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
