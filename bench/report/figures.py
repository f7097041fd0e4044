"""Figures out of records: every ratio within a round first, and the median of the rounds after.

A busy machine makes a whole round dear, the floor as well as the subject. A ratio of medians would compare one round's
subject to another round's floor; the median of ratios never does. Two records meet when they are of one session, one
round, and the same load.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from .records import DIRECT, Cost, Load, Micro, Records, Run

FIRST: Final = "ttft"  # the kind of run that is only about the first token

Key = tuple[int, int, int]  # session, round, and which of several with the same two
Rounds = dict[Key, float]
Quantity = Callable[[Load], float | None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """One load that servers were put under: `rate` is tokens a second of each stream, None as fast as they can."""

    run: str
    streams: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One value for each round, and how many requests of those runs failed; `detail` says what it is of, if need be."""

    values: tuple[float, ...]
    failed: int = 0
    detail: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def figure(values: Iterable[float], failed: int = 0, detail: str = "") -> Figure | None:
    """A figure, or None when there is nothing to make it of."""
    found = tuple(values)
    return Figure(found, failed, detail) if found else None


def settings(records: Records, run: str | None = None) -> list[Setting]:
    """The loads of one kind, or all of them; the one with the most records first."""
    counted = Counter(_setting(item) for item in records.of(Run) if run in (None, item.run))
    return sorted(counted, key=lambda setting: (-counted[setting], setting.run, setting.streams, setting.rate or 0.0))


def timed(records: Records) -> list[Setting]:
    """The loads under which a token's cost and the throughput say something: not those that only begin streams."""
    return [setting for setting in settings(records) if setting.run != FIRST]


def main_setting(records: Records, run: str) -> Setting | None:
    """The load that a bar speaks of: the one with the most records."""
    return next(iter(settings(records, run)), None)


def _setting(run: Run) -> Setting:
    return Setting(run.run, run.streams, run.rate)


def runs_of(records: Records, setting: Setting, server: str) -> list[Run]:
    """The runs of one server under one load."""
    return [run for run in records.of(Run) if run.server == server and _setting(run) == setting]


def servers_of(records: Records, setting: Setting) -> set[str]:
    """The names of all that were put under a load; the engine itself may be among them."""
    return {run.server for run in records.of(Run) if _setting(run) == setting}


def rounds(items: Iterable[T], place: Callable[[T], tuple[int, int]], value: Callable[[T], float | None]) -> Rounds:
    """Values by session and round. Several with the same two are told apart by their order."""
    seen: Counter[Hashable] = Counter()
    found: Rounds = {}
    for item in items:
        key = place(item)
        seen[key] += 1
        got = value(item)
        if got is not None:
            found[(*key, seen[key])] = got
    return found


def load_rounds(records: Records, setting: Setting, server: str, quantity: Quantity) -> Rounds:
    """A quantity of one server's loads, by round."""
    runs = runs_of(records, setting, server)
    return rounds(runs, lambda run: (run.session, run.round), lambda run: quantity(run.load))


def ratios(subject: Rounds, base: Rounds) -> list[float]:
    """Subject / base in each round that has both."""
    return [value / base[key] for key, value in subject.items() if base.get(key)]


def differences(subject: Rounds, base: Rounds) -> list[float]:
    """Subject - base in each round that has both."""
    return [value - base[key] for key, value in subject.items() if key in base]


def failures(records: Records, setting: Setting, *servers: str) -> int:
    """Requests that failed in the runs of these servers."""
    return sum(run.load.failed for server in servers for run in runs_of(records, setting, server))


def server_cpu(load: Load) -> float | None:
    """Microseconds a token of the server's CPU."""
    return load.server_cpu


def throughput(load: Load) -> float | None:
    """Tokens a second, all streams together."""
    return load.tokens_per_s or None


def latency(name: str, percentile: str) -> Quantity:
    """A percentile, in seconds, of `ttft`, `itl` or `transit`."""
    by_name: dict[str, Callable[[Load], dict[str, float]]] = {
        "ttft": lambda load: load.ttft,
        "itl": lambda load: load.itl,
        "transit": lambda load: load.transit,
    }
    percentiles = by_name[name]
    return lambda load: percentiles(load).get(percentile)


def level(records: Records, setting: Setting, server: str, quantity: Quantity) -> Figure | None:
    """A quantity itself, over the rounds."""
    values = load_rounds(records, setting, server, quantity).values()
    return figure(values, failures(records, setting, server))


def against(records: Records, setting: Setting, server: str, base: str, quantity: Quantity) -> Figure | None:
    """A quantity as a multiple of another server's in the same round."""
    subject, floor = (load_rounds(records, setting, name, quantity) for name in (server, base))
    return figure(ratios(subject, floor), failures(records, setting, server, base))


def added(records: Records, setting: Setting, server: str, quantity: Quantity) -> Figure | None:
    """What a server adds to a quantity of the engine itself in the same round."""
    subject, floor = (load_rounds(records, setting, name, quantity) for name in (server, DIRECT))
    return figure(differences(subject, floor), failures(records, setting, server, DIRECT))


def costs_of(records: Records, server: str, streams: int) -> list[float]:
    """CPU per token, in microseconds, with so many streams: one value for each time it was measured."""
    return [cost.cpu for cost in records.of(Cost) if (cost.server, cost.streams) == (server, streams)]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as often as it was measured: nanoseconds, its floor's, and the ratio of each time."""

    group: str
    name: str
    floor: str
    cost: Figure
    floor_cost: Figure
    ratio: Figure
    bar: float | None


def operations(records: Records) -> list[Operation]:
    """All of them; the bar is the one that was written last."""
    found: dict[tuple[str, str, str], list[Micro]] = {}
    for micro in records.of(Micro):
        found.setdefault((micro.group, micro.name, micro.floor), []).append(micro)
    return [_operation(key, several) for key, several in found.items()]


def _operation(key: tuple[str, str, str], found: list[Micro]) -> Operation:
    cost, floor_cost, ratio = (
        Figure(tuple(values))
        for values in zip(*((micro.ns, micro.floor_ns, micro.ratio) for micro in found), strict=True)
    )
    return Operation(*key, cost, floor_cost, ratio, found[-1].bar)
