"""JSON too large for one turn of an event loop, read in pieces. Pure. (`writing` writes it.)

orjson reads a megabyte in a millisecond or more, and nothing else runs meanwhile. So a large document is cut as it is
gone through, from its beginning, and what is cut out is parsed by itself:

    {"model":…,"messages":[{"role":…},{"role":…},…,{"role":…,"content":"…a long text…"},…],"tools":…}
                           └──────── a run ──────┘                       └─ a stretch ─┘

A stretch is a part of one string, a run some of the elements of one array. Where they are is guessed: a window that is
a string when it is put between quotes is a stretch, and a run ends before what looks like the next message. That the
guess is right is not taken on trust, it is proved. In the place of what was cut out stands a mark, and the skeleton is
parsed too:

    {"model":…,"messages":["\\u0000…run;",{"role":…,"content":"…\\u0000…0;…"},…],"tools":…}

JSON knows no context. Where a string holds the mark it might hold any other characters, and so all that the stretch
holds; where an array has the mark for an element it might have any other elements, and so all those of the run. Each
mark must come out of the parser once. One that does not has been swallowed, by an escape or by a key that comes twice,
and then, as with anything else that does not fit, the whole is parsed after all, by `lenient.loads_exactly`: that alone
says what is wrong with a document, and reads what is deep or has integers beyond 64 bit.

Cuts are made where no escape is cut, nor the two halves of a surrogate pair, nor a character of several bytes. So what
is mended (see `lenient`) is mended in a piece as it would be in the whole.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..defaults import MAX_DEPTH
from ..errors import RequestTooLarge
from ..json_codec import depth_and_rounding, dumps, loads, loads_exactly
from .cooperative import Steps, clear_in_steps

_WHOLE: Final = 1024 * 1024  # bytes up to which a document is read at once
_WINDOW: Final = 256 * 1024  # bytes that are looked at in a step
_SHORTEST: Final = 16 * 1024  # bytes of a stretch
_RUN: Final = 512 * 1024  # bytes of a run, at the least
_MOST_VALUES: Final = 2_000_000  # of a document: a value may take 100 times the memory of the two bytes that it is
_CANDIDATES: Final = 3  # for the end of a run, before more of the document is waited for
# Ends between two characters, also if the backslash that it may begin with is not what begins the escape, and not
# before the second half of a pair.
_SAFE: Final = re.compile(
    rb"(?:[^\\]{6}|\\u[0-9a-fA-F]{4}|\\[\"/bfnrt])(?=[^\x80-\xbf].{3})(?!\\u[dD][c-fC-F])", re.DOTALL
)
_BETWEEN_STRINGS: Final = b"0123456789+-.eE,:[]{} \t\r\ntrufalsn"  # an array of numbers has no quotes either
_GLANCE: Final = 64  # bytes
_ARRAY: Final = re.compile(rb'"messages"\s*:\s*\[\s*(?=\{)')
_ROLE: Final = b'"role"'
_LONGEST_GAP: Final = 64  # bytes, from one message to the role of the next
_BEFORE_ROLE: Final = re.compile(rb"(?<=\})\s*,\s*(?=\{\s*\Z)")
_BEHIND_ROLE: Final = re.compile(rb'"role"\s*:\s*"\w*"\s*\}(\s*,\s*)(?=\{)')
# No one can know it who writes a document: strings are hashed with a secret of this process.
_SIGN: Final = f"\x00{hash('a mark') & 0xFFFF_FFFF_FFFF_FFFF:016x}."
_SIGNED: Final = dumps(_SIGN)[1:-1]
_RUN_MARK: Final = f"{_SIGN}run;"


class _Misfit(Exception):
    """What was cut out cannot be put back."""


def loads_in_steps(pieces: Sequence[bytes]) -> Steps[tuple[Any, int]]:
    """What `loads_exactly` says of the pieces together, in steps, or rather too many levels than too few.

    Raises orjson.JSONDecodeError, and RequestTooLarge for more values than anybody has use for.
    """
    if sum(map(len, pieces)) > _WHOLE:
        try:
            return (yield from _Reader().read(pieces))
        except (_Misfit, ValueError, LookupError):
            yield
    whole = b"".join(pieces)
    _count(whole)
    return loads_exactly(whole)


def _count(text: bytes, before: int = 0) -> int:
    """`before` and how many values `text` has; those in its strings, if they are JSON too, are not told from others."""
    values = before + text.count(b",") + text.count(b"[") + text.count(b"{")
    if values > _MOST_VALUES:
        raise RequestTooLarge(f"body: more than {_MOST_VALUES} JSON values")
    return values


class _Reader:
    """Reads one document."""

    def __init__(self) -> None:
        self._texts: list[list[str]] = []  # what belongs in the place of each mark, in parts
        self._found: list[int] = []  # marks that came out of the parser again
        self._reading = False  # a stretch, which the next window may go on with
        self._head = b""  # of the skeleton, to the array whose elements are cut out
        self._rest = bytearray()  # of the skeleton, from there on
        self._looked = 0  # bytes of it that are known not to hold what is looked for next
        self._elements: list[Any] = []
        self._levels = 0
        self._values = 0
        self._due = _RUN  # bytes of the rest to look for a run in

    def read(self, pieces: Sequence[bytes]) -> Steps[tuple[Any, int]]:
        """The value, and how many levels it has at the most.

        Raises _Misfit, or whatever the parser or a look-up raises, if it cannot be read like this.
        """
        for window in _windows(pieces):
            self._take(window)
            yield
            yield from self._shorten()
        run = [b'"', _SIGNED, b'run;",'] if self._elements else []
        skeleton = b"".join([self._head, *run, self._rest])
        value, levels = yield from self._parse(skeleton, has_run=bool(run))
        levels += self._levels
        if sorted(self._found) != list(range(len(self._texts))) or levels > MAX_DEPTH:
            raise _Misfit
        return value, levels

    def _take(self, window: bytes) -> None:
        """A stretch, or more of it, leaves no more than a mark in the skeleton; all else stays."""
        text = _said(window)
        if text is None and window.count(b'"') < len(window) // _SHORTEST * 4:  # it may be images, one by one
            first, *others = window.split(b'"')
            self._put(first, _said(first) if len(first) >= _SHORTEST or self._reading else None)
            for part in others:
                self._put(b'"', None)
                self._put(part, _said(part) if len(part) >= _SHORTEST else None)
        else:
            self._put(window, text)

    def _put(self, part: bytes, text: str | None) -> None:
        """`text` is what it says if it is a stretch."""
        if text is None:
            self._rest += part
        elif self._reading:
            self._texts[-1].append(text)
        else:
            self._rest += b"%b%d;" % (_SIGNED, len(self._texts))
            self._texts.append([text])
        self._reading = text is not None

    # runs

    def _shorten(self) -> Steps[None]:
        """Takes the elements out of the skeleton that can be told, once they are many."""
        if not self._head:
            self._find_array()
        if not self._head or len(self._rest) < self._due:
            return
        for end, begin in _ends(self._rest, self._looked):
            try:
                elements, levels = yield from self._parse(b"".join((b"[", self._rest[:end], b"]")))
            except ValueError:
                self._due = len(self._rest) * 3 // 2  # so that all that is parsed in vain is a few times the document
                continue
            self._elements += elements
            self._levels = max(self._levels, levels)
            del self._rest[:begin]
            self._looked, self._due = 0, _RUN
            return
        self._looked = max(0, len(self._rest) - 2 * _LONGEST_GAP)

    def _find_array(self) -> None:
        found = _ARRAY.search(self._rest, self._looked)
        if found is None:
            self._looked = max(0, len(self._rest) - _LONGEST_GAP)
            return
        self._head = bytes(self._rest[: found.end()])
        del self._rest[: found.end()]
        self._looked = 0

    # parsing, and putting back

    def _parse(self, text: bytes, *, has_run: bool = False) -> Steps[tuple[Any, int]]:
        """The value of a piece with everything in its place, and how many levels it has at the most."""
        values = _count(text, self._values)
        value = loads(text)
        self._values = values
        yield
        levels, rounded = depth_and_rounding(value)
        if rounded or levels > MAX_DEPTH:
            raise _Misfit
        if (self._texts or has_run) and _SIGNED in text:
            yield from self._put_back(value, has_run)
        return value, levels

    def _put_back(self, value: Any, has_run: bool) -> Steps[None]:
        containers = [value]
        array: list[Any] | None = None
        while containers:
            container = containers.pop()
            for key, inner in container.items() if type(container) is dict else enumerate(container):
                kind = type(inner)
                if kind is dict or kind is list:
                    containers.append(inner)
                elif kind is str and _SIGN in inner:
                    if inner == _RUN_MARK and key == 0 and array is None:
                        array = container
                        continue
                    container[key] = yield from self._filled(inner)
        if has_run is (array is None):
            raise _Misfit
        if array is not None:
            array[:1] = self._elements

    def _filled(self, text: str) -> Steps[str]:
        """`text` with the stretches in the place of their marks."""
        first, *marked = text.split(_SIGN)
        parts = [first]
        for part in marked:
            number, _, rest = part.partition(";")
            mark = int(number)
            self._found.append(mark)
            parts += self._texts[mark]
            parts.append(rest)
            self._texts[mark] = []
        yield
        filled = "".join(parts)  # for this no step can be made smaller
        yield
        yield from clear_in_steps(parts)
        return filled


def _windows(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The document in windows, each of which ends where it may be cut. Raises _Misfit."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        for start in range(0, len(piece), _WINDOW):
            held.append(piece[start : start + _WINDOW])
            size += len(held[-1])
            if size >= _WINDOW:
                window = b"".join(held)
                end = _end(window)
                yield window[:end]
                held = [window[end:]]
                size = len(held[0])
    yield b"".join(held)


def _end(window: bytes) -> int:
    """Where the window may be cut, near its end if it can be. Raises _Misfit where it may not."""
    for start in (len(window) - 64, len(window) // 2, 0):
        safe = _SAFE.search(window, max(0, start))
        if safe is not None:
            return safe.end()
    raise _Misfit


def _said(window: bytes) -> str | None:
    """What a window says that lies within a string; None for one that does not, or does not seem to."""
    if b'"' in window and (b'":"' in window or b'": "' in window):  # not both quotes of these can be escaped
        return None
    if not window[:_GLANCE].strip(_BETWEEN_STRINGS):
        return None
    try:
        text: str = loads(b'"%b"' % window)
    except ValueError:
        return None
    return text


def _ends(rest: bytearray, begin: int) -> Iterator[tuple[int, int]]:
    """Where a message seems to end, and where the next one begins: the last such places, the last of all first.

    It is told by the role, which is the first word of a message as a rule, and the last with some clients.
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
        start = max(0, at - _LONGEST_GAP)
        before = _BEFORE_ROLE.search(rest[start:at])
        if before is not None:
            yield start + before.start(), start + before.end()
