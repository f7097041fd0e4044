"""Reads JSON that is too large to parse in one slice of the event loop. Pure. (`json_writer` writes such JSON.)

orjson needs a millisecond or more for a megabyte, and blocks the loop meanwhile. So a large document is read window by
window, parts of it are cut out, and each part is parsed by itself:

    {"model":…,"messages":[{"role":…},{"role":…},…,{"role":…,"content":"…a long text…"},…],"tools":…}
                           └──────── a run ──────┘                       └─ a stretch ─┘

A stretch is a part of one string. A run is a sequence of whole elements of the `messages` array. Both are found by
guessing: a window that parses as a string when put between quotes is taken for a stretch; a run is taken to end before
something that looks like the next message. The guess is then proved. What is left of the document is the skeleton; it
has a mark in the place of every part that was cut out, and it is parsed, too:

    {"model":…,"messages":["\\u0000…run;",{"role":…,"content":"…\\u0000…0;…"},…],"tools":…}

The proof rests on JSON being context-free. Where a string holds a mark, it could hold any other characters, so also all
of the stretch. Where an array has a mark as its element, it could have any other elements, so also those of the run.
Each mark must come out of the parser exactly once. A mark that does not was swallowed by an escape or by a repeated
key. In that case, and whenever anything else does not fit, the whole document is parsed at once by
`json_codec.loads_exactly`. That function alone decides what is wrong with a document, and it alone reads deep nesting
and integers beyond 64 bit.

No cut falls inside an escape, between the halves of a surrogate pair, or inside a multi-byte character. So lone
surrogates are replaced (see `json_codec`) in a part exactly as they would be in the whole document.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..defaults import MAX_DEPTH
from ..errors import RequestTooLarge
from ..json_codec import depth_and_rounding, dumps, loads, loads_exactly
from .cooperative import Steps, clear_in_steps

_WHOLE: Final = 1024 * 1024  # bytes up to which a document is parsed at once
_WINDOW: Final = 256 * 1024  # bytes read in a step
_MIN_STRETCH: Final = 16 * 1024  # bytes
_MIN_RUN: Final = 512 * 1024  # bytes
_MAX_VALUES: Final = 2_000_000  # per document
_MAX_VALUES_AT_ONCE: Final = 500_000  # per part: parsing more would block the loop for too long
# What an array and an object take in memory, and what any other value takes at most with its place and its key. A body
# of two-byte values would otherwise take a hundred times its size.
_ARRAY_MEMORY: Final = 64
_OBJECT_MEMORY: Final = 200
_VALUE_MEMORY: Final = 100
_MAX_MEMORY: Final = 64 * 1024 * 1024  # of the values of a document, in bytes, or
_MAX_EXPANSION: Final = 6  # … that many times its size
_OPENING_OR_NEXT: Final = (b"[", b"{", b",")
_CANDIDATES: Final = 3  # possible run ends to try before reading more of the document
# Matches up to a place between two characters where a cut is safe: not inside an escape, even if the first byte of the
# match is an escaped backslash, and not before the second half of a surrogate pair.
_SAFE_CUT: Final = re.compile(
    rb"(?:[^\\]{6}|\\u[0-9a-fA-F]{4}|\\[\"/bfnrt])(?=[^\x80-\xbf].{3})(?!\\u[dD][c-fC-F])", re.DOTALL
)
_BETWEEN_STRINGS: Final = b"0123456789+-.eE,:[]{} \t\r\ntrufalsn"  # an array of numbers holds no quotes, either
_GLANCE: Final = 64  # bytes at the start of a window that show whether it is inside a string
_ARRAY: Final = re.compile(rb'"messages"\s*:\s*\[\s*(?=\{)')
_ROLE: Final = b'"role"'
_MAX_GAP: Final = 64  # bytes from the end of one message to the role of the next
_BEFORE_ROLE: Final = re.compile(rb"(?<=\})\s*,\s*(?=\{\s*\Z)")
_BEHIND_ROLE: Final = re.compile(rb'"role"\s*:\s*"\w*"\s*\}(\s*,\s*)(?=\{)')
# A client cannot know the mark: Python hashes strings with a secret of the process.
_MARK: Final = f"\x00{hash('a mark') & 0xFFFF_FFFF_FFFF_FFFF:016x}."
_MARK_JSON: Final = dumps(_MARK)[1:-1]
_RUN_MARK: Final = f"{_MARK}run;"


class _CannotCut(Exception):
    """The document cannot be read in parts; it has to be parsed whole."""


def loads_in_steps(pieces: Sequence[bytes]) -> Steps[tuple[Any, int]]:
    """`loads_exactly` of the joined pieces, in steps: the value, and an upper bound of its depth.

    Raises orjson.JSONDecodeError; RequestTooLarge for too many values.
    """
    size = sum(map(len, pieces))
    if size > _WHOLE:
        try:
            return (yield from _Reader(size).read(pieces))
        except (_CannotCut, ValueError, LookupError):
            yield
    whole = b"".join(pieces)
    yield from _Values(size).checked(whole)
    return loads_exactly(whole)


class _Values:
    """Counts the values of a document of `size` bytes, and what they take in memory. Raises RequestTooLarge."""

    __slots__ = ("_max_memory", "_memory", "_values")

    def __init__(self, size: int) -> None:
        self._values = 0
        self._memory = 0
        self._max_memory = max(_MAX_MEMORY, _MAX_EXPANSION * size)

    def checked(self, text: bytes) -> Steps[tuple[int, int]]:
        """What the totals are with a part of the document, which must not be parsed before.

        Punctuation inside strings counts, too, unless the part would be refused because of it.
        """
        totals = self._totals(*map(text.count, _OPENING_OR_NEXT))
        if totals is None:
            counts = [0, 0, 0]
            for structure in _structure(text):
                counts = [count + structure.count(mark) for count, mark in zip(counts, _OPENING_OR_NEXT, strict=True)]
                yield
            totals = self._totals(*counts)
        if totals is None:
            raise RequestTooLarge(
                f"body: more than {_MAX_VALUES_AT_ONCE} JSON values in one part or {_MAX_VALUES} in all, "
                f"or values that take more than {self._max_memory >> 20} MiB of memory"
            )
        return totals

    def add(self, totals: tuple[int, int]) -> None:
        """Keep the totals, once the part has been parsed."""
        self._values, self._memory = totals

    def _totals(self, arrays: int, objects: int, others: int) -> tuple[int, int] | None:
        """The totals with this many values more; None if they are too many."""
        added = arrays + objects + others
        values = self._values + added
        memory = self._memory + arrays * _ARRAY_MEMORY + objects * _OBJECT_MEMORY + others * _VALUE_MEMORY
        if added > _MAX_VALUES_AT_ONCE or values > _MAX_VALUES or memory > self._max_memory:
            return None
        return values, memory


def _structure(text: bytes) -> Iterator[bytes]:
    """The text without its strings, in windows."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    in_string = 0
    for start in range(0, len(text), _MIN_STRETCH):
        parts = text[start : start + _MIN_STRETCH].split(b'"')
        yield b"".join(parts[in_string::2])
        in_string ^= (len(parts) - 1) & 1


class _Reader:
    """Reads one document of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._stretches: list[list[str]] = []  # the text of each mark, in parts
        self._marks_seen: list[int] = []  # numbers of the marks that came out of the parser
        self._in_stretch = False  # the last window ended in a stretch, which may go on in the next one
        self._head = b""  # of the skeleton, up to the array whose elements are cut out
        self._tail = bytearray()  # of the skeleton, after `_head`
        self._searched = 0  # bytes of `_tail` that hold no run end and no start of the array
        self._elements: list[Any] = []  # parsed elements of all runs
        self._levels = 0
        self._values = _Values(size)
        self._search_at = _MIN_RUN  # length of `_tail` from which to look for a run in it

    def read(self, pieces: Sequence[bytes]) -> Steps[tuple[Any, int]]:
        """The value, and an upper bound of its depth.

        Raises _CannotCut, or a ValueError or LookupError, if the document cannot be read in parts.
        """
        for window in _windows(pieces):
            self._add(window)
            yield
            yield from self._cut_run()
        run = [b'"', _MARK_JSON, b'run;",'] if self._elements else []
        skeleton = b"".join([self._head, *run, self._tail])
        value, levels = yield from self._parse(skeleton, has_run=bool(run))
        levels += self._levels
        if sorted(self._marks_seen) != list(range(len(self._stretches))) or levels > MAX_DEPTH:
            raise _CannotCut
        return value, levels

    def _add(self, window: bytes) -> None:
        """Adds a window to the skeleton; stretches in it are replaced by their marks."""
        text = _string_content(window)
        if text is None and window.count(b'"') < len(window) // _MIN_STRETCH * 4:  # few quotes: it may hold images
            first, *others = window.split(b'"')
            self._append(first, _string_content(first) if len(first) >= _MIN_STRETCH or self._in_stretch else None)
            for part in others:
                self._append(b'"', None)
                self._append(part, _string_content(part) if len(part) >= _MIN_STRETCH else None)
        else:
            self._append(window, text)

    def _append(self, part: bytes, text: str | None) -> None:
        """Adds `part` to the skeleton. `text` is its content if it is a stretch, else None."""
        if text is None:
            self._tail += part
        elif self._in_stretch:
            self._stretches[-1].append(text)
        else:
            self._tail += b"%b%d;" % (_MARK_JSON, len(self._stretches))
            self._stretches.append([text])
        self._in_stretch = text is not None

    # Runs

    def _cut_run(self) -> Steps[None]:
        """Once the skeleton is long, cuts a run out of it and parses the run."""
        if not self._head:
            self._find_array()
        if not self._head or len(self._tail) < self._search_at:
            return
        for end, begin in _run_ends(self._tail, self._searched):
            try:
                elements, levels = yield from self._parse(b"".join((b"[", self._tail[:end], b"]")))
            except ValueError:
                self._search_at = len(self._tail) * 3 // 2  # bounds the bytes parsed in vain
                continue
            self._elements += elements
            self._levels = max(self._levels, levels)
            del self._tail[:begin]
            self._searched, self._search_at = 0, _MIN_RUN
            return
        self._searched = max(0, len(self._tail) - 2 * _MAX_GAP)

    def _find_array(self) -> None:
        found = _ARRAY.search(self._tail, self._searched)
        if found is None:
            self._searched = max(0, len(self._tail) - _MAX_GAP)
            return
        self._head = bytes(self._tail[: found.end()])
        del self._tail[: found.end()]
        self._searched = 0

    # Parsing, and restoring what was cut out

    def _parse(self, text: bytes, *, has_run: bool = False) -> Steps[tuple[Any, int]]:
        """The value of one part with its stretches restored, and an upper bound of its depth."""
        totals = yield from self._values.checked(text)
        value = loads(text)
        self._values.add(totals)
        yield
        levels, rounded = depth_and_rounding(value)
        if rounded or levels > MAX_DEPTH:
            raise _CannotCut
        if (self._stretches or has_run) and _MARK_JSON in text:
            yield from self._restore(value, has_run)
        return value, levels

    def _restore(self, value: Any, has_run: bool) -> Steps[None]:
        containers = [value]
        array: list[Any] | None = None
        while containers:
            container = containers.pop()
            for key, inner in container.items() if type(container) is dict else enumerate(container):
                kind = type(inner)
                if kind is dict or kind is list:
                    containers.append(inner)
                elif kind is str and _MARK in inner:
                    if inner == _RUN_MARK and key == 0 and array is None:
                        array = container
                        continue
                    container[key] = yield from self._restored(inner)
        if has_run is (array is None):
            raise _CannotCut
        if array is not None:
            array[:1] = self._elements

    def _restored(self, text: str) -> Steps[str]:
        """`text` with every mark replaced by its stretch."""
        first, *marked = text.split(_MARK)
        parts = [first]
        for part in marked:
            number, _, rest = part.partition(";")
            mark = int(number)
            self._marks_seen.append(mark)
            parts += self._stretches[mark]
            parts.append(rest)
            self._stretches[mark] = []
        yield
        filled = "".join(parts)  # cannot be split into smaller steps
        yield
        yield from clear_in_steps(parts)
        return filled


def _windows(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The document in windows that end at a safe cut. Raises _CannotCut."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        for start in range(0, len(piece), _WINDOW):
            held.append(piece[start : start + _WINDOW])
            size += len(held[-1])
            if size >= _WINDOW:
                window = b"".join(held)
                end = _cut_position(window)
                yield window[:end]
                held = [window[end:]]
                size = len(held[0])
    yield b"".join(held)


def _cut_position(window: bytes) -> int:
    """A safe cut in the window, near its end if possible. Raises _CannotCut if there is none."""
    for start in (len(window) - 64, len(window) // 2, 0):
        safe = _SAFE_CUT.search(window, max(0, start))
        if safe is not None:
            return safe.end()
    raise _CannotCut


def _string_content(window: bytes) -> str | None:
    """The decoded text of a window that lies inside one string; None if it does not seem to."""
    # One of the two quotes in these is unescaped, so they cannot be inside a string.
    if b'"' in window and (b'":"' in window or b'": "' in window):
        return None
    if not window[:_GLANCE].strip(_BETWEEN_STRINGS):
        return None
    try:
        text: str = loads(b'"%b"' % window)
    except ValueError:
        return None
    return text


def _run_ends(rest: bytearray, begin: int) -> Iterator[tuple[int, int]]:
    """Places where one message seems to end and the next one begins: (end, begin), the last place first.

    They are found by the key `role`: most clients write it first in a message, some write it last.
    """
    at = len(rest)
    for _ in range(_CANDIDATES):
        at = rest.rfind(_ROLE, begin, at)
        if at < 0:
            return
        behind = _BEHIND_ROLE.match(rest, at)
        if behind is not None:
            yield behind.span(1)
            continue
        start = max(0, at - _MAX_GAP)
        before = _BEFORE_ROLE.search(rest[start:at])
        if before is not None:
            yield start + before.start(), start + before.end()
