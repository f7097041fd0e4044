"""Numbers that several processes count together: one shared map of doubles, with a slot for each worker.

    slot 0 │ gauges │ counters, histograms │      a worker writes in its own slot: cells[place] += 1
    slot 1 │ gauges │ counters, histograms │      who is asked for the numbers adds the slots up

There is no lock. A slot has one writer, and an aligned double is one store, so a reader sees it before or after. The
map is anonymous and shared: made before a fork it is the same memory in every worker, and it outlives each of them.
What a dead worker counted stays; what it was doing, its gauges, is set to zero.

A `CounterLayout` gives each label set its place in a slot, once, at the start: a request can never add a label set.
"""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Labels = tuple[str, ...]
MetricType = Literal["gauge", "counter", "histogram"]

_DOUBLE: Final = 8  # bytes
_LINE: Final = 8  # doubles in a line of the cache, which two workers must not share


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: the names of its labels, and each label set's place in a slot.

    A histogram has from its place on a number for each bucket, the last beyond all `edges` (upper bounds, in rising
    order), and then the sum of what was observed. `by_worker` shows every slot, under a label `worker`, instead of all
    together. `sparse` leaves out label sets that never came up.
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
        """That of the only label set."""
        (place,) = self.places.values()
        return place


class CounterLayout:
    """The layout of a slot: families in the order in which they are shown, gauges before all others."""

    def __init__(self, prefix: str) -> None:
        self.families: list[MetricFamily] = []
        self.gauges = 0  # doubles they take
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
        """Give each label set of `values` its place."""
        width = len(edges) + 2 if kind == "histogram" else 1
        places = {one: self.size + number * width for number, one in enumerate(values)}
        if kind == "gauge":
            assert self.gauges == self.size, "gauges come first"  # noqa: S101 - a slip of ours, in a table that is built at import
            self.gauges += len(places)
        self.size += len(places) * width
        family = MetricFamily(kind, self._prefix + name, text, labels, places, edges, by_worker, sparse)
        self.families.append(family)
        return family


class SharedCounters:
    """The memory: `workers` slots, laid out as the layout says."""

    def __init__(self, layout: CounterLayout, workers: int) -> None:
        self._gauges = layout.gauges
        stride = -(-layout.size // _LINE) * _LINE
        cells = memoryview(mmap.mmap(-1, stride * workers * _DOUBLE)).cast("d")
        self.slots = [cells[number * stride : number * stride + layout.size] for number in range(workers)]

    def clear(self, worker: int) -> None:
        """Set the worker's gauges to zero: it is gone, or it begins."""
        slot = self.slots[worker]
        for place in range(self._gauges):
            slot[place] = 0.0

    def totals(self) -> list[float]:
        """What all slots come to, place by place."""
        if len(self.slots) == 1:
            return list(self.slots[0])
        return [sum(column) for column in zip(*self.slots, strict=True)]
