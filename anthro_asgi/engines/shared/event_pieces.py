"""Divides a large read of an event stream into pieces that are read one by one. Pure. See `paced_reading`."""

from typing import Final

PIECE: Final = 4096
"""Bytes that are read at once, if they are not only text."""
LARGE: Final = 4096
"""Bytes of an event, or of held arguments, from which on it is read in a thread."""
_END: Final = b"\n\n"


def end_of_piece(data: bytes, size: int, start: int = 0) -> int:
    """The end of the piece of `data` that begins at `start`: within `size` bytes, and behind an event if possible."""
    end = data.rfind(_END, start, start + size) + len(_END)
    return end if end > start + len(_END) else min(start + size, len(data))


def pieces_of(data: bytes) -> list[bytes]:
    """`data` in pieces of at most `PIECE` bytes that end behind an event, if possible."""
    pieces = []
    start = 0
    while len(data) - start > PIECE:
        end = end_of_piece(data, PIECE, start)
        pieces.append(data[start:end])
        start = end
    pieces.append(data[start:])
    return pieces
