"""Writes JSON that is too large to write in one slice of the event loop. Pure.

The output is a list of pieces, each of about `_PIECE` bytes, whatever the shape of the value: an object of a million
small properties makes as few pieces as one long string. So the memory in use is about the size of the output.

Theory: the value is walked with a stack instead of recursion. Neighbouring small values of one object or array form a
run, which orjson writes at once. A container that holds at most `_SMALL` values, at all levels, counts as a small value
itself. Looking at a larger one stops after that many values, so the time is linear for every shape and depth.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ..json_codec import check_memory, dumps, loads
from .cooperative import Steps
from .cuts import whole_marks_until

_PIECE: Final = 64 * 1024  # bytes of output in a piece; a piece with many escapes may have six times as many
_SHARED: Final = 16 * 1024  # bytes from which stored text is a piece of its own
_MEMORY: Final = 1024 * 1024  # bytes that writing a piece needs, at most
_RUN: Final = 128  # values that are written at once
_PARTS: Final = 512  # of a text that are joined at once
_SMALL: Final = 64  # values in a container, at all levels, that still counts as a small value
_SCALAR: Final = 8  # bytes of a number, a literal or a bracket with its punctuation, roughly
_CONTAINERS_PER_STEP: Final = 256
_MAX_LEVELS: Final = 1000  # the same bound as Python's recursion limit sets for `json_codec.dumps`
_LARGE: Final = _PIECE + 1  # the weight of a value that does not fit into a run


class JoinedText:
    """A long string in parts, with `between` between them, which `dumps_in_steps` writes without joining them first."""

    __slots__ = ("between", "parts")

    def __init__(self, *parts: str, between: str = "") -> None:
        self.parts = parts
        self.between = between

    def groups(self) -> Iterator[str]:
        """The string in fewer parts: short neighbours are joined."""
        group: list[str] = []
        length = 0
        for number, part in enumerate(self.parts):
            if group and (length + len(part) > _PIECE or len(group) == _PARTS):
                yield self.between.join(group)
                group, length = [], 0
            if number and not group:
                yield self.between
            group.append(part)
            length += len(part)
        yield self.between.join(group)


class StoredArray:
    """An array that is kept as JSON text. Where it is looked at, it is parsed again, about `_PIECE` bytes at a time.

    `dumps_in_steps` writes it. So a long array takes the memory of its text, instead of that of its values.
    """

    __slots__ = ("_elements", "_has_large", "_stored", "_weight")

    def __init__(self) -> None:
        self._stored: list[list[bytes]] = []  # the text of some elements, in pieces
        self._elements: list[Any] = []  # not stored yet
        self._has_large = False  # one of them may hold a JoinedText, or takes long to write
        self._weight = 0

    def __repr__(self) -> str:
        return repr(list(self))

    def __bool__(self) -> bool:
        return bool(self._stored or self._elements)

    def __iter__(self) -> Iterator[Any]:
        for pieces in self._stored:
            yield from loads(b"[%b]" % b"".join(pieces))
        yield from self._elements

    def append(self, element: Any) -> Steps[None]:
        """Add an element. It must not change any more, unless it is the last one."""
        if self._weight >= _PIECE or len(self._elements) >= _RUN:
            yield from self._store()
        self._elements.append(element)
        weight = _weight(element)
        self._weight += weight
        self._has_large = self._has_large or weight > _PIECE

    def _store(self) -> Steps[None]:
        check_memory(_MEMORY)
        pieces = (yield from dumps_in_steps(self._elements)) if self._has_large else [dumps(self._elements)]
        pieces[0] = pieces[0][1:]  # without the brackets
        pieces[-1] = pieces[-1][:-1]
        self._stored.append(pieces)
        self._elements = []
        self._has_large = False
        self._weight = 0

    def stored(self) -> list[list[bytes]]:
        """The text of the elements that are stored, which are all of an array that was written; see `texts`."""
        return self._stored

    def texts(self) -> Steps[list[list[bytes]]]:
        """The text between the brackets: parts that belong between commas, each in pieces."""
        if self._elements:
            yield from self._store()
        return self._stored


def dumps_in_steps(value: Any) -> Steps[list[bytes]]:
    """`json_codec.dumps` of `value`, in steps and in pieces. Raises as `dumps`.

    `JoinedText` and `StoredArray` are allowed in it.
    """
    writer = _Writer()
    yield from writer.write(value)
    return writer.pieces()


def length_in_steps(value: Any) -> Steps[int]:
    """The bytes of `json_codec.dumps(value)`, in steps. Raises as `dumps`."""
    if _weight(value) <= _PIECE:
        return len(dumps(value))
    pieces = yield from dumps_in_steps(value)
    return sum(map(len, pieces))


class _Frame:
    """A container that is being written. `key` belongs to the value that is written next; None in an array."""

    __slots__ = ("closing", "has_values", "items", "run")

    def __init__(self, container: dict[Any, Any] | list[Any]) -> None:
        self.has_values = False  # whether a value has been written, so that a comma must precede the next one
        self.run: Any
        self.items: Iterator[Any]
        if type(container) is dict:
            self.items, self.closing, self.run = iter(container.items()), b"}", {}
        else:
            self.items, self.closing, self.run = iter(container), b"]", []


class _Writer:
    """Writes one value."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._piece = bytearray()
        self._stack: list[_Frame] = []

    def pieces(self) -> list[bytes]:
        """All pieces written so far."""
        self._end_piece()
        return self._pieces

    def write(self, value: Any) -> Steps[None]:
        """Write `value`. Raises TypeError and RecursionError as `json_codec.dumps`."""
        yield from self._write_large(value)
        opened = 0
        while self._stack:
            opened += 1
            if len(self._piece) >= _PIECE or opened % _CONTAINERS_PER_STEP == 0:
                self._end_piece_if_full()
                yield
            frame = self._stack[-1]
            inner = yield from (self._write_run(frame) if type(frame.run) is list else self._write_members(frame))
            if inner is _END:
                self._piece += frame.closing
                self._stack.pop()
            else:
                yield from self._write_large(inner)

    def _write_run(self, frame: _Frame) -> Steps[Any]:
        """Write elements of an array up to one that is large, and return it; `_END` at the end of the array."""
        run, weight = frame.run, 0
        for inner in frame.items:
            added = _weight(inner)
            if added > _PIECE:
                self._flush(frame)
                self._separate(frame)
                return inner
            run.append(inner)
            weight += added
            if weight > _PIECE or len(run) >= _RUN:
                self._flush(frame)
                weight = 0
                yield
        self._flush(frame)
        return _END

    def _write_members(self, frame: _Frame) -> Steps[Any]:
        """Write members of an object up to one whose value is large, and return it; `_END` at the end of the object."""
        run, weight = frame.run, 0
        for key, inner in frame.items:
            added = _weight(inner) + len(key)
            if added > _PIECE:
                self._flush(frame)
                self._separate(frame)
                yield from self._write_string((key,))
                self._piece += b":"
                return inner
            run[key] = inner
            weight += added
            if weight > _PIECE or len(run) >= _RUN:
                self._flush(frame)
                weight = 0
                yield
        self._flush(frame)
        return _END

    def _flush(self, frame: _Frame) -> None:
        """Write the run of the frame."""
        if frame.run:
            self._separate(frame)
            check_memory(_MEMORY)
            self._piece += dumps(frame.run)[1:-1]
            frame.run.clear()
            self._end_piece_if_full()

    def _separate(self, frame: _Frame) -> None:
        if frame.has_values:
            self._piece += b","
        frame.has_values = True

    def _write_large(self, value: Any) -> Steps[None]:
        """Write a value that fits into no run: a long string in windows; of a container, its opening bracket."""
        kind = type(value)
        if kind is JoinedText:
            yield from self._write_string(value.groups())
        elif kind is StoredArray:
            yield from self._write_stored(value)
        elif kind is str:
            yield from self._write_string((value,))
        elif kind is dict or kind is list:
            if len(self._stack) >= _MAX_LEVELS:
                raise RecursionError("nested too deeply to be written")
            self._piece += b"{" if kind is dict else b"["
            self._stack.append(_Frame(value))
        else:
            self._piece += dumps(value)

    def _write_stored(self, array: StoredArray) -> Steps[None]:
        texts = yield from array.texts()
        self._piece += b"["
        for number, pieces in enumerate(texts):
            self._piece += b"," if number else b""
            for text in pieces:
                if len(text) < _SHARED:
                    self._piece += text
                    self._end_piece_if_full()
                else:
                    self._end_piece()
                    self._pieces.append(text)  # not a copy
            yield
        self._piece += b"]"

    def _write_string(self, parts: Iterable[str]) -> Steps[None]:
        self._piece += b'"'
        for part in parts:
            start = 0
            while start < len(part):
                end = whole_marks_until(part, start + _PIECE)
                check_memory(_MEMORY)
                self._piece += dumps(part[start:end])[1:-1]
                self._end_piece_if_full()
                yield
                start = end
        self._piece += b'"'

    def _end_piece_if_full(self) -> None:
        if len(self._piece) >= _PIECE:
            self._end_piece()

    def _end_piece(self) -> None:
        if self._piece:
            self._pieces.append(bytes(self._piece))
            self._piece.clear()


_END: Final = object()


def _weight(value: Any) -> int:
    """About how many bytes a small value takes as JSON; more than `_PIECE` for one that is written by itself."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind is not dict and kind is not list:
        return _LARGE if kind is JoinedText or kind is StoredArray else _SCALAR
    weight, values = 0, 0
    containers = [value]
    while containers:
        container = containers.pop()
        values += len(container) + 1
        if values > _SMALL:
            return _LARGE
        if type(container) is dict:
            weight += sum(map(len, container))
            container = container.values()
        for inner in container:
            kind = type(inner)
            if kind is str:
                weight += len(inner)
            elif kind is dict or kind is list:
                containers.append(inner)
            elif kind is JoinedText or kind is StoredArray:
                return _LARGE
    return weight + _SCALAR * values
