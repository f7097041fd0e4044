"""When it is and how to wait, for thousands of streams at once and to a fraction of a millisecond.

An event loop's own timers are no clock for tokens: they count in whole milliseconds, uvloop's `time()` is that of the
turn's beginning, and each sleep is a timer, a future and a wake-up of its task. So there is one alarm for all streams,
set for the one that is due next, and who is due is woken from its callback; where a `InlineDriver` runs the stream (see
`drive`), it runs from there.
"""

import asyncio
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final, Protocol

from .timerfd import alarm_for

_TURN: Final = 64  # streams that are woken in one turn of the loop, the others having theirs between


class Nap(Protocol):
    """One stream's waiting, again and again."""

    async def until(self, when: float) -> None:
        """Return at `when` or later. Gives other tasks a turn even if `when` has passed."""


class Clock(Protocol):
    """`time` in seconds from any origin."""

    def time(self) -> float: ...

    def nap(self) -> Nap: ...

    def close(self) -> None:
        """Give back what the waiting took of the system. Nobody may be waiting."""


class LoopClock:
    """The machine's monotonic clock, and the running event loop to wait on: one at a time, whichever runs."""

    def __init__(self) -> None:
        self._dial: _Dial | None = None

    def time(self) -> float:
        return monotonic()

    def nap(self) -> Nap:
        loop = asyncio.get_running_loop()
        if self._dial is None or self._dial.loop is not loop:
            self.close()
            self._dial = _Dial(loop)
        return _Nap(self._dial)

    def close(self) -> None:
        if self._dial is not None:
            self._dial.alarm.close()
            self._dial = None


class _Dial:
    """Who waits on one loop, and for when."""

    __slots__ = ("_due", "_ringing", "_serial", "_set_for", "alarm", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.alarm = alarm_for(self._ring)
        self._due: list[tuple[float, int, _Nap]] = []
        self._serial = count()  # keeps naps themselves from being compared
        self._set_for = 0.0
        self._ringing = False

    def add(self, when: float, nap: "_Nap") -> None:
        heappush(self._due, (when, next(self._serial), nap))
        if self._due[0][0] != self._set_for and not self._ringing:
            self._wind()

    def _wind(self) -> None:
        self._set_for = self._due[0][0]
        self.alarm.set(int(self._set_for * 1e9) + 1)

    def _ring(self) -> None:
        due, now, left = self._due, monotonic(), _TURN
        self._ringing = True
        try:
            while due and due[0][0] <= now and left:
                left -= 1
                when, _, nap = heappop(due)
                nap.wake(when)
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


class _Nap:
    """A nap of one stream: the same waiter for all its tokens, as long as it is driven."""

    __slots__ = ("_dial", "_waiter", "_when")

    def __init__(self, dial: _Dial) -> None:
        self._dial = dial
        self._waiter = _Waiter(loop=dial.loop)
        self._when = 0.0

    async def until(self, when: float) -> None:
        if self._waiter.done():
            self._waiter = _Waiter(loop=self._dial.loop)
        self._when = when
        self._dial.add(when, self)
        await self._waiter

    def wake(self, when: float) -> None:
        if when == self._when:
            self._waiter.wake()
