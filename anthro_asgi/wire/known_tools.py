"""The tools of earlier requests. An agent sends the same definitions, byte for byte, with each request. Pure.

A `ToolCache` recognises definitions that it has seen in a body, and cuts them out before the rest is parsed:

    body ── find ──► the same bytes as before? ──► the body with a mark in their place ── parse ──► known tools again
                        └─ no ──► the whole body is parsed and checked, then its definitions alone, for `keep`

It compares all bytes, so a request gets no tools but its own. The mark is a text that no client can know, and the field
`tools` of the parsed rest must be this text. So what was cut out was the whole value of that field, also if a client
sends a body in which the same bytes stand somewhere else.

To editors: requests share the parsed tools, so no code may change them. Only an engine that promises not to change the
tools of a request gets shared ones (see `BaseEngine.takes_cuts`).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from .json_codec import count_values

Json = dict[str, Any]
ToolT = TypeVar("ToolT")
T = TypeVar("T")

LIMIT: Final = 16 * 1024 * 1024
"""Bytes of all that a cache keeps, by a high estimate."""
SMALLEST: Final = 1024
"""Definitions with fewer bytes are not kept."""
_MOST: Final = 32  # lists of tools; each is compared with the body
_VALUE: Final = 240  # bytes that a parsed value takes, at most
_CHARACTER: Final = 4  # bytes, at most
_COPIES: Final = 3  # of the bytes: as they came, and as two dialects have them
_KEY: Final = b'"tools":'


class SharedTools(list[ToolT]):
    """Tools that several requests share. No code may change them."""

    __slots__ = ("_made",)

    def __init__(self, tools: list[ToolT]) -> None:
        super().__init__(tools)
        self._made: dict[Hashable, Any] = {}

    def made(self, make: Callable[[list[ToolT]], T]) -> T:
        """The result of `make` for these tools, which is computed once and kept.

        `make` is a function of a module. Its result depends on the tools alone.
        """
        if make not in self._made:
            self._made[make] = make(self)
        result: T = self._made[make]
        return result


@dataclass(frozen=True, slots=True)
class KnownTools(Generic[ToolT]):
    """The definitions `raw` as the bytes of a body; `entries`, the same parsed and checked; and the tools in them."""

    raw: bytes
    entries: list[Json]
    tools: SharedTools[ToolT]
    size: int


class ToolCache(Generic[ToolT]):
    """Keeps tools of at most `limit` bytes, those that were used last. `mark` is a text that no client can know."""

    def __init__(self, mark: str, limit: int = LIMIT) -> None:
        self._limit = limit
        self._size = 0
        self._known: list[KnownTools[ToolT]] = []  # the one that was used last is the first
        self._mark = mark
        self._marked = orjson.dumps(mark)

    def __repr__(self) -> str:
        return f"<ToolCache {len(self._known)} lists, {self._size} bytes>"

    def find(self, body: bytes) -> tuple[KnownTools[ToolT], bytes] | None:
        """Known tools of this body, and the body with a mark in their place; None if it has none.

        They are its tools if `is_mark` is true of the field `tools` of the parsed rest.
        """
        at = _start(body)
        if at < 0:
            return None
        for place, known in enumerate(self._known):
            if body.startswith(known.raw, at):
                if place:
                    self._known.insert(0, self._known.pop(place))
                return known, b"".join((body[:at], self._marked, body[at + len(known.raw) :]))
        return None

    def is_mark(self, value: object) -> bool:
        """Whether `value` stands in the place of the tools that `find` has returned."""
        return value == self._mark

    def unknown(self, body: bytes) -> bytes:
        """The definitions in this body that are not known and worth keeping; b"" if there are none.

        They may be those of another field than `tools`, and need not be valid.
        """
        raw = _value(body, _start(body))
        return b"" if len(raw) < SMALLEST or any(raw == known.raw for known in self._known) else raw

    def keep(self, raw: bytes, entries: list[Json], tools: list[ToolT]) -> None:
        """Keep the definitions `raw`, the same parsed and checked, and the tools in them.

        The tools that were used least recently go.
        """
        size = (_COPIES + _CHARACTER) * len(raw) + _VALUE * count_values(raw)
        if size > self._limit:
            return
        self._known.insert(0, KnownTools(raw, entries, SharedTools(tools), size))
        self._size += size
        while self._size > self._limit or len(self._known) > _MOST:
            self._size -= self._known.pop().size


def _start(body: bytes) -> int:
    """Where the value of the first `tools` in `body` begins; -1 if there is none."""
    at = body.find(_KEY)
    if at < 0:
        return -1
    at += len(_KEY)
    return at + 1 if body.startswith(b" ", at) else at


def _value(body: bytes, at: int) -> bytes:
    """The JSON value that begins at `at`; b"" if there is none. Other bytes follow it."""
    if at < 0:
        return b""
    rest = body[at:]
    try:
        orjson.loads(rest)
    except orjson.JSONDecodeError as exc:  # orjson reads a value, and then says where more follows
        return exc.doc[: exc.pos].encode()
    return b""
