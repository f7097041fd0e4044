"""SharedCounters in the Prometheus text format, written by prometheus-client (extra `metrics`)."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from ..wire.errors import NotFound
from .shared_counters import MetricFamily, SharedCounters


@cache
def load_exposition() -> tuple[Any, Any] | None:
    """The modules prometheus_client and prometheus_client.core; None without the extra.

    Raises OSError when the files of the modules cannot be read; the next call then imports them again.
    """
    try:
        return importlib.import_module("prometheus_client"), importlib.import_module("prometheus_client.core")
    except ImportError:
        return None


def load_exposition_early() -> None:
    """Import the modules before the first request for /metrics.

    Their import takes a seventh of the time of a start, so the server calls this in a thread once it listens. By then,
    connections may have taken all file descriptors. In that case the first request for /metrics imports the modules.
    """
    with suppress(OSError):
        load_exposition()


@dataclass(frozen=True, slots=True)
class Constant:
    """A gauge that never changes, so it needs no place in SharedCounters."""

    name: str
    help: str
    value: float
    labels: dict[str, str]


def exposition(
    constants: Sequence[Constant], families: Sequence[MetricFamily], counters: SharedCounters
) -> tuple[bytes, str]:
    """The text and its content type. Raises NotFound without the extra."""
    modules = load_exposition()
    if modules is None:
        raise NotFound("/metrics needs the extra `metrics`: pip install 'anthro-asgi[metrics]'")
    prometheus, core = modules
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(core, constants, families, counters))
    return prometheus.generate_latest(registry), prometheus.CONTENT_TYPE_LATEST


class _Collector:
    """The collector that prometheus-client calls for the metrics."""

    def __init__(
        self, core: Any, constants: Sequence[Constant], families: Sequence[MetricFamily], counters: SharedCounters
    ) -> None:
        self._core = core
        self._constants = constants
        self._families = families
        self._counters = counters

    def collect(self) -> Iterator[Any]:
        for one in self._constants:
            metric = self._core.GaugeMetricFamily(one.name, one.help, labels=tuple(one.labels))
            metric.add_metric(tuple(one.labels.values()), one.value)
            yield metric
        totals = self._counters.totals()
        for family in self._families:
            if family.by_worker:
                yield _by_worker(self._core, family, self._counters)
            elif family.kind == "histogram":
                yield _histogram(self._core, family, totals)
            else:
                yield _plain(self._core, family, totals)


def _plain(core: Any, family: MetricFamily, totals: list[float]) -> Any:
    metric = _new(core, family, family.labels)
    for labels, place in family.places.items():
        if totals[place] or not family.sparse:
            metric.add_metric(labels, totals[place])
    return metric


def _by_worker(core: Any, family: MetricFamily, counters: SharedCounters) -> Any:
    metric = _new(core, family, ("worker",))
    for worker, slot in enumerate(counters.slots):
        metric.add_metric((str(worker),), slot[family.place])
    return metric


def _histogram(core: Any, family: MetricFamily, totals: list[float]) -> Any:
    metric = core.HistogramMetricFamily(family.name, family.help, labels=family.labels)
    bounds = [*map(str, family.edges), "+Inf"]
    for labels, place in family.places.items():
        end = place + len(bounds)
        counts = list(accumulate(totals[place:end]))
        if counts[-1] or not family.sparse:
            metric.add_metric(labels, list(zip(bounds, counts, strict=True)), totals[end])
    return metric


def _new(core: Any, family: MetricFamily, labels: tuple[str, ...]) -> Any:
    kind = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
    return kind(family.name, family.help, labels=labels)
