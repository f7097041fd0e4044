"""Limits how many answers run at one time; the others wait in order of arrival."""

import asyncio
from collections import deque
from types import TracebackType

from ..wire.errors import Overloaded


class RequestQueue:
    """`async with` it to run. At most `most` run and `waiting` wait; None is no limit. Raises Overloaded."""

    __slots__ = ("_most", "_queue", "_waiting", "running")

    def __init__(self, most: int | None = None, waiting: int | None = None) -> None:
        self.running = 0
        self._most = most
        self._waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        most = "" if self._most is None else f"/{self._most}"
        return f"<RequestQueue running={self.running}{most} waiting={len(self._queue)}>"

    async def __aenter__(self) -> None:
        if self._most is None or self.running < self._most:
            self.running += 1
            return
        if self._waiting is not None and len(self._queue) >= self._waiting:
            raise Overloaded("too many requests are waiting")
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():  # it got a slot and is cancelled at the same moment
                self._pass_on()
            else:
                self._queue.remove(slot)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the slot to the first request that waits."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self.running -= 1
