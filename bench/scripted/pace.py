"""When each stream writes its next token: as fast as its client reads, or on a schedule.

A stream is stepped, which writes one token, until it is done. A stream whose client does not read is held: it is not
stepped until it is resumed.

Saturated: each stream that is not held writes one token per event loop iteration. So no stream gets ahead of the
others, and other sockets are served between the tokens.

Paced: a stream has a grid of moments, one interval apart, and writes at each. A late token does not delay the next one.
The grids are offset by multiples of the golden ratio, which spreads any number of streams evenly; the first token is
written at once, as after a prefill. In lockstep all streams share one grid and the first token waits for it, as in an
engine that decodes in batches. A stream that was held continues at its next moment and skips those that it missed.
Where the machine cannot keep the pace, other sockets are served after a bounded number of tokens.
"""

import asyncio
from collections import deque
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Final, Protocol

from anthro_asgi.simulator.timerfd import Alarm

_GOLDEN: Final = 0.6180339887498949
_BILLION: Final = 1_000_000_000
_STEPS: Final = 1_000  # tokens in a row


class Steps(Protocol):
    """A stream as a pace sees it. Only the pace uses `queued` and `phase`."""

    held: bool
    done: bool
    queued: bool
    phase: int

    def step(self) -> None:
        """Write one token; end after the last one."""


class Pace(Protocol):
    """Steps streams until they are done."""

    def begin(self, stream: Steps) -> None:
        """Take a new stream."""

    def resume(self, stream: Steps) -> None:
        """Continue a stream that was held."""

    def close(self) -> None:
        """Step no more."""


class Saturated:
    """As fast as the clients read. Needs a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Steps] = deque()
        self._scheduled = False

    def begin(self, stream: Steps) -> None:
        stream.queued = True
        self._ready.append(stream)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step_all)

    def resume(self, stream: Steps) -> None:
        if not stream.queued:
            self.begin(stream)

    def close(self) -> None:
        self._ready.clear()

    def _step_all(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            stream = ready.popleft()
            if not (stream.held or stream.done):
                stream.step()
            if stream.held or stream.done:
                stream.queued = False
            else:
                ready.append(stream)
        self._scheduled = bool(ready)
        if ready:
            self._loop.call_soon(self._step_all)


class Paced:
    """`rate` tokens/s of each stream. Needs a running event loop."""

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
        self.resume(stream)

    def resume(self, stream: Steps) -> None:
        if stream.queued or stream.held or stream.done:
            return
        stream.queued = True
        now = monotonic_ns()
        self._push(now + self._interval - (now - stream.phase) % self._interval, stream)
        self._set_alarm()

    def close(self) -> None:
        self._due.clear()
        self._alarm.close()

    def _push(self, due: int, stream: Steps) -> None:
        self._serial += 1  # keeps the heap from comparing streams
        heappush(self._due, (due, self._serial, stream))

    def _ring(self) -> None:
        self._set_for = 0
        due, now, interval = self._due, monotonic_ns(), self._interval
        for _ in range(_STEPS):
            if not due or due[0][0] > now:
                break
            moment, _, stream = heappop(due)
            if not (stream.held or stream.done):
                stream.step()
            if stream.held or stream.done:
                stream.queued = False
            else:
                self._push(moment + interval, stream)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._due and self._due[0][0] != self._set_for:
            self._set_for = self._due[0][0]
            self._alarm.set(self._set_for)
