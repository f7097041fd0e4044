"""When each stream writes its next token: as fast as its client takes them, or on a clock.

A stream is stepped, which writes one token, until it is done. One whose client does not read is held, and is not
stepped until it is resumed.

Saturated: the streams that are not held take turns, one token each in a turn of the event loop, so that none is ahead
and what arrives on other sockets is seen between turns.

Paced: a stream has a grid of moments, an interval apart, and writes at each. The grid never moves: a late token does
not make the next one late. Grids are offset by the golden ratio, which spreads any number of them evenly, and the first
token comes at once, as after a prefill; in lockstep there is one grid for all and the first token waits for it, as for
the next step of an engine that decodes in batches. A stream that was held goes on at its next moment and does not make
up for those it missed.
"""

import asyncio
from collections import deque
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Final, Protocol

from anthro_asgi.simulator.timerfd import Alarm

_GOLDEN: Final = 0.6180339887498949
_BILLION: Final = 1_000_000_000


class Steps(Protocol):
    """A stream, as far as a pace knows it. `queued` and `phase` are the pace's own."""

    held: bool
    done: bool
    queued: bool
    phase: int

    def step(self) -> None:
        """Write one token, and after the last one end."""


class Pace(Protocol):
    """Steps streams until they are done."""

    def begin(self, stream: Steps) -> None:
        """Take a new stream."""

    def resume(self, stream: Steps) -> None:
        """Go on with a stream that was held."""

    def close(self) -> None:
        """Step no more."""


class Saturated:
    """As fast as the clients read. Made inside a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Steps] = deque()
        self._turning = False

    def begin(self, stream: Steps) -> None:
        stream.queued = True
        self._ready.append(stream)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def resume(self, stream: Steps) -> None:
        if not stream.queued:
            self.begin(stream)

    def close(self) -> None:
        self._ready.clear()

    def _turn(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            stream = ready.popleft()
            if not (stream.held or stream.done):
                stream.step()
            if stream.held or stream.done:
                stream.queued = False
            else:
                ready.append(stream)
        self._turning = bool(ready)
        if ready:
            self._loop.call_soon(self._turn)


class Paced:
    """`rate` tokens a second of each stream. Made inside a running event loop."""

    def __init__(self, rate: float, lockstep: bool) -> None:
        self._interval = round(_BILLION / rate)
        self._lockstep = lockstep
        self._begun = 0
        self._serial = 0
        self._due: list[tuple[int, int, Steps]] = []
        self._alarm = Alarm(self._ring)
        self._set_for = 0

    def begin(self, stream: Steps) -> None:
        if self._lockstep:
            stream.phase = 0
        else:
            stream.phase = int(self._begun * _GOLDEN % 1.0 * self._interval)
            self._begun += 1
            stream.step()
        self._queue(stream)

    def resume(self, stream: Steps) -> None:
        if not stream.queued:
            self._queue(stream)

    def close(self) -> None:
        self._due.clear()
        self._alarm.close()

    def _queue(self, stream: Steps) -> None:
        if stream.held or stream.done:
            return
        stream.queued = True
        now = monotonic_ns()
        self._push(now + self._interval - (now - stream.phase) % self._interval, stream)
        self._wind()

    def _push(self, due: int, stream: Steps) -> None:
        # The serial number keeps streams themselves from being compared.
        self._serial += 1
        heappush(self._due, (due, self._serial, stream))

    def _ring(self) -> None:
        self._set_for = 0
        due, now, interval = self._due, monotonic_ns(), self._interval
        while due and due[0][0] <= now:
            moment, _, stream = heappop(due)
            if not (stream.held or stream.done):
                stream.step()
            if stream.held or stream.done:
                stream.queued = False
            else:
                self._push(moment + interval, stream)
        self._wind()

    def _wind(self) -> None:
        if self._due and self._due[0][0] != self._set_for:
            self._set_for = self._due[0][0]
            self._alarm.set(self._set_for)
