"""How many answers run at one time, and who waits for that: first come, first served."""

import asyncio
from collections import deque
from types import TracebackType

from ..wire.errors import Overloaded


class Gate:
    """`async with` it to run. `most` run, the next `waiting` wait; None is no limit. Raises Overloaded beyond that."""

    __slots__ = ("_most", "_queue", "_waiting", "running")

    def __init__(self, most: int | None = None, waiting: int | None = None) -> None:
        self.running = 0
        self._most = most
        self._waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        most = "" if self._most is None else f"/{self._most}"
        return f"<Gate running={self.running}{most} waiting={len(self._queue)}>"

    async def __aenter__(self) -> None:
        if self._most is None or self.running < self._most:
            self.running += 1
            return
        if self._waiting is not None and len(self._queue) >= self._waiting:
            raise Overloaded("too many requests wait already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn had come
                self._pass_on()
            else:
                self._queue.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """The place of one that ran goes to the next one in the queue."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self.running -= 1
