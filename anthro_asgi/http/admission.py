"""Limits how many requests the engine answers at the same time, and how many wait (529 with `retry-after` beyond that).

A slot is the right to one answer of the engine. When all `limit` slots are taken, a request waits in a queue. When
`queue` requests wait, the next one is refused at once: requests that their clients have already given up would only
delay an engine that is behind.

    running <= limit        waiting <= queue        a released slot goes to the request that waits longest (`slots`)

A request of a batch takes a slot only while no request waits (`take_spare`). When a client's request has to wait, the
youngest request of a batch is asked to release its slot, which the client's request then gets.

`check` refuses a request before its body is read, when there is neither a slot nor a place in the queue. The last place
may be taken between `check` and `acquire`, so `acquire` checks again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Final

from ..wire import defaults
from ..wire.errors import Overloaded
from .slots import Slots

Key = bytes | None
Note = Callable[[str, str], object]
_REFUSED: Final = "refused"
_UNCOUNTED: Final = nullcontext()
_LAST_LOOK: Final = 0.1
"""Seconds after the deadline. When the whole process was stopped, a slot that became free meanwhile is still taken."""


def _do_nothing() -> None:
    pass


class Admission:
    """The slots of one engine, in one event loop.

    Args:
        limit: slots.
        queue: requests that may wait for one.
        timeout: seconds that a request waits at most.
        per_key: slots, places in the queue and uploads that one API key may have; None is no limit.
        keys: counts these for each API key. Two instances can share it, and with it the limit.
        note: is called for each refusal with "refused" and "queue_full", "queue_timeout" or "key".

    Attributes:
        when_free: is called, if set, when a slot becomes free that no client waits for.
    """

    def __init__(
        self,
        limit: int = defaults.MAX_CONCURRENCY,
        queue: int = defaults.MAX_QUEUE,
        timeout: float = defaults.QUEUE_TIMEOUT,
        per_key: int | None = None,
        note: Note = lambda what, kind: None,
        keys: Counter[bytes] | None = None,
    ) -> None:
        self.queue = queue
        self._slots = Slots(limit)
        self._timeout = timeout
        self._per_key = per_key
        self._note = note
        self.keys: Counter[bytes] = Counter() if keys is None else keys
        self.spare_running = 0  # of `running`
        self._spare: dict[SpareSlot, None] = {}  # those that may be asked to give up their slot, the youngest last
        self.when_free: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Admission running={self.running}/{self._slots.limit} waiting={self.waiting}/{self.queue}>"

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return self._slots.running

    @property
    def clients_running(self) -> int:
        """How many of them are requests of clients."""
        return self._slots.running - self.spare_running

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._slots.waiting

    def check(self, key: Key = None) -> None:
        """Raises Overloaded when a request with this key would get neither a slot nor a place in the queue."""
        if self._slots.are_taken and self._slots.waiting >= self.queue + self.spare_running:
            raise self._refusal("queue_full", "too many requests are waiting")
        if self._per_key is not None and key is not None and self.keys[key] >= self._per_key:
            raise self._refusal("key", f"this API key has {self._per_key} requests open, which is its limit")

    def uploading(self, key: Key) -> AbstractContextManager[None]:
        """Count a request against its API key while its body is read, before it has a slot. Raises Overloaded.

        Bodies that are being read take memory. Without this, one key could have any number of them.
        """
        self.check(key)
        return _UNCOUNTED if self._per_key is None or key is None else self._counted(key)

    @contextmanager
    def _counted(self, key: bytes) -> Iterator[None]:
        self._count(key, 1)
        try:
            yield
        finally:
            self._count(key, -1)

    def slot(self, key: Key = None, acquired: Callable[[], None] = _do_nothing) -> "Slot":
        """A slot, which is acquired by entering it. `acquired` is then called."""
        return Slot(self, key, acquired)

    async def acquire(self, key: Key) -> None:
        """Wait for a slot. Raises Overloaded."""
        self.check(key)
        self._count(key, 1)
        if self._slots.take():
            return
        if self._spare:
            self._spare.popitem()[0].give_up()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                timer = loop.call_later(self._timeout, lambda: limit.reschedule(loop.time() + _LAST_LOOK))
                try:
                    await self._slots.wait()
                finally:
                    timer.cancel()
        except BaseException as exc:
            self._count(key, -1)
            self._tell_free()  # the slot may have been given to this request just now
            if isinstance(exc, TimeoutError):
                raise self._refusal("queue_timeout", f"no slot was free within {self._timeout:g} s") from None
            raise

    def release(self, key: Key) -> None:
        """Give a slot back."""
        self._count(key, -1)
        self._slots.release()
        self._tell_free()

    def _tell_free(self) -> None:
        if self.when_free is not None and not self._slots.are_taken:
            self.when_free()

    def take_spare(self, give_up: Callable[[], object]) -> "SpareSlot | None":
        """A slot for a request of a batch, if one is free and no client waits.

        `give_up` is called at most once, when a client waits for the slot: it must be released soon.
        """
        if self._slots.waiting or not self._slots.take():
            return None
        self.spare_running += 1
        slot = SpareSlot(self, give_up)
        self._spare[slot] = None
        return slot

    def release_spare(self, slot: "SpareSlot") -> None:
        """Give a spare slot back."""
        self._spare.pop(slot, None)
        self.spare_running -= 1
        self._slots.release()
        self._tell_free()

    def _count(self, key: Key, by: int) -> None:
        if self._per_key is None or key is None:
            return
        self.keys[key] += by
        if not self.keys[key]:
            del self.keys[key]

    def _refusal(self, kind: str, why: str) -> Overloaded:
        self._note(_REFUSED, kind)
        return Overloaded(f"overloaded: {why}", reason=kind)


class Slot:
    """Use it once, as `async with admission.slot(key):`. Entering raises Overloaded."""

    __slots__ = ("_acquired", "_admission", "_key")

    def __init__(self, admission: Admission, key: Key, acquired: Callable[[], None] = _do_nothing) -> None:
        self._acquired = acquired
        self._admission = admission
        self._key = key

    async def __aenter__(self) -> None:
        await self._admission.acquire(self._key)
        self._acquired()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission.release(self._key)


class SpareSlot:
    """A slot that no client needed when it was taken. Release it once."""

    __slots__ = ("_admission", "give_up")

    def __init__(self, admission: Admission, give_up: Callable[[], object]) -> None:
        self._admission = admission
        self.give_up = give_up

    def release(self) -> None:
        self._admission.release_spare(self)
