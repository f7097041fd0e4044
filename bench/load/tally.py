"""What a run counts, and when.

The counted part lasts from `begin` to `freeze`. Tokens, the intervals between them and their transit times count during
that time. A request counts when it began in that time, to its end, which may be later, so that slow requests are
included.
"""

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from time import monotonic_ns
from typing import Final, Protocol

from ..process import Cost, Meter
from ..records import Percentiles

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_EXACT: Final = 1 << 20
_BITS: Final = 7  # of a value that its bucket keeps, after the leading one


class Samples:
    """Durations in nanoseconds: `add(value)`, or `zeros += n` for tokens that arrive together.

    The first million values are kept and give exact percentiles. After that each value goes to one of 128 buckets per
    octave: percentiles are then exact to 0.4 %, and the maximum remains exact. `settle` makes that change, so that
    `add` never stalls.
    """

    __slots__ = ("_buckets", "_exact", "_limit", "_most", "add", "zeros")

    def __init__(self, limit: int = _EXACT) -> None:
        self.zeros = 0
        self._limit = limit
        self._exact = array("q")
        self._buckets: dict[int, int] = {}
        self._most = 0  # the largest value in the buckets
        self.add = self._exact.append

    def __len__(self) -> int:
        return self.zeros + len(self._exact) + sum(self._buckets.values())

    def settle(self) -> None:
        """Call it a few times per second."""
        if len(self._exact) > self._limit:
            self.add = self._bucket

    def summary(self) -> Percentiles:
        """Each percentile is the smallest value that is not exceeded by that share of the samples."""
        count = len(self)
        if not count:
            return {**dict.fromkeys(PERCENTILES), "n": 0}
        found = self._ranked([max(1, ceil(part * count)) for part in PERCENTILES.values()])
        found[-1] = float(max(self._most, max(self._exact, default=0)))
        return {**{name: value / 1e9 for name, value in zip(PERCENTILES, found, strict=True)}, "n": count}

    def _bucket(self, value: int) -> None:
        key = _key(value)
        self._buckets[key] = self._buckets.get(key, 0) + 1
        if value > self._most:
            self._most = value

    def _ranked(self, ranks: list[int]) -> list[float]:
        """The values at these ascending ranks, counted from 1."""
        found: list[float] = []
        passed = 0
        for value, count in self._ascending():
            passed += count
            while len(found) < len(ranks) and ranks[len(found)] <= passed:
                found.append(value)
        return found

    def _ascending(self) -> Iterator[tuple[float, int]]:
        if self.zeros:
            yield 0.0, self.zeros
        if not self._buckets:
            yield from ((float(value), 1) for value in sorted(self._exact))
            return
        counts = Counter(self._buckets)
        counts.update(map(_key, self._exact))
        yield from ((_middle(key), counts[key]) for key in sorted(counts))


def _key(value: int) -> int:
    """The number of a value's bucket; buckets are numbered in ascending order."""
    shift = value.bit_length() - _BITS - 1
    return value if shift <= 0 else (shift << _BITS) + (value >> shift)


def _middle(key: int) -> float:
    """The middle of a bucket."""
    shift = (key >> _BITS) - 1
    if shift <= 0:
        return float(key)
    low = (key - (shift << _BITS)) << shift
    return low + ((1 << shift) - 1) / 2


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

    def settle(self) -> None:
        """Call it a few times per second."""
        for samples in (self.ttft, self.itl, self.e2e, self.transit, self.late):
            samples.settle()
        if self.counting and self.meter is not None:
            self.meter.sample()
