"""What is counted, and when.

The counted part goes from `begin` to `freeze`. Tokens, the gaps between them and their transit are counted while it
lasts. Requests count that were begun in it, to their end, which may be later, so that the slow ones are not lost.
"""

import time
from collections import Counter as Counts
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Protocol

from ..process import Cost, Meter
from .samples import Samples


@dataclass(frozen=True, slots=True)
class Slo:
    """What a good request keeps to, in seconds; None is no limit. `itl` is of its mean inter-token latency."""

    ttft: float | None = None
    itl: float | None = None
    e2e: float | None = None

    def __bool__(self) -> bool:
        return (self.ttft, self.itl, self.e2e) != (None, None, None)

    def holds(self, ttft: int, itl: float, e2e: int) -> bool:
        """Whether a request with these times, in nanoseconds, was good."""
        pairs = ((self.ttft, ttft), (self.itl, itl), (self.e2e, e2e))
        return all(limit is None or took <= limit * 1e9 for limit, took in pairs)


class Finished(Protocol):
    """What is counted of a request; moments are 0 where there was none."""

    due: int
    first: int
    last: int
    over: int
    tokens: int
    error: str | None


@dataclass(slots=True)
class Tally:
    """Everything that a run finds out. Times are in nanoseconds of `time.monotonic_ns`."""

    slo: Slo
    meter: Meter | None
    counting: bool = False
    tokens: int = 0
    ok: int = 0
    good: int = 0
    unfinished: int = 0
    errors: Counts[str] = field(default_factory=Counts)
    ttft: Samples = field(default_factory=Samples)
    itl: Samples = field(default_factory=Samples)
    e2e: Samples = field(default_factory=Samples)
    transit: Samples = field(default_factory=Samples)
    late: Samples = field(default_factory=Samples)
    """How long after its moment a request of the open loop was begun."""
    began: int = 0
    seconds: float = 0.0
    client_cpu: float = 0.0
    server: Cost | None = None

    @property
    def requests(self) -> int:
        """Those that ended, well or not."""
        return self.ok + self.errors.total()

    def begin(self) -> None:
        """Count from here. Raises ProcessLookupError when a process to be measured is not there."""
        if self.meter is not None:
            self.meter.start()
        self.counting = True
        self.client_cpu = time.process_time()
        self.began = monotonic_ns()

    def freeze(self) -> None:
        """Count tokens and cost to here. Has no effect the second time."""
        if not self.counting:
            return
        self.counting = False
        self.seconds = (monotonic_ns() - self.began) / 1e9
        self.client_cpu = time.process_time() - self.client_cpu
        if self.meter is not None:
            self.server = self.meter.stop()

    def record(self, exchange: Finished) -> None:
        """A request is over."""
        error, took = exchange.error, exchange.over - exchange.due
        if error == "unfinished":
            self.unfinished += 1
        elif error is not None:
            self.errors[error] += 1
        else:
            self.ok += 1
            self._judge(exchange, took)
        if error in ("unfinished", "timeout") and not exchange.first and exchange.due:
            self.ttft.add(took)
        if error in (None, "timeout"):
            self.e2e.add(took)

    def _judge(self, exchange: Finished, took: int) -> None:
        gaps = exchange.tokens - 1
        mean = (exchange.last - exchange.first) / gaps if gaps > 0 else 0.0
        ttft = exchange.first - exchange.due if exchange.first else took
        self.good += self.slo.holds(ttft, mean, took)

    def settle(self) -> None:
        """To be called a few times a second."""
        for samples in (self.ttft, self.itl, self.e2e, self.transit, self.late):
            samples.settle()
        if self.counting and self.meter is not None:
            self.meter.sample()
