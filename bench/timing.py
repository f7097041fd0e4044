"""Two functions timed against each other so that a busy machine is no one's advantage.

A round times the floor and then the subject over the same inputs, a few milliseconds each, so both see the same
machine; the ratio is taken within a round and the median of the rounds is reported. Times are medians too. The garbage
collector is off meanwhile, as it would charge whoever happens to allocate last.
"""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians: nanoseconds an item of the floor and of the subject, and the ratio subject / floor."""

    floor_ns: float
    subject_ns: float
    ratio: float


def compare(floor: Callable[[T], Any], subject: Callable[[T], Any], items: Sequence[T], rounds: int) -> Comparison:
    """`floor` against `subject`, each called on every item in the same loop, `rounds` times after one to warm up."""
    _once(floor, items)
    _once(subject, items)
    was_on = gc.isenabled()
    gc.disable()
    try:
        pairs = [(_once(floor, items), _once(subject, items)) for _ in range(rounds)]
    finally:
        if was_on:
            gc.enable()
    return Comparison(
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(second / first for first, second in pairs),
    )


def _once(function: Callable[[T], Any], items: Sequence[T]) -> float:
    began = perf_counter_ns()
    for item in items:
        function(item)
    return (perf_counter_ns() - began) / len(items)
