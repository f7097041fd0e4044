"""Parts of a large request that stay the JSON text in which they came. Pure.

Long strings, and values that this service does not read (schemas, tool inputs, unknown fields), need not become Python
objects: these take up to twenty times the memory of their text. So `json_reader` cuts them out, and puts a mark in
their place. Everything else (checks, folding, conversion) handles the marks as ordinary values, and `fill` puts the
text back into the JSON that is sent:

    cut          mark in the request        in the JSON that is sent
    a string     "MARK"                     the content of the string, also inside a longer string
    a value      {"MARK": 0}                the value; inside a string (tool arguments) it is escaped

A mark consists of characters that JSON does not escape. It contains a secret of the process, so that no client can
write one. It must not leave the process: `Cuts.text` gives the real text to a check that may quote it.
"""

from typing import Any, Final

from ..json_codec import loads
from .cooperative import Steps

MARK: Final = f"\x7f{hash('a mark') & 0xFFFF_FFFF_FFFF_FFFF:016x}."
"""The beginning of every mark. Python hashes strings with a secret of the process."""
MARK_JSON: Final = MARK.encode()
_END: Final = "\x7f"
_END_JSON: Final = _END.encode()
_OPENINGS: Final = ('{\\"', '{"')  # what stands before the mark of a value, in a string and elsewhere
_AROUND: Final = 3  # its length, at most
_LONGEST: Final = len(MARK) + 32  # a mark with everything around it
_SHARED: Final = 16 * 1024  # bytes from which a piece is sent as it is, without a copy
_PIECE: Final = 64 * 1024  # bytes of other pieces, at least
_PIECES_PER_STEP: Final = 16


class Cuts:
    """The parts that were cut out of one request, by number."""

    __slots__ = ("_are_values", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[list[bytes]] = []  # JSON text; of a string, without its quotes
        self._are_values: list[bool] = []
        self.size = 0
        """Bytes of prompt in all parts, for the estimate of its length."""

    def __len__(self) -> int:
        return len(self._pieces)

    def add_string(self, pieces: list[bytes]) -> str:
        """Keep the content of a string, as JSON without its quotes; returns its mark. `pieces` may still grow."""
        return self._add(pieces, is_value=False)

    def add_value(self, pieces: list[bytes]) -> dict[str, Any]:
        """Keep a value as JSON; returns its mark. `pieces` may still grow."""
        return {self._add(pieces, is_value=True): 0}

    def _add(self, pieces: list[bytes], *, is_value: bool) -> str:
        self._pieces.append(pieces)
        self._are_values.append(is_value)
        return f"{MARK}{len(self._pieces) - 1}{_END}"

    def pieces(self, mark: str) -> list[bytes]:
        """The JSON text behind a mark."""
        return self._pieces[int(mark[len(MARK) : -1])]

    def text(self, mark: str) -> str:
        """The string behind a mark. Raises ValueError if it is no valid content of a string."""
        return "".join(loads(b'"%b"' % piece) for piece in self.pieces(mark))

    def fill(self, pieces: list[bytes]) -> Steps[list[bytes]]:
        """The JSON text in `pieces` with every mark replaced by what was cut out. No mark spans two pieces."""
        out = _Output()
        for piece in pieces:
            yield from self._fill(piece, out, escaped=False)
            yield
        return out.end()

    def _fill(self, data: bytes, out: "_Output", *, escaped: bool) -> Steps[None]:
        done = steps = 0
        at = data.find(MARK_JSON)
        while at >= 0:
            end = data.index(_END_JSON, at + len(MARK_JSON))
            number = int(data[at + len(MARK_JSON) : end])
            is_value = self._are_values[number]
            in_string = escaped
            end += 1
            if is_value and data[at - 2 : at] == b'\\"':
                in_string = True
                at, end = at - 3, end + 5  # `{\"` and `\":0}`
            elif is_value:
                at, end = at - 2, end + 4
            out.write(data[done:at], escaped=escaped)
            for piece in self._pieces[number]:
                if is_value and MARK_JSON in piece:
                    yield from self._fill(piece, out, escaped=in_string)
                else:
                    out.write(piece, escaped=in_string)
                steps += 1
                if steps % _PIECES_PER_STEP == 0:
                    yield
            done = end
            at = data.find(MARK_JSON, done)
        out.write(data[done:], escaped=escaped)


class _Output:
    """Collects the output: long pieces as they are, short ones joined."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._short = bytearray()

    def write(self, data: bytes, *, escaped: bool) -> None:
        if escaped:
            data = _escaped(data)
        if len(data) >= _SHARED:
            self._end_short()
            self._pieces.append(data)
        else:
            self._short += data
            if len(self._short) >= _PIECE:
                self._end_short()

    def _end_short(self) -> None:
        if self._short:
            self._pieces.append(bytes(self._short))
            self._short.clear()

    def end(self) -> list[bytes]:
        self._end_short()
        return self._pieces


def _escaped(data: bytes) -> bytes:
    """JSON text as the content of a JSON string. It holds no control characters but white space between its values."""
    data = data.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if b"\n" in data or b"\r" in data or b"\t" in data:
        data = data.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")
    return data


def is_mark(value: Any) -> bool:
    """Whether `value` is the mark of a string."""
    return type(value) is str and value.startswith(MARK)


def is_value_mark(value: Any) -> bool:
    """Whether `value` is the mark of a value."""
    return type(value) is dict and len(value) == 1 and is_mark(next(iter(value)))


def whole_marks_until(text: str, end: int) -> int:
    """The end of a part of `text`: `end`, or before a mark that may not end there."""
    at = text.rfind(MARK, max(0, end - _LONGEST), end + len(MARK) + _AROUND)
    if at < 0:
        return end
    before = next((opening for opening in _OPENINGS if text.endswith(opening, 0, at)), "")
    return min(end, at - len(before)) or end
