"""The samples during and after the load, and the invariants that must hold.

Memory is compared between two windows with the same number of open streams: one that begins after a minute, or after
half of a shorter run, and the last fifth of the run. Medians are compared, because a single sample may include a large
request. Memory settles during the first three generations of streams, while the heap fragments. A run has at least six
generations, so streams are short in a short run.

The heap may grow by `GROWTH` in a run of `_LONG` seconds or more. In a shorter run it may grow by `SHORT_GROWTH`:
the heap still fragments then: +4 % was seen in a run of 30 seconds. A leak of 5 KiB with each answer exceeds it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Final

from anthro_asgi.upstream.connect import RESOLVER_THREADS

from .clients import Tally
from .service import Gauges, Service

_EVERY: Final = 0.5  # seconds between two samples
_SETTLED: Final = 60.0  # seconds
_LONG: Final = 300.0  # seconds
GROWTH: Final = 0.03  # as a share of the first window
SHORT_GROWTH: Final = 0.08
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` is in seconds since the load began, `memory` in bytes."""

    at: float
    memory: int
    files: int
    threads: int
    open: int
    gauges: Gauges | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An invariant and its values. `holds` is None where it could not be determined."""

    name: str
    holds: bool | None
    seen: str


async def look(service: Service, began: float, open_: int) -> Sample:
    """A sample, taken without blocking the clients."""
    gauges = await asyncio.to_thread(service.gauges)
    return Sample(monotonic() - began, service.memory(), service.files(), service.threads(), open_, gauges)


async def watch(service: Service, tally: Tally, seconds: float, seen: Callable[[Sample], None]) -> list[Sample]:
    """Samples for `seconds` seconds."""
    began = monotonic()
    samples: list[Sample] = []
    while monotonic() < began + seconds:
        await asyncio.sleep(_EVERY)
        samples.append(await look(service, began, tally.open))
        seen(samples[-1])
    return samples


async def at_rest(service: Service, files: int, patience: float) -> Sample:
    """The first sample in which everything is released, or the last one after `patience` seconds."""
    began = monotonic()
    while True:
        sample = await look(service, began, 0)
        if monotonic() > began + patience or (sample.files <= files and _is_settled(sample.gauges)):
            return sample
        await asyncio.sleep(_EVERY / 5)


def _is_settled(gauges: Gauges | None) -> bool:
    return gauges is None or not (gauges.in_flight or any(gauges.connections.values()))


# invariants


def judge(samples: list[Sample], idle: Sample, rest: Sample, tally: Tally, service: Service) -> list[Verdict]:
    """All verdicts. `idle` is from before the first request, `rest` from after the last client."""
    return [
        _answers(tally),
        _memory(samples),
        _given_back("files", [sample.files for sample in samples], idle.files, rest.files),
        _given_back(
            "threads",
            [sample.threads for sample in samples],
            idle.threads,
            rest.threads,
            RESOLVER_THREADS * service.processes,
        ),
        *_gauges(samples, rest),
        Verdict("log", not service.log.faults, f"{service.log.lines:,} lines, {service.log.faults} that should not be"),
        Verdict("end", service.status == 0, f"status {service.status} after SIGTERM"),
    ]


def _answers(tally: Tally) -> Verdict:
    right, wrong = tally.outcomes.total(), tally.wrong.total()
    return Verdict("answers", right > 0 and not wrong, f"{right:,} right, {wrong:,} wrong, {tally.tokens:,} tokens")


def _memory(samples: list[Sample]) -> Verdict:
    total = samples[-1].at
    begin = min(_SETTLED, total * 0.5)
    early = [sample.memory for sample in samples if begin <= sample.at < begin + total / 5]
    late = [sample.memory for sample in samples if sample.at >= total * 0.8]
    if not early or not late:
        return Verdict("memory", None, "too short a run to tell")
    before, after = median(early), median(late)
    growth = after / before - 1
    seen = f"{before / _MIB:.1f} MiB from {begin:.0f} s on, {after / _MIB:.1f} MiB to {total:.0f} s: {growth:+.1%}"
    return Verdict("memory", growth <= (GROWTH if total >= _LONG else SHORT_GROWTH), seen)


def _gauges(samples: list[Sample], rest: Sample) -> list[Verdict]:
    """From `/metrics`: no request and no connection is left."""
    if rest.gauges is None:
        return [Verdict("in flight", None, "no /metrics"), Verdict("pool", None, "no /metrics")]
    most = max(sample.gauges.in_flight for sample in samples if sample.gauges is not None)
    left = rest.gauges.in_flight
    told = Verdict("in flight", left == 0, f"{most} most, {left} after")
    if not rest.gauges.connections:
        return [told, Verdict("pool", None, "not told by /metrics")]
    counts = [sample.gauges.connections for sample in samples if sample.gauges is not None]
    open_ones = max(count.get("idle", 0) + count.get("leased", 0) for count in counts)
    after = {state: count for state, count in rest.gauges.connections.items() if count}
    return [told, Verdict("pool", not after, f"{open_ones} connections most, {after or 'none'} after")]


def _given_back(name: str, counts: list[int], idle: int, after: int, spare: int = 0) -> Verdict:
    return Verdict(name, after <= idle + spare, f"{idle} idle, {max(counts)} most, {after} after")
