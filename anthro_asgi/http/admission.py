"""Who gets a turn at the engine, who waits for one, and who is sent away at once (529, with `retry-after`).

A turn is the right to be answered by the engine. Beyond `limit` of them requests wait in line, and beyond `queue` of
those nobody waits: an engine that is behind gets no further behind by requests that their clients have given up on.

    running <= limit        waiting <= queue        a turn that ends goes to the head of the line and to nobody else

`look` says at the door, before a body is read, that there is neither turn nor place in line. Between that and `turn`
the last place may be lost, so `turn` looks again.

To editors: every move is made in one step without an await, as in `upstream.pool`, and for the same reason.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

from ..wire import defaults
from ..wire.errors import Overloaded

Key = bytes | None
Note = Callable[[str, str], object]
_REFUSED: Final = "refused"  # what is noted, and with which kind


class Admission:
    """At most `limit` turns at one time and `queue` requests that wait, each for `timeout` seconds.

    `per_key` bounds the turns and places in line of one API key. `note` is told of each refusal: "refused" and
    "queue_full", "queue_timeout" or "key". One belongs to one event loop.
    """

    def __init__(
        self,
        limit: int = defaults.MAX_CONCURRENCY,
        queue: int = defaults.MAX_QUEUE,
        timeout: float = defaults.QUEUE_TIMEOUT,
        per_key: int | None = None,
        note: Note = lambda what, kind: None,
    ) -> None:
        self.limit = limit
        self.queue = queue
        self.running = 0
        self._timeout = timeout
        self._per_key = per_key
        self._note = note
        self._keys: Counter[bytes] = Counter()
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Admission running={self.running}/{self.limit} waiting={self.waiting}/{self.queue}>"

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiters)

    def check(self, key: Key = None) -> None:
        """Raises Overloaded when a request with this key would get neither a turn nor a place in line."""
        if self.running >= self.limit and len(self._waiters) >= self.queue:
            raise self._refusal("queue_full", "too many requests are waiting")
        if self._per_key is not None and key is not None and self._keys[key] >= self._per_key:
            raise self._refusal("key", f"this API key has {self._per_key} requests open, which is its limit")

    def slot(self, key: Key = None) -> "Slot":
        """A turn, to be had by entering it."""
        return Slot(self, key)

    async def acquire(self, key: Key) -> None:
        """Wait for a turn. Raises Overloaded."""
        self.check(key)
        self._count(key, 1)
        if self.running < self.limit:
            self.running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(place)
        try:
            async with asyncio.timeout(self._timeout):
                await place
        except BaseException as exc:
            self._count(key, -1)
            self._leave_queue(place)
            if isinstance(exc, TimeoutError):
                raise self._refusal("queue_timeout", f"no turn within {self._timeout:g} s") from None
            raise

    def release(self, key: Key) -> None:
        """The end of a turn."""
        self._count(key, -1)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters:
            place = self._waiters.popleft()
            if not place.done():
                return place.set_result(None)
        self.running -= 1
        return None

    def _leave_queue(self, place: "asyncio.Future[None]") -> None:
        if place.done() and not place.cancelled():  # a turn was given to one who left in that moment
            self._pass_on()
        else:
            with suppress(ValueError):  # it was skipped already
                self._waiters.remove(place)

    def _count(self, key: Key, by: int) -> None:
        if self._per_key is None or key is None:
            return
        self._keys[key] += by
        if not self._keys[key]:
            del self._keys[key]

    def _refusal(self, kind: str, why: str) -> Overloaded:
        self._note(_REFUSED, kind)
        return Overloaded(f"overloaded: {why}")


class Slot:
    """Use it as `async with admission.slot(key):`, once. Entering raises Overloaded."""

    __slots__ = ("_admission", "_key")

    def __init__(self, admission: Admission, key: Key) -> None:
        self._admission = admission
        self._key = key

    async def __aenter__(self) -> None:
        await self._admission.acquire(self._key)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission.release(self._key)
