"""What a run counts, and when.

The counted part lasts from `begin` to `freeze`. Tokens, the intervals between them and their transit times count during
that time. A request counts when it began in that time, to its end, which may be later, so that slow requests are
included.
"""

import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from time import monotonic_ns
from typing import Final, Protocol

from ..processes import Cost, Meter
from ..records import Percentiles

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Samples:
    """Durations in nanoseconds, 8 bytes each: `add(value)`, or `zeros += n` for tokens that arrive together."""

    __slots__ = ("_values", "add", "zeros")

    def __init__(self) -> None:
        self.zeros = 0
        self._values = array("q")
        self.add = self._values.append

    def __len__(self) -> int:
        return self.zeros + len(self._values)

    def summary(self) -> Percentiles:
        """Each percentile is the smallest value that is not exceeded by that share of the samples."""
        count = len(self)
        if not count:
            return {**dict.fromkeys(PERCENTILES), "n": 0}
        ordered = sorted(self._values)
        places = {name: max(1, ceil(part * count)) - 1 - self.zeros for name, part in PERCENTILES.items()}
        found = {name: ordered[place] / 1e9 if place >= 0 else 0.0 for name, place in places.items()}
        return {**found, "n": count}


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits of a good request in seconds; None is no limit. `itl` limits its mean inter-token latency."""

    ttft: float | None = None
    itl: float | None = None
    e2e: float | None = None

    def __bool__(self) -> bool:
        return (self.ttft, self.itl, self.e2e) != (None, None, None)

    def holds(self, ttft: int, itl: float, e2e: int) -> bool:
        """Whether a request with these times, in nanoseconds, is good."""
        pairs = ((self.ttft, ttft), (self.itl, itl), (self.e2e, e2e))
        return all(limit is None or took <= limit * 1e9 for limit, took in pairs)


class Finished(Protocol):
    """A request that has ended. Moments are in nanoseconds, 0 for what did not happen."""

    due: int
    first: int
    last: int
    over: int
    tokens: int
    error: str | None


@dataclass(slots=True)
class Tally:
    """All results of a run. Times are in nanoseconds of `time.monotonic_ns`."""

    slo: Slo
    meter: Meter | None
    counting: bool = False
    tokens: int = 0
    ok: int = 0
    good: int = 0
    unfinished: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    ttft: Samples = field(default_factory=Samples)
    itl: Samples = field(default_factory=Samples)
    e2e: Samples = field(default_factory=Samples)
    transit: Samples = field(default_factory=Samples)
    late: Samples = field(default_factory=Samples)
    """How late requests of the open loop were begun."""
    began: int = 0
    seconds: float = 0.0
    client_cpu: float = 0.0
    server: Cost | None = None

    @property
    def requests(self) -> int:
        """Requests that ended, successfully or not."""
        return self.ok + self.errors.total()

    def begin(self) -> None:
        """Start counting. Raises ProcessLookupError when a process to be measured does not exist."""
        if self.meter is not None:
            self.meter.start()
        self.counting = True
        self.client_cpu = time.process_time()
        self.began = monotonic_ns()

    def freeze(self) -> None:
        """Stop counting tokens and cost. Has no effect the second time."""
        if not self.counting:
            return
        self.counting = False
        self.seconds = (monotonic_ns() - self.began) / 1e9
        self.client_cpu = time.process_time() - self.client_cpu
        if self.meter is not None:
            self.server = self.meter.stop()

    def record(self, exchange: Finished) -> None:
        """Count a request that has ended."""
        error, took = exchange.error, exchange.over - exchange.due
        if error == "unfinished":
            self.unfinished += 1
        elif error is not None:
            self.errors[error] += 1
        else:
            self.ok += 1
            gaps = exchange.tokens - 1
            mean = (exchange.last - exchange.first) / gaps if gaps > 0 else 0.0
            ttft = exchange.first - exchange.due if exchange.first else took
            self.good += self.slo.holds(ttft, mean, took)
        if error in ("unfinished", "timeout") and not exchange.first and exchange.due:
            self.ttft.add(took)
        if error in (None, "timeout"):
            self.e2e.add(took)

    def sample(self) -> None:
        """Read the meter. Call it a few times per second."""
        if self.counting and self.meter is not None:
            self.meter.sample()
