"""Divides a large read of an event stream into pieces that are read one by one. Pure. See `paced_reading`."""

from typing import Final

PIECE: Final = 4096
"""Bytes that are read at once, if they are not only text."""
LARGE: Final = 4096
"""Bytes of an event, or of held arguments, from which on it is read in a thread."""
_END: Final = b"\n\n"


def pieces_of(data: bytes) -> list[bytes]:
    """`data` in pieces of at most `PIECE` bytes that end behind an event, if possible."""
    pieces = []
    start, size = 0, len(data)
    while size - start > PIECE:
        end = data.rfind(_END, start, start + PIECE) + len(_END)
        if end <= start + len(_END):
            end = start + PIECE
        pieces.append(data[start:end])
        start = end
    pieces.append(data[start:])
    return pieces
