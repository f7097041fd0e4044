"""A limited number of slots, which tasks get in order of arrival. A slot is the right to one answer of an engine.

A slot that is released goes to the task that waits longest. So a task that comes later gets no slot before one that
waits.

Editors: each change of state is one step without an `await`, so that a cancellation cannot lose a slot. A task that is
cancelled just after it got a slot gives it to the next one.
"""

import asyncio
from collections import deque
from contextlib import suppress


class Slots:
    """`limit` slots of one event loop; None is no limit."""

    __slots__ = ("_waiters", "limit", "running")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        most = "" if self.limit is None else f"/{self.limit}"
        return f"<{type(self).__name__} running={self.running}{most} waiting={self.waiting}>"

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiters)

    @property
    def are_taken(self) -> bool:
        """Whether the next task has to wait."""
        return self.limit is not None and self.running >= self.limit

    def take(self) -> bool:
        """Take a slot if one is free; returns whether it was."""
        if self.limit is not None and self.running >= self.limit:
            return False
        self.running += 1
        return True

    async def wait(self) -> None:
        """Wait for a slot, which `take` did not give."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(slot)
        try:
            await slot
        except BaseException:
            if slot.done() and not slot.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # `release` has removed it already
                    self._waiters.remove(slot)
            raise

    def release(self) -> None:
        """Give a slot back."""
        while self._waiters:
            slot = self._waiters.popleft()
            if not slot.done():
                return slot.set_result(None)
        self.running -= 1
        return None
