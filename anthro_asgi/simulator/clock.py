"""The simulator's clock: tells the time and wakes thousands of streams, exact to a fraction of a millisecond.

An event loop's own timers are too coarse for tokens: they count in whole milliseconds, uvloop's `time()` is that of the
beginning of the loop's iteration, and each sleep costs a timer, a future and a task wake-up. So one alarm serves all
streams. It is set for the stream that is due next and wakes it from its callback; a stream that an InlineDriver runs
continues inside that callback.
"""

import asyncio
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final, Protocol

from .timerfd import alarm_for

_YIELD_EVERY: Final = 64  # streams woken in one iteration of the loop, so that other tasks run in between


class Sleeper(Protocol):
    """Waits on behalf of one stream, many times."""

    async def until(self, when: float) -> None:
        """Return at `when` or later. Lets other tasks run even if `when` has passed."""


class Clock(Protocol):
    """`time` is in seconds from any origin."""

    def time(self) -> float: ...

    def sleeper(self) -> Sleeper: ...

    def close(self) -> None:
        """Release system resources. No stream may be waiting."""


class LoopClock:
    """The machine's monotonic clock; waits on the event loop that runs at the time of the call."""

    def __init__(self) -> None:
        self._queue: _AlarmQueue | None = None

    def time(self) -> float:
        return monotonic()

    def sleeper(self) -> Sleeper:
        loop = asyncio.get_running_loop()
        if self._queue is None or self._queue.loop is not loop:
            self.close()
            self._queue = _AlarmQueue(loop)
        return _LoopSleeper(self._queue)

    def close(self) -> None:
        if self._queue is not None:
            self._queue.alarm.close()
            self._queue = None


class _AlarmQueue:
    """The streams that wait on one loop, ordered by time."""

    __slots__ = ("_due", "_ringing", "_serial", "_set_for", "alarm", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.alarm = alarm_for(self._ring)
        self._due: list[tuple[float, int, _LoopSleeper]] = []
        self._serial = count()  # keeps naps themselves from being compared
        self._set_for = 0.0
        self._ringing = False

    def add(self, when: float, sleeper: "_LoopSleeper") -> None:
        heappush(self._due, (when, next(self._serial), sleeper))
        if self._due[0][0] != self._set_for and not self._ringing:
            self._wind()

    def _wind(self) -> None:
        self._set_for = self._due[0][0]
        self.alarm.set(int(self._set_for * 1e9) + 1)

    def _ring(self) -> None:
        due, now, left = self._due, monotonic(), _YIELD_EVERY
        self._ringing = True
        try:
            while due and due[0][0] <= now and left:
                left -= 1
                when, _, sleeper = heappop(due)
                sleeper.wake(when)
        finally:
            self._ringing = False
            self._set_for = 0.0
            if due:
                self._wind()


class _Waiter(asyncio.Future[None]):
    """Awaited by one stream at a time. A `Drive` sets `resume`, and `wake` then calls it instead of setting a result.

    The upstream connection has the same small class: no room that both may import knows an event loop.
    """

    __slots__ = ("resume", "waits")

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.resume: Callable[[], None] | None = None
        self.waits = False  # whether a stream awaits it now

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # the mark by which a task recognises a future
        self.waits = True
        try:
            yield self
        finally:
            self.waits = False

    def wake(self) -> None:
        """Resume the stream that waits, if any."""
        if self.waits:
            if self.resume is not None:
                self.resume()
            elif not self.done():
                self.set_result(None)


class _LoopSleeper:
    """The sleeper of one stream. An InlineDriver lets it use one waiter for all tokens."""

    __slots__ = ("_queue", "_waiter", "_when")

    def __init__(self, dial: _AlarmQueue) -> None:
        self._queue = dial
        self._waiter = _Waiter(loop=dial.loop)
        self._when = 0.0

    async def until(self, when: float) -> None:
        if self._waiter.done():
            self._waiter = _Waiter(loop=self._queue.loop)
        self._when = when
        self._queue.add(when, self)
        await self._waiter

    def wake(self, when: float) -> None:
        if when == self._when:
            self._waiter.wake()
