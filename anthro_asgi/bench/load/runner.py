"""Sends the requests of a run, in a closed or an open loop, and ends it.

Closed loop: `concurrency` clients, each of which sends its next request when it has its answer. A request's clock
starts when it is written, or when its connection is begun. This loop has coordinated omission: while a server stalls,
no client sends, and the requests that would have waited are in no percentile. It measures throughput and cost.

Open loop: the moments of the requests are fixed beforehand, and each latency counts from that moment, not from when the
generator sent the request. No answer delays an arrival. At most `max_open` requests are open, to bound memory; one that
arrives beyond that is the error `not sent`. How late the generator itself was is reported too.

A request that times out is in the percentiles with the time that it waited. A request that is open when the run ends is
`unfinished`; it counts only for the time to first token, in the same way, if it had no token.

A conversation of several turns sends its next turn when it has the answer to the one before: in the closed loop in its
client's place, in the open loop besides the arrivals, which begin conversations.

Warm-up and counted part are one flow without a pause: counting begins when `warmup` requests have ended. Requests that
began before do not count, but the tokens that they receive afterwards do.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic_ns
from typing import Final

from ...simulator.timerfd import Alarm
from ..counting import Api
from .exchange import Connections, Exchange
from .tally import Tally
from .target import ARRIVALS
from .workload import Conversation, Workload

_BILLION: Final = 1_000_000_000
_TICK: Final = 0.2  # seconds
_PAUSE: Final = 0.05  # seconds until a client of the closed loop that could not connect tries again


@dataclass(frozen=True, slots=True)
class Plan:
    """`concurrency` is set for the closed loop, `rate` (requests/s) for the open one. Times are in seconds."""

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
    """The requests. `warm` is set when the warm-up is over, `over` when all counted requests have ended."""

    def __init__(
        self, plan: Plan, connections: Connections, workload: Workload, tally: Tally, each: Each | None
    ) -> None:
        self.warm = asyncio.Event()
        self.over = asyncio.Event()
        self.open: set[Exchange] = set()
        self.done = 0
        self._plan = plan
        self._connections = connections
        self._workload = workload
        self._tally = tally
        self._each = each
        self._loop = asyncio.get_running_loop()
        self._left: float = inf
        self._counted = 0  # open requests that count
        self._until: float = inf
        self._stopped = False
        self._alarm: Alarm | None = None
        self._moments: Iterator[int] = iter(())
        self._next = 0
        self._joined = 0

    def count(self) -> None:
        """Start counting. Raises ProcessLookupError when a process to be measured does not exist."""
        plan = self._plan
        self._tally.begin()
        self.done = 0
        self._left = plan.requests or inf
        self._until = self._tally.began + (plan.duration or inf) * _BILLION

    def start(self) -> None:
        """Start the clients or the arrivals."""
        plan = self._plan
        if plan.concurrency is not None:
            for number in range(plan.concurrency):
                self._loop.call_later(number * plan.ramp / plan.concurrency, self._join)
            return
        start = monotonic_ns()
        offsets = ARRIVALS[plan.arrivals](plan.rate or 0.0, plan.burst, plan.seed)
        self._moments = (start + round(offset * _BILLION) for offset in offsets)
        self._alarm = Alarm(self._arrive)
        self._next = next(self._moments)
        self._alarm.set(self._next)

    def _join(self) -> None:
        self._joined += 1
        self._begin(0)

    def _arrive(self) -> None:
        alarm = self._alarm
        while self._next <= monotonic_ns() and self._wanted():
            self._begin(self._next)
            self._next = next(self._moments)
        if alarm is not None and self._wanted():
            alarm.set(self._next)

    def _wanted(self) -> bool:
        return not self._stopped and self._left > 0 and self._next < self._until

    def _begin(self, due: int, conversation: Conversation | None = None) -> None:
        if self._stopped or self._left <= 0:
            return
        tally, plan, counted = self._tally, self._plan, self._tally.counting
        self._left -= 1
        self._counted += counted
        conversation = conversation or self._workload.begin()
        exchange = Exchange(conversation, plan.api, plan.stream, counted, tally, self._finished, due)
        self.open.add(exchange)
        if due:
            if counted:
                tally.late.add(monotonic_ns() - due)
            if len(self.open) > plan.max_open:
                exchange.fail("not sent")
                return
        self._connections.send(exchange)

    def _finished(self, exchange: Exchange) -> None:
        connection, exchange.connection = exchange.connection, None
        if not exchange.over:
            self._connections.send_anew(exchange)
            return
        if connection is not None:
            self._connections.give_back(connection)
        self.open.discard(exchange)
        self.done += 1
        if exchange.counted:
            self._counted -= 1
            self._tally.record(exchange)
            if self._each is not None:
                self._each(exchange)
        if exchange.next_turn:
            self._begin(0 if self._alarm is None else monotonic_ns(), exchange.conversation)
        elif self._alarm is None and exchange.error == "connect":
            self._loop.call_later(_PAUSE, self._begin, 0)
        elif self._alarm is None:
            self._begin(0)
        self._look()

    def _look(self) -> None:
        if self.done >= self._plan.warmup and (self._alarm is not None or self._joined == self._plan.concurrency):
            self.warm.set()
        if not self._counted and (self._stopped or self._left <= 0):
            self.over.set()

    def stop(self) -> None:
        """Begin no more requests, except those that are due already."""
        if self._alarm is not None:
            self._arrive()
            self._alarm.close()
        self._stopped = True
        self._look()

    def expire(self) -> None:
        """Fail the requests that have reached their timeout."""
        oldest = monotonic_ns() - round(self._plan.timeout * _BILLION)
        for exchange in [exchange for exchange in self.open if 0 < exchange.due < oldest]:
            exchange.fail("timeout")

    def abandon(self) -> None:
        """End all open requests as unfinished; begin no more."""
        self.stop()
        for exchange in list(self.open):
            exchange.fail("unfinished")


Watch = Callable[[str, Flow, Tally], None]
"""Called a few times per second with the name of the current part of the run."""


class Run:
    """A whole run: warm-up, counted part, and the drain of open requests. Needs a running event loop."""

    def __init__(
        self,
        plan: Plan,
        connections: Connections,
        workload: Workload,
        tally: Tally,
        watch: Watch,
        each: Each | None = None,
    ) -> None:
        self.interrupted = False
        self._plan = plan
        self._connections = connections
        self._tally = tally
        self._watch = watch
        self._flow = Flow(plan, connections, workload, tally, each)
        self._interrupt = asyncio.Event()

    def interrupt(self) -> None:
        """End the run now, with what was counted so far."""
        self.interrupted = True
        self._interrupt.set()

    async def run(self) -> None:
        """Raises ProcessLookupError when a process to be measured does not exist."""
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
            await self._connections.close()

    async def _until(self, event: asyncio.Event, seconds: float | None) -> None:
        """Wait for the event, for at most `seconds`, or until the run is interrupted."""
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
            self._tally.sample()
            part = "warm-up" if not self._tally.began else "load" if self._tally.counting else "drain"
            self._watch(part, self._flow, self._tally)
