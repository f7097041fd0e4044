"""What is looked at while the clients are there and when they have gone, and what must hold of it.

Memory is compared between two windows in which the same number of streams is open: one that begins when what is needed
once is there, after a minute or in a shorter run after 2/5 of it, and the last fifth. The medians of both windows are
compared, as single looks differ by what a large request happened to need in that moment. It settles in the first three
generations of streams, in which the heap comes to hold its holes; a run has six at the least, so streams are short in a
short one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Final

from .clients import Tally
from .service import Gauges, Service

_EVERY: Final = 0.5  # seconds between two looks
_SETTLED: Final = 60.0  # seconds
GROWTH: Final = 0.03
_MIB: Final = 1024 * 1024
_RESOLVERS: Final = 4  # threads that libuv keeps once it has looked up a name


@dataclass(frozen=True, slots=True)
class Sample:
    """One look; `at` in seconds since the load began, `memory` in bytes."""

    at: float
    memory: int
    files: int
    threads: int
    open: int
    gauges: Gauges | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An invariant, and what was seen of it. `holds` is None where nobody could tell."""

    name: str
    holds: bool | None
    seen: str


async def look(service: Service, began: float, open_: int) -> Sample:
    """Without keeping the clients from their work."""
    gauges = await asyncio.to_thread(service.gauges)
    return Sample(monotonic() - began, service.memory(), service.files(), service.threads(), open_, gauges)


async def watch(service: Service, tally: Tally, seconds: float, seen: Callable[[Sample], None]) -> list[Sample]:
    """Looks, for so long."""
    began = monotonic()
    samples: list[Sample] = []
    while monotonic() < began + seconds:
        await asyncio.sleep(_EVERY)
        samples.append(await look(service, began, tally.open))
        seen(samples[-1])
    return samples


async def at_rest(service: Service, files: int, patience: float) -> Sample:
    """The first look at which everything is given back, or the last one when the patience is over."""
    began = monotonic()
    while True:
        sample = await look(service, began, 0)
        if monotonic() > began + patience or (sample.files <= files and _is_settled(sample.gauges)):
            return sample
        await asyncio.sleep(_EVERY / 5)


def _is_settled(gauges: Gauges | None) -> bool:
    return gauges is None or not (gauges.in_flight or any(gauges.connections.values()))


# what must hold


def judge(samples: list[Sample], idle: Sample, rest: Sample, tally: Tally, service: Service) -> list[Verdict]:
    """All of it. `idle` is before the first request, `rest` after the last client has gone."""
    return [
        _answers(tally),
        _memory(samples),
        _given_back("files", [sample.files for sample in samples], idle.files, rest.files),
        _given_back("threads", [sample.threads for sample in samples], idle.threads, rest.threads, _RESOLVERS),
        *_gauges(samples, rest),
        Verdict("log", not service.log.faults, f"{service.log.lines:,} lines, {service.log.faults} that should not be"),
        Verdict("end", service.status == 0, f"status {service.status} after SIGTERM"),
    ]


def _answers(tally: Tally) -> Verdict:
    right, wrong = tally.outcomes.total(), tally.wrong.total()
    return Verdict("answers", right > 0 and not wrong, f"{right:,} right, {wrong:,} wrong, {tally.tokens:,} tokens")


def _memory(samples: list[Sample]) -> Verdict:
    total = samples[-1].at
    begin = min(_SETTLED, total * 0.4)
    early = [sample.memory for sample in samples if begin <= sample.at < begin + total / 5]
    late = [sample.memory for sample in samples if sample.at >= total * 0.8]
    if not early or not late:
        return Verdict("memory", None, "too short a run to tell")
    before, after = median(early), median(late)
    growth = after / before - 1
    seen = f"{before / _MIB:.1f} MiB from {begin:.0f} s on, {after / _MIB:.1f} MiB to {total:.0f} s: {growth:+.1%}"
    return Verdict("memory", growth <= GROWTH, seen)


def _gauges(samples: list[Sample], rest: Sample) -> list[Verdict]:
    """What the service says of itself: nothing is left, and it never had more connections than files."""
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
