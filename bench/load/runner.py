"""Sends the requests of a run, closed loop or open, and ends it.

Closed loop: so many clients, each of whom asks again when it has its answer. A request's clock starts when it is
written, or when its connection is begun. This loop cannot see what it never asks: while a server stalls no client asks,
and the requests that would have come meanwhile, and waited, are in no percentile. It is for throughput and cost.

Open loop: requests come at moments fixed beforehand, whatever becomes of those before, and the latency of each is
counted from its moment, not from when this program got round to it: that is coordinated omission avoided. No answer
delays an arrival. Only `max_open` may be open at once, to bound memory: one that comes when that many are is the error
`not sent`, and is counted. How late this program was itself is reported too.

A request that times out is in the percentiles of what it waited for, with the time it waited, since it would have taken
longer. One that is still open when the run ends is `unfinished`, and is in none but that of the first token, in the
same way, if it had none.

Warm-up and counted part are one flow: counting begins when so many requests have ended, without a pause after which all
clients would ask at once. Requests begun before are not counted, but the tokens that they still get are.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic_ns
from typing import Final

from anthro_asgi.simulator.timerfd import Alarm

from ..counting import Api
from .arrivals import ARRIVALS
from .exchange import Exchange
from .lines import Lines
from .tally import Tally

_BILLION: Final = 1_000_000_000
_TICK: Final = 0.2  # seconds
_PAUSE: Final = 0.05  # seconds until a client of the closed loop that could not connect tries again


@dataclass(frozen=True, slots=True)
class Plan:
    """How much, and when. `concurrency` is the closed loop's, or else `rate` (requests/s) the open loop's.

    `ramp`, `duration`, `timeout` and `drain` are in seconds.
    """

    api: Api
    stream: bool
    concurrency: int | None
    ramp: float
    rate: float | None
    arrivals: str
    burst: int
    max_open: int
    requests: int | None
    duration: float | None
    warmup: int
    timeout: float
    drain: float
    seed: int


Each = Callable[[Exchange], None]


class Flow:
    """The requests. `warm` is set when the warm-up is over, `over` when all that count have ended.

    Made inside a running event loop.
    """

    def __init__(self, plan: Plan, lines: Lines, tally: Tally, each: Each | None) -> None:
        self.warm = asyncio.Event()
        self.over = asyncio.Event()
        self.open: set[Exchange] = set()
        self.done = 0
        self._plan = plan
        self._lines = lines
        self._tally = tally
        self._each = each
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(random.Random(plan.seed).randrange(10**6) * 10**6)  # noqa: S311 (nothing secret)
        self._left: float = inf
        self._counted = 0  # of those open
        self._until: float = inf
        self._stopped = False
        self._alarm: Alarm | None = None
        self._moments: Iterator[int] = iter(())
        self._next = 0
        self._ramped = 0

    def count(self) -> None:
        """Requests count from here. Raises ProcessLookupError when a process to be measured is not there."""
        plan = self._plan
        self._tally.begin()
        self.done = 0
        self._left = plan.requests or inf
        self._until = self._tally.began + (plan.duration or inf) * _BILLION

    # ---- requests begin

    def start(self) -> None:
        """Let the clients come, or the requests."""
        plan = self._plan
        if plan.concurrency is not None:
            for number in range(plan.concurrency):
                self._loop.call_later(number * plan.ramp / plan.concurrency, self._join)
            return
        assert plan.rate is not None
        start = monotonic_ns()
        offsets = ARRIVALS[plan.arrivals](plan.rate, plan.burst, plan.seed)
        self._moments = (start + round(offset * _BILLION) for offset in offsets)
        self._alarm = Alarm(self._arrive)
        self._next = next(self._moments)
        self._alarm.set(self._next)

    def _join(self) -> None:
        self._ramped += 1
        self._begin(0)

    def _arrive(self) -> None:
        assert self._alarm is not None
        while self._next <= monotonic_ns() and self._wanted():
            self._begin(self._next)
            self._next = next(self._moments)
        if self._wanted():
            self._alarm.set(self._next)

    def _wanted(self) -> bool:
        return not self._stopped and self._left > 0 and self._next < self._until

    def _begin(self, due: int) -> None:
        if self._stopped or self._left <= 0:
            return
        tally, plan, counted = self._tally, self._plan, self._tally.counting
        self._left -= 1
        self._counted += counted
        exchange = Exchange(next(self._numbers), plan.api, plan.stream, counted, tally, self._finished, due)
        self.open.add(exchange)
        if due:
            if counted:
                tally.late.add(monotonic_ns() - due)
            if len(self.open) > plan.max_open:
                exchange.fail("not sent")
                return
        self._lines.send(exchange)

    # ---- requests end

    def _finished(self, exchange: Exchange) -> None:
        connection, exchange.connection = exchange.connection, None
        if not exchange.over:
            self._lines.send_anew(exchange)
            return
        if connection is not None:
            self._lines.rest(connection)
        self.open.discard(exchange)
        self.done += 1
        if exchange.counted:
            self._counted -= 1
            self._tally.record(exchange)
            if self._each is not None:
                self._each(exchange)
        if self._alarm is None:
            self._again(exchange)
        self._look()

    def _again(self, exchange: Exchange) -> None:
        if exchange.error == "connect":
            self._loop.call_later(_PAUSE, self._begin, 0)
        else:
            self._begin(0)

    def _look(self) -> None:
        if self.done >= self._plan.warmup and (self._alarm is not None or self._ramped == self._plan.concurrency):
            self.warm.set()
        if not self._counted and (self._stopped or self._left <= 0):
            self.over.set()

    def stop(self) -> None:
        """Begin no more, but those whose moment has come."""
        if self._alarm is not None:
            self._arrive()
            self._alarm.close()
        self._stopped = True
        self._look()

    def expire(self) -> None:
        """Fail those that have waited too long."""
        oldest = monotonic_ns() - round(self._plan.timeout * _BILLION)
        for exchange in [exchange for exchange in self.open if 0 < exchange.due < oldest]:
            exchange.fail("timeout")

    def abandon(self) -> None:
        """Give up those that are open; begin no more."""
        self.stop()
        for exchange in list(self.open):
            exchange.fail("unfinished")


Watch = Callable[[str, Flow, Tally], None]
"""Told a few times a second: the name of the part that runs, the requests, what was counted."""


class Run:
    """A whole run: warm-up, counted part, and what is left of it. Made inside a running event loop."""

    def __init__(self, plan: Plan, lines: Lines, tally: Tally, watch: Watch, each: Each | None = None) -> None:
        self.interrupted = False
        self._plan = plan
        self._lines = lines
        self._tally = tally
        self._watch = watch
        self._flow = Flow(plan, lines, tally, each)
        self._interrupt = asyncio.Event()

    def interrupt(self) -> None:
        """End it now, with what was counted so far."""
        self.interrupted = True
        self._interrupt.set()

    async def run(self) -> None:
        """Raises ProcessLookupError when a process to be measured is not there."""
        plan, flow = self._plan, self._flow
        ticker = asyncio.create_task(self._tick())
        try:
            if plan.warmup:
                flow.start()
                await self._until(flow.warm, None)
                flow.count()
            else:
                flow.count()
                flow.start()
            await self._until(flow.over, plan.duration)
            flow.stop()
            self._tally.freeze()
            await self._until(flow.over, plan.drain)
        finally:
            self._tally.freeze()
            flow.abandon()
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            await self._lines.close()

    async def _until(self, event: asyncio.Event, seconds: float | None) -> None:
        """Wait for the event, for so long at most, or until the run is interrupted."""
        waiting = [asyncio.create_task(one.wait()) for one in (event, self._interrupt)]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK, self._plan.timeout / 10))
            self._flow.expire()
            self._tally.settle()
            self._watch(self._part(), self._flow, self._tally)

    def _part(self) -> str:
        if not self._tally.began:
            return "warm-up"
        return "load" if self._tally.counting else "drain"
