"""Counters in memory that several processes share: one anonymous map of doubles, with one slot for each worker.

    slot 0 │ gauges │ counters, histograms │      each worker writes to its own slot: cells[place] += 1
    slot 1 │ gauges │ counters, histograms │      the exposition adds the slots up

There is no lock. A slot has one writer, and an aligned double is written in one store, so a reader sees the old value
or the new one. The map is made before the fork, so it is the same memory in every worker, and it outlives each of them.
When a worker dies, its counters stay and its gauges are set to zero.

A `CounterLayout` gives each label set its place in a slot, once, at the start: a request can never add a label set.
"""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Labels = tuple[str, ...]
MetricType = Literal["gauge", "counter", "histogram"]

_DOUBLE: Final = 8  # bytes
_CACHE_LINE: Final = 8  # doubles; two workers must not write to the same cache line


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: the names of its labels, and the place of each label set in a slot.

    The place of a histogram is that of its first bucket. The other buckets follow; the last one counts what is above
    all `edges` (upper bounds, in ascending order). The sum of the observations follows the buckets. `by_worker` shows
    the value of each slot, under a label `worker`, instead of their sum. `sparse` omits label sets that are zero.
    """

    kind: MetricType
    name: str
    help: str
    labels: Labels
    places: dict[Labels, int]
    edges: tuple[float, ...]
    by_worker: bool
    sparse: bool

    @property
    def place(self) -> int:
        """The place of a family that has only one label set."""
        (place,) = self.places.values()
        return place


class CounterLayout:
    """The layout of a slot: families in the order of the exposition, gauges first. Sizes are in doubles."""

    def __init__(self, prefix: str) -> None:
        self.families: list[MetricFamily] = []
        self.gauges = 0
        self.size = 0
        self._prefix = prefix

    def add(
        self,
        kind: MetricType,
        name: str,
        text: str,
        labels: Labels = (),
        values: Iterable[Labels] = ((),),
        *,
        edges: tuple[float, ...] = (),
        by_worker: bool = False,
        sparse: bool = False,
    ) -> MetricFamily:
        """Add a family, with a place for each label set of `values`."""
        width = len(edges) + 2 if kind == "histogram" else 1
        places = {one: self.size + number * width for number, one in enumerate(values)}
        if kind == "gauge":
            assert self.gauges == self.size, "gauges come first"  # noqa: S101 - a mistake in a table that is built at import
            self.gauges += len(places)
        self.size += len(places) * width
        family = MetricFamily(kind, self._prefix + name, text, labels, places, edges, by_worker, sparse)
        self.families.append(family)
        return family


class SharedCounters:
    """The shared memory: one slot of `layout` for each of `workers`."""

    def __init__(self, layout: CounterLayout, workers: int) -> None:
        self._gauges = layout.gauges
        stride = -(-layout.size // _CACHE_LINE) * _CACHE_LINE
        cells = memoryview(mmap.mmap(-1, stride * workers * _DOUBLE)).cast("d")
        self.slots = [cells[number * stride : number * stride + layout.size] for number in range(workers)]

    def clear_gauges(self, worker: int) -> None:
        """Set the worker's gauges to zero, when it starts and when it has died."""
        slot = self.slots[worker]
        for place in range(self._gauges):
            slot[place] = 0.0

    def totals(self) -> list[float]:
        """The sum of all slots, place by place."""
        if len(self.slots) == 1:
            return list(self.slots[0])
        return [sum(column) for column in zip(*self.slots, strict=True)]
