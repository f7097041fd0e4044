"""Parts of a large request that stay the JSON text in which they came. Pure.

Long strings, and values that this service does not read (schemas, tool inputs, unknown fields), need not become Python
objects: these take up to twenty times the memory of their text. So `json_reader` cuts them out, and puts a mark in
their place. Everything else (checks, folding, conversion) handles the marks as ordinary values, and `fill` puts the
text back into the JSON that is sent:

    cut          mark in the request        in the JSON that is sent
    a string     "MARK"                     the content of the string, also inside a longer string
    a value      {"MARK": 0}                the value; inside a string (tool arguments) it is escaped

A schema of an object without `properties` has a mark of its own, because some engines need that key: `with_properties`.

A mark consists of characters that JSON does not escape. It contains a secret of the process, so that no client can
write one. It must not leave the process: `Cuts.text` gives the real text to a check that may quote it.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, TypeGuard

from ..json_codec import dumps, loads
from .cooperative import Steps, run_to_end

MARK: Final = f"\x7f{hash('a mark') & 0xFFFF_FFFF_FFFF_FFFF:016x}."
"""The beginning of every mark. Python hashes strings with a secret of the process."""
MARK_JSON: Final = MARK.encode()
_END: Final = "\x7f"
_BARE: Final = "o"  # behind the number of a schema without `properties`, and
_WITH_PROPERTIES: Final = "p"  # … of one that is sent with them
_NO_PROPERTIES: Final = b',"properties":{}}'
_END_JSON: Final = _END.encode()
_OPENINGS: Final = ('{\\"', '{"')  # what stands before the mark of a value, in a string and elsewhere
_AROUND: Final = 3  # its length, at most
_LONGEST: Final = len(MARK) + 32  # a mark with everything around it
_SHARED: Final = 16 * 1024  # bytes from which a piece is sent as it is, without a copy
_PIECE: Final = 64 * 1024  # bytes of other pieces, at least
_PIECES_PER_STEP: Final = 16


_FLAGS: Final = (_BARE + _WITH_PROPERTIES).encode()
_ANY_MARK: Final = re.compile(re.escape(MARK_JSON) + rb"(\d+)")


class Cuts:
    """The parts that were cut out of one request, by number."""

    __slots__ = ("_are_values", "_lengths", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[list[bytes]] = []  # JSON text; of a string, without its quotes
        self._are_values: list[bool] = []
        self._lengths: list[int] = []  # characters of the prompt; of a value, without the strings in it
        self.size = 0
        """Bytes of prompt in all parts, for the estimate of its length."""

    def __len__(self) -> int:
        return len(self._pieces)

    def content(self) -> list[list[bytes]]:
        """All parts, to be dropped with `drop_in_steps`."""
        return self._pieces

    def add_string(self, pieces: list[bytes], length: int) -> str:
        """Keep the content of a string of `length` characters, as JSON without its quotes; returns its mark."""
        return f"{MARK}{self._add(pieces, length, is_value=False)}{_END}"

    def add_value(self, pieces: list[bytes]) -> dict[str, Any]:
        """Keep a value as JSON; returns its mark. `pieces` may still grow."""
        return {f"{MARK}{self._add(pieces, 0, is_value=True)}{_END}": 0}

    def _add(self, pieces: list[bytes], length: int, *, is_value: bool) -> int:
        self._pieces.append(pieces)
        self._are_values.append(is_value)
        self._lengths.append(length)
        return len(self._pieces) - 1

    def count_string(self, mark: str, *, is_prompt: bool) -> None:
        """Count a string as part of the prompt, or note that it is none."""
        number = _number(mark)
        if is_prompt:
            self.size += self._lengths[number]
        else:
            self._lengths[number] = 0

    def count_value(self, mark: dict[str, Any], text: bytes) -> None:
        """Count `text`, which belongs to a value, as part of the prompt."""
        (name,) = mark
        self._lengths[_number(name)] += len(text)
        self.size += len(text) + self._counted(text)

    def length(self, value: Any) -> int:
        """The characters of the prompt in the parts whose marks `value` holds."""
        return self._counted(dumps(value))

    def _counted(self, text: bytes) -> int:
        """The characters in the parts whose marks `text` holds."""
        counted = 0
        for found in _ANY_MARK.finditer(text) if MARK_JSON in text else ():
            number = int(found[1])
            counted += self._lengths[number]
            if self._are_values[number]:
                counted += sum(map(self._counted, self._pieces[number]))
        return counted

    def pieces(self, mark: str) -> list[bytes]:
        """The JSON text behind a mark."""
        return self._pieces[_number(mark)]

    def texts(self, mark: str) -> Iterator[str]:
        """The string behind a mark, in parts. Raises ValueError if it is no valid content of a string."""
        return (loads(b'"%b"' % piece) for piece in self.pieces(mark))

    def text(self, mark: str) -> str:
        """The same as one string."""
        return "".join(self.texts(mark))

    def value(self, mark: dict[str, Any], most: int) -> Any:
        """The value behind a mark; None if its text has more than `most` bytes."""
        pieces = run_to_end(self.fill([dumps(mark)]))
        return loads(b"".join(pieces)) if sum(map(len, pieces)) <= most else None

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
            name = data[at + len(MARK_JSON) : end]
            number = int(name.rstrip(_FLAGS))
            is_value = self._are_values[number]
            in_string = escaped
            end += 1
            if is_value and data[at - 2 : at] == b'\\"':
                in_string = True
                at, end = at - 3, end + 5  # `{\"` and `\":0}`
            elif is_value:
                at, end = at - 2, end + 4
            out.write(data[done:at], escaped=escaped)
            parts = self._pieces[number]
            if name.endswith(_WITH_PROPERTIES.encode()):
                parts = [*parts[:-1], parts[-1].rstrip()[:-1] + _NO_PROPERTIES]
            for piece in parts:
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


def is_value_mark(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is the mark of a value."""
    return type(value) is dict and len(value) == 1 and is_mark(next(iter(value)))


def note_bare(mark: dict[str, Any]) -> None:
    """Turn the mark of a value into that of a schema of an object without `properties`."""
    (name,) = mark
    del mark[name]
    mark[f"{name[:-1]}{_BARE}{_END}"] = 0


def with_properties(mark: dict[str, Any]) -> dict[str, Any]:
    """The mark of the same value, with empty `properties` if it is a schema without them."""
    (name,) = mark
    return {f"{name[:-2]}{_WITH_PROPERTIES}{_END}": 0} if name.endswith(_BARE + _END) else mark


def _number(mark: str) -> int:
    return int(mark[len(MARK) : -1].rstrip(_BARE + _WITH_PROPERTIES))


def whole_marks_until(text: str, end: int) -> int:
    """The end of a part of `text`: `end`, or before a mark that may not end there."""
    first = max(0, end - _LONGEST)
    at = text.rfind(MARK, first, end + len(MARK) + _AROUND)
    while at >= 0:
        before = next((opening for opening in _OPENINGS if text.endswith(opening, 0, at)), "")
        if at - len(before) < end:
            return at - len(before) or end
        at = text.rfind(MARK, first, at)  # the mark before it may go beyond `end`
    return end
