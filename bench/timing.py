"""Two sides timed against each other so that a busy machine is no one's advantage.

A round times the floor and then the subject on the same work, a few milliseconds each, so both see the same machine;
the ratio is taken within a round and the median of the rounds is reported. Times are medians too. The garbage collector
is off meanwhile, as it would charge whoever happens to allocate last.
"""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians: nanoseconds an operation of the floor and of the subject, and the ratio subject / floor."""

    floor_ns: float
    subject_ns: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Side:
    """What one side does in a round: `start` makes, off the clock, the function that is then called on every item."""

    start: Callable[[], Callable[[Any], Any]]
    items: Sequence[Any]

    def nanoseconds(self) -> int:
        """What one round took."""
        function = self.start()
        began = perf_counter_ns()
        for item in self.items:
            function(item)
        return perf_counter_ns() - began


def always(function: Callable[[Any], Any], items: Sequence[Any]) -> Side:
    """A side whose function remembers nothing from one call to the next."""
    return Side(lambda: function, items)


def compare(floor: Side, subject: Side, operations: int, rounds: int) -> Comparison:
    """The sides against each other, `rounds` times after one to warm up; each does `operations` in a round."""
    floor.nanoseconds()
    subject.nanoseconds()
    was_on = gc.isenabled()
    gc.disable()
    try:
        pairs = [(floor.nanoseconds(), subject.nanoseconds()) for _ in range(rounds)]
    finally:
        if was_on:
            gc.enable()
    return Comparison(
        statistics.median(first for first, _ in pairs) / operations,
        statistics.median(second for _, second in pairs) / operations,
        statistics.median(second / first for first, second in pairs),
    )
