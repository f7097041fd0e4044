"""The chunked transfer coding of a response → its data, as strict as llhttp. Pure: bytes in, bytes out.

h11 accepts what llhttp refuses: white space after a size, unfinished extensions, folded trailers, bare LF. And it waits
for the end of a line that cannot become valid any more. So where h11 reads heads, this class reads chunks.

    SIZE ──► DATA ──► DATA_END ──► SIZE                 a line is checked with each byte that arrives
      └─ 0 ─► TRAILERS ──► DONE
"""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from .errors import Broken

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_VALUE: Final = rb"=(?:%s|%s*+)" % (_QUOTED, _TOKEN)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]++)(?:;(?:%s++(?:%s)?+|%s|(?=;)))*+\r\n" % (_TOKEN, _VALUE, _VALUE))
_TRAILER: Final = re.compile(rb"(?:(%s++):[\t\x20-\x7e\x80-\xff]*+)?+\r\n" % _TOKEN)
_REST_OF_SIZE: Final = (b"\r\n", b"\n", b"0\r\n", b'"\r\n', b'a"\r\n')
_REST_OF_TRAILER: Final = (b"\r\n", b"\n", b":\r\n", b"a:\r\n")
_MAX_SIZE: Final = 2**64


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkDecoder:
    """Reads one body, and calls `on_body` with its data. `done`: the body has ended; `surplus` is what followed it."""

    __slots__ = ("_left", "_line", "_on_body", "_state", "surplus")

    def __init__(self, on_body: Callable[[bytes], None]) -> None:
        self._on_body = on_body
        self._state = _State.SIZE
        self._left = 0  # bytes of the chunk that have not arrived
        self._line = b""  # of the framing, without its end
        self.surplus = b""

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes) -> None:
        """Read bytes of the body. Raises Broken."""
        position = 0
        while position < len(data) and not self.done:
            if self._state is _State.DATA:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                self._on_body(piece)
                if not self._left:
                    self._state = _State.DATA_END
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or len(data)]
            position = end or len(data)
            if end:
                line, self._line = self._line, b""
                self._read_line(line)
            elif not self._may_become_valid(self._line):
                raise _broken()
        self.surplus += data[position:]

    def _read_line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise _broken()
            self._left = int(size[1], 16)
            if self._left >= _MAX_SIZE:
                raise _broken()
            self._state = _State.DATA if self._left else _State.TRAILERS
        elif self._state is _State.DATA_END:
            if line != b"\r\n":
                raise _broken()
            self._state = _State.SIZE
        else:
            trailer = _TRAILER.fullmatch(line)
            if trailer is None or (trailer[1] or b"").lower() == b"content-length":
                raise _broken()
            if line == b"\r\n":
                self._state = _State.DONE

    def _may_become_valid(self, line: bytes) -> bool:
        if self._state is _State.DATA_END:
            return line == b"\r"
        if self._state is _State.SIZE:
            return any(_SIZE.fullmatch(line + rest) for rest in _REST_OF_SIZE)
        return any(_TRAILER.fullmatch(line + rest) for rest in _REST_OF_TRAILER)


def _broken() -> Broken:
    return Broken("the response body has a malformed chunk or trailer")
