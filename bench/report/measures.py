"""How each bar is measured: a measure takes the records and gives a figure, or None when there are none for it.

Measures are data too: they compare by value, and their fields are all there is to know about them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from .figures import (
    Figure,
    Operation,
    added,
    against,
    figure,
    latency,
    main_setting,
    operations,
    ratios,
    rounds,
    server_cpu,
)
from .records import Asgi, Cost, Hold, Memory, Records


class Measure(Protocol):
    """What a bar is held against."""

    def of(self, records: Records) -> Figure | None:
        """The figure, or None when nothing was recorded for it."""

    def servers(self) -> tuple[str, ...]:
        """The servers it needs."""


@dataclass(frozen=True, slots=True)
class MicroRatio:
    """The worst of the operations of a group whose names begin with `begins`, `but` those that begin otherwise."""

    group: str
    begins: str = ""
    but: str | None = None

    def of(self, records: Records) -> Figure | None:
        found = [operation for operation in operations(records) if self._means(operation)]
        worst = max(found, key=lambda operation: operation.ratio.median, default=None)
        if worst is None:
            return None
        return replace(worst.ratio, detail=worst.name if len(found) > 1 else "")

    def _means(self, operation: Operation) -> bool:
        name = operation.name
        excluded = self.but is not None and name.startswith(self.but)
        return operation.group == self.group and name.startswith(self.begins) and not excluded

    def servers(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class CpuRatio:
    """CPU per token of a server as a multiple of another's, under the main load of a kind."""

    run: str
    server: str
    base: str

    def of(self, records: Records) -> Figure | None:
        setting = main_setting(records, self.run)
        return against(records, setting, self.server, self.base, server_cpu) if setting else None

    def servers(self) -> tuple[str, ...]:
        return (self.server, self.base)


@dataclass(frozen=True, slots=True)
class AddedLatency:
    """Seconds that a server adds to a percentile of `ttft` or `transit` of the engine itself."""

    run: str
    server: str
    name: str
    percentile: str

    def of(self, records: Records) -> Figure | None:
        setting = main_setting(records, self.run)
        return added(records, setting, self.server, latency(self.name, self.percentile)) if setting else None

    def servers(self) -> tuple[str, ...]:
        return (self.server,)


@dataclass(frozen=True, slots=True)
class CostGrowth:
    """CPU per token with `many` streams as a multiple of that with `few`, at the same total token rate."""

    server: str
    few: int
    many: int

    def of(self, records: Records) -> Figure | None:
        many, few = (
            rounds(self._costs(records, streams), lambda cost: (cost.session, cost.round), lambda cost: cost.cpu)
            for streams in (self.many, self.few)
        )
        return figure(ratios(many, few))

    def _costs(self, records: Records, streams: int) -> Iterable[Cost]:
        return (cost for cost in records.of(Cost) if (cost.server, cost.streams) == (self.server, streams))

    def servers(self) -> tuple[str, ...]:
        return (self.server,)


@dataclass(frozen=True, slots=True)
class StreamMemory:
    """KiB for each open stream, with the most streams that were tried."""

    server: str

    def of(self, records: Records) -> Figure | None:
        found = fullest(records, self.server)
        return figure(memory.kib for memory in found)

    def servers(self) -> tuple[str, ...]:
        return (self.server,)


@dataclass(frozen=True, slots=True)
class StreamErrors:
    """Errors with at least so many streams open at once, where they were counted."""

    server: str
    streams: int

    def of(self, records: Records) -> Figure | None:
        tried = (item for item in records.of(Memory) if item.server == self.server and item.streams >= self.streams)
        errors = [sum(item.errors.values()) for item in tried if item.errors is not None]
        return figure([sum(errors)] if errors else [])

    def servers(self) -> tuple[str, ...]:
        return (self.server,)


@dataclass(frozen=True, slots=True)
class AsgiRatio:
    """CPU per token of the simulated engine as a multiple of a raw ASGI application's."""

    def of(self, records: Records) -> Figure | None:
        simulated, raw = (
            rounds(
                (item for item in records.of(Asgi) if item.name == name),
                lambda item: (item.session, item.round),
                lambda item: item.cpu,
            )
            for name in ("simulated", "raw")
        )
        return figure(ratios(simulated, raw))

    def servers(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class LongestHold:
    """Seconds: the worst of all bodies that were tried."""

    def of(self, records: Records) -> Figure | None:
        longest = max((hold.longest for hold in records.of(Hold)), default=None)
        return None if longest is None else figure([longest])

    def servers(self) -> tuple[str, ...]:
        return ()


def fullest(records: Records, server: str) -> list[Memory]:
    """The memory records of a server with the most streams."""
    found = [item for item in records.of(Memory) if item.server == server]
    most = max((item.streams for item in found), default=0)
    return [item for item in found if item.streams == most]
