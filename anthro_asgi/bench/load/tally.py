"""What a run counts, and when.

The counted part lasts from `begin` to `freeze`. Chunks, the intervals between them and their transit times count during
that time. A request counts when it began in that time, to its end, which may be later, so that slow requests are
included. The names are those of AIPerf:

- ICL, inter-chunk latency: the time between two chunks of a stream; 0 if the client received both in one read.
- ITL, inter-token latency, which others call TPOT: (last chunk - first chunk) / (output tokens - 1), one value for each
  request. Output tokens are those of the answer's `usage`; without one, each chunk is a token.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Final, Protocol

from ..processes import Cost, Meter
from .samples import Samples

LIMITS: Final = (
    ("ttft", "time to the first chunk (TTFT)"),
    ("itl", "mean inter-token latency (ITL)"),
    ("e2e", "time to the end of the answer (E2E)"),
)
"""What a good request may be limited by: the name in `Slo` and in `--slo-NAME`, and its description."""


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits of a good request in seconds; None is no limit."""

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
    chunks: int
    input_tokens: int | None
    output_tokens: int | None
    error: str | None
    detail: str


def inter_token_latency(first: int, last: int, tokens: int) -> float:
    """ITL of a request in the unit of its moments; 0 for an answer of one token."""
    return (last - first) / (tokens - 1) if tokens > 1 else 0.0


def _counts() -> Samples:
    return Samples(unit=1)


@dataclass(slots=True)
class Tally:
    """All results of a run. Times are in nanoseconds of `time.monotonic_ns`."""

    slo: Slo
    meter: Meter | None
    counting: bool = False
    chunks: int = 0
    ok: int = 0
    good: int = 0
    unfinished: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    """What the first error of each kind said."""
    ttft: Samples = field(default_factory=Samples)
    icl: Samples = field(default_factory=Samples)
    itl: Samples = field(default_factory=Samples)
    e2e: Samples = field(default_factory=Samples)
    transit: Samples = field(default_factory=Samples)
    input_tokens: Samples = field(default_factory=_counts)
    output_tokens: Samples = field(default_factory=_counts)
    late: Samples = field(default_factory=Samples)
    """How late requests of the open loop were begun."""
    ok_chunks: int = 0
    """Chunks of the requests that succeeded, also those outside the counted part."""
    began: int = 0
    seconds: float = 0.0
    client_cpu: float = 0.0
    server: Cost | None = None

    @property
    def requests(self) -> int:
        """Requests that ended, successfully or not."""
        return self.ok + self.errors.total()

    @property
    def tokens(self) -> float:
        """Output tokens of the counted part: its chunks, times the tokens that a chunk of a complete answer has."""
        return self.chunks * self.output_tokens.total() / self.ok_chunks if self.ok_chunks else float(self.chunks)

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
            self.details.setdefault(error, exchange.detail)
        else:
            self._succeeded(exchange, took)
        if error in ("unfinished", "timeout") and not exchange.first and exchange.due:
            self.ttft.add(took)
        if error in (None, "timeout"):
            self.e2e.add(took)

    def _succeeded(self, exchange: Finished, took: int) -> None:
        self.ok += 1
        tokens = exchange.chunks if exchange.output_tokens is None else exchange.output_tokens
        self.ok_chunks += exchange.chunks
        self.output_tokens.add(tokens)
        if exchange.input_tokens is not None:
            self.input_tokens.add(exchange.input_tokens)
        mean = inter_token_latency(exchange.first, exchange.last, tokens)
        if tokens > 1 and exchange.first:
            self.itl.add(round(mean))
        ttft = exchange.first - exchange.due if exchange.first else took
        self.good += self.slo.holds(ttft, mean, took)

    def sample(self) -> None:
        """Read the meter. Call it a few times per second."""
        if self.counting and self.meter is not None:
            self.meter.sample()
