"""Limits the memory of request bodies before their requests have a slot: in total, and for each API key.

Only bytes that have arrived count, not those that a client announces. So a client that sends slowly takes what it has
sent, and cannot keep others out by promises. A body counts until its request has a slot (see `admission`), which
limits how many requests there are from then on.

    first byte ── read, decompressed, parsed, waits for a slot ──► has a slot, or has ended
    └────────────────────────── counts ────────────────────────┘
"""

from collections import Counter
from typing import Final, Self

from ..wire import defaults
from ..wire.errors import Overloaded
from .admission import Key, Note

_REFUSED: Final = "refused"


class BodyMemory:
    """Counts the bytes of bodies in one event loop.

    Args:
        limit: bytes of all bodies.
        per_key: bytes of the bodies of one API key. Requests without a key have the limit of all.
        note: is called for each refusal with "refused" and "bodies" or "bodies_of_key".
    """

    def __init__(
        self,
        limit: int = defaults.MAX_BODY_MEMORY,
        per_key: int = defaults.MAX_BODY_MEMORY_PER_KEY,
        note: Note = lambda what, kind: None,
    ) -> None:
        self._limit = limit
        self._per_key = per_key
        self._note = note
        self.used = 0
        self._used_by_key: Counter[bytes] = Counter()

    def __repr__(self) -> str:
        return f"<BodyMemory {self.used}/{self._limit}>"

    def share(self, key: Key) -> "BodyShare":
        """The bytes of one body, as a context manager: they are given back when the block ends, if not before."""
        return BodyShare(self, key)

    def take(self, key: Key, size: int) -> None:
        """Count `size` bytes more. Raises Overloaded, and counts nothing then."""
        if self.used + size > self._limit:
            self._note(_REFUSED, "bodies")
            raise Overloaded("overloaded: the request bodies that are being read take too much memory", reason="bodies")
        if key is not None:
            if self._used_by_key[key] + size > self._per_key:
                self._note(_REFUSED, "bodies_of_key")
                reason = f"the bodies of this API key take more than {self._per_key} bytes"
                raise Overloaded(f"overloaded: {reason}", reason="bodies_of_key")
            self._used_by_key[key] += size
        self.used += size

    def give_back(self, key: Key, size: int) -> None:
        """Count `size` bytes less."""
        self.used -= size
        if key is not None:
            self._used_by_key[key] -= size
            if not self._used_by_key[key]:
                del self._used_by_key[key]


class BodyShare:
    """The bytes of one body in a BodyMemory."""

    __slots__ = ("_key", "_memory", "_size")

    def __init__(self, memory: BodyMemory, key: Key) -> None:
        self._memory = memory
        self._key = key
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises Overloaded."""
        self._memory.take(self._key, size)
        self._size += size

    def release(self) -> None:
        """Give all bytes back. May be called more than once."""
        if self._size:
            self._memory.give_back(self._key, self._size)
            self._size = 0
