"""Figures from records: ratios and differences within a round first, then the median over the rounds.

A busy machine makes a whole round expensive, for the floor as well as for the subject. A ratio of medians would compare
the subject of one round with the floor of another; a median of ratios does not. Two values are paired when they belong
to one session, one round, the same load and, where servers were at work at the same time, the same window of a second.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from .records import DIRECT, Asgi, Micro, Records, Run

TTFT_RUN: Final = "ttft"  # the kind of run that measures only the first token

Rounds = dict[tuple[int, int, int], float]
"""Values by session, round, and position among several values of the same session and round."""

Quantity = Callable[[Run], Sequence[float]]
"""The values of a record: one, one for each window, or none if it was not measured."""

Rounded = TypeVar("Rounded", Run, Asgi)
_MANY: Final = 8  # values, from which on quartiles are shown instead of the lowest and the highest


@dataclass(frozen=True, slots=True)
class Setting:
    """A load that servers were put under. `rate` is tokens/s of each stream, None for as fast as possible."""

    run: str
    streams: int
    rate: float | None

    @classmethod
    def of(cls, run: Run) -> "Setting":
        return cls(run.run, run.streams, run.rate)


@dataclass(frozen=True, slots=True)
class Figure:
    """One value per round or window. `failed` is the number of failed requests there; `detail` names the subject."""

    values: tuple[float, ...]
    failed: int = 0
    detail: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def many(self) -> bool:
        """Whether `low` and `high` are quartiles."""
        return len(self.values) >= _MANY

    @property
    def low(self) -> float:
        """The lowest value, or the lower quartile of many."""
        return statistics.quantiles(self.values, method="inclusive")[0] if self.many else min(self.values)

    @property
    def high(self) -> float:
        """The highest value, or the upper quartile of many."""
        return statistics.quantiles(self.values, method="inclusive")[2] if self.many else max(self.values)


def figure(values: Iterable[float], failed: int = 0) -> Figure | None:
    """None when there are no values."""
    found = tuple(values)
    return Figure(found, failed) if found else None


# pairing


def rounds(
    records: Records, kind: type[Rounded], where: Callable[[Rounded], bool], value: Callable[[Rounded], Sequence[float]]
) -> Rounds:
    """The values of each record of `kind` for which `where` is true."""
    seen: Counter[tuple[int, int]] = Counter()
    found: Rounds = {}
    key: tuple[int, int]
    for session, record in records.entries:
        if isinstance(record, kind) and where(record):
            key = session, record.round
            values = value(record)
            found |= {(*key, seen[key] + number): one for number, one in enumerate(values)}
            seen[key] += max(1, len(values))
    return found


def ratios(subject: Rounds, base: Rounds) -> list[float]:
    """subject / base in each round that has both."""
    return [value / base[key] for key, value in subject.items() if base.get(key)]


# runs


def settings(records: Records, run: str | None = None) -> list[Setting]:
    """The loads of one kind of run, or of all; the one with the most records first, then the one with most streams."""
    counted = Counter(Setting.of(item) for item in records.of(Run) if run in (None, item.run))
    return sorted(counted, key=lambda setting: (-counted[setting], setting.run, -setting.streams, setting.rate or 0.0))


def timed(records: Records) -> list[Setting]:
    """The loads under which cost and throughput are meaningful."""
    return [setting for setting in settings(records) if setting.run != TTFT_RUN]


def main_setting(records: Records, run: str) -> Setting | None:
    """The load with the most records: the one that bars refer to."""
    return next(iter(settings(records, run)), None)


def servers_of(records: Records, setting: Setting) -> list[str]:
    """Names of the servers under a load, the engine itself included, in the order of the first round."""
    return list(dict.fromkeys(run.server for run in records.of(Run) if Setting.of(run) == setting))


def run_rounds(records: Records, setting: Setting, server: str, quantity: Quantity) -> Rounds:
    """A quantity of one server under one load."""
    return rounds(records, Run, lambda run: run.server == server and Setting.of(run) == setting, quantity)


def failures(records: Records, setting: Setting, *servers: str) -> int:
    """Failed requests of these servers under one load."""
    chosen = (run for run in records.of(Run) if run.server in servers and Setting.of(run) == setting)
    return sum(sum(run.load.errors.values()) for run in chosen)


def level(records: Records, setting: Setting, server: str, quantity: Quantity) -> Figure | None:
    """The quantity itself."""
    values = run_rounds(records, setting, server, quantity).values()
    return figure(values, failures(records, setting, server))


def against(records: Records, setting: Setting, server: str, base: str, quantity: Quantity) -> Figure | None:
    """The quantity as a multiple of another server's."""
    subject, floor = (run_rounds(records, setting, name, quantity) for name in (server, base))
    return figure(ratios(subject, floor), failures(records, setting, server, base))


def added(records: Records, setting: Setting, server: str, quantity: Quantity) -> Figure | None:
    """The quantity minus that of the engine itself."""
    subject, own = (run_rounds(records, setting, name, quantity) for name in (server, DIRECT))
    differences = [value - own[key] for key, value in subject.items() if key in own]
    return figure(differences, failures(records, setting, server, DIRECT))


def server_cpu(run: Run) -> Sequence[float]:
    """Microseconds of the server's CPU per token or request: in each window, or in the whole run.

    The scripted engine puts one token into each chunk.
    """
    return run.windows or _values(run.load.server.cpu_us_per_chunk if run.load.server else None)


def throughput(run: Run) -> Sequence[float]:
    """Tokens/s of all streams together, as they came: a server may say a wrong `usage`."""
    return _values(run.load.chunks / run.load.seconds if run.load.seconds else None)


def latency(name: str, percentile: str) -> Quantity:
    """A percentile, in seconds, of `ttft`, `icl` or `transit`."""
    return lambda run: [] if (value := (getattr(run.load, name) or {}).get(percentile)) is None else [value]


def _values(value: float | None) -> list[float]:
    return [value] if value else []


# other records


def asgi_costs(records: Records, name: str) -> Rounds:
    """Microseconds of CPU per token of the `raw` or the `simulated` application."""
    return rounds(records, Asgi, lambda item: item.name == name, lambda item: [item.cpu_us_per_token])


@dataclass(frozen=True, slots=True)
class Operation:
    """A micro operation over all its measurements: nanoseconds, its floor's nanoseconds, and the ratios."""

    group: str
    name: str
    floor: str
    cost: Figure
    floor_cost: Figure
    ratio: Figure
    bar: float | None


def operations(records: Records) -> list[Operation]:
    """All micro operations; the bar is that of the last record."""
    found: dict[tuple[str, str, str], list[Micro]] = {}
    for micro in records.of(Micro):
        found.setdefault((micro.group, micro.name, micro.floor), []).append(micro)
    return [
        Operation(
            *key,
            cost=Figure(tuple(micro.ns for micro in several)),
            floor_cost=Figure(tuple(micro.floor_ns for micro in several)),
            ratio=Figure(tuple(micro.ratio for micro in several)),
            bar=several[-1].bar,
        )
        for key, several in found.items()
    ]
