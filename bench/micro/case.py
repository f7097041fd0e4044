"""One row of the table: an operation, its floor, and the check of its result.

A round times the floor and then the subject on the same work, a few milliseconds each, so that both see the same
machine. The ratio is taken within a round; ratio and times are medians over the rounds. The garbage collector is off
meanwhile, because its cost falls on whichever side happens to allocate last.
"""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

from ..records import Micro

_SHOWN: Final = 300  # characters of a difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians: nanoseconds per operation of floor and subject, and the ratio subject / floor."""

    floor_ns: float
    subject_ns: float
    ratio: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> "Comparison":
        """From the nanoseconds of floor and subject in each round."""
        return cls(
            statistics.median(floor for floor, _ in pairs),
            statistics.median(subject for _, subject in pairs),
            statistics.median(subject / floor for floor, subject in pairs),
        )


@dataclass(frozen=True, slots=True)
class Side:
    """`start` makes, before the clock runs, the function that is then called with every item."""

    start: Callable[[], Callable[[Any], Any]]
    items: Sequence[Any]

    def nanoseconds(self) -> int:
        """The time of one round."""
        function = self.start()
        began = perf_counter_ns()
        for item in self.items:
            function(item)
        return perf_counter_ns() - began


def always(function: Callable[[Any], Any], items: Sequence[Any]) -> Side:
    """A side whose function has no state."""
    return Side(lambda: function, items)


@contextmanager
def collector_off() -> Iterator[None]:
    """The garbage collector is off inside the `with` block."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def compare(floor: Side, subject: Side, operations: int, rounds: int) -> Comparison:
    """Both sides in `rounds` rounds, after one to warm up; each does `operations` per round."""
    floor.nanoseconds()
    subject.nanoseconds()
    with collector_off():
        pairs = [(floor.nanoseconds(), subject.nanoseconds()) for _ in range(rounds)]
    return Comparison.of([(first / operations, second / operations) for first, second in pairs])


@dataclass(frozen=True, slots=True)
class Case:
    """`subject` and `floor` do the same `operations` (tokens, events or requests) per round.

    `check` raises AssertionError when the subject's result is wrong. `bar` is the highest ratio that the project
    allows; None where the row is only for comparison.
    """

    group: str
    name: str
    floor_name: str
    floor: Side
    subject: Side
    operations: int
    check: Callable[[], None]
    bar: float | None = None

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    def measure(self, rounds: int) -> Micro:
        cost = compare(self.floor, self.subject, self.operations, rounds)
        return Micro(self.group, self.name, cost.subject_ns, self.floor_name, cost.floor_ns, cost.ratio, self.bar)


def same(got: Any, wanted: Any, what: str) -> None:
    """Raises AssertionError, also under `python -O`, unless the two are equal."""
    if got == wanted:
        return
    if not (isinstance(got, bytes | str) and type(got) is type(wanted)):
        got, wanted = repr(got), repr(wanted)
    at = next((at for at, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), None)
    begin = max(0, (min(len(got), len(wanted)) if at is None else at) - _SHOWN // 3)
    end = begin + _SHOWN
    raise AssertionError(f"{what}: got …{got[begin:end]!r}, expected …{wanted[begin:end]!r}")
