"""Applies a CollectionPolicy to the garbage collector of this process, and measures the pauses of every collection.

The collector belongs to the whole process. So only the command changes it, in each of its workers. An application that
embeds the service does the same only if it asks for it: it starts a GarbageCollector in its own event loop.
"""

import asyncio
import gc
import os
from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Final, Self

from ..observability.metrics import Metrics
from ..wire import defaults
from .collection_policy import TICK, YOUNG, CollectionPolicy

_NEVER: Final = 1_000_000_000  # collections of generation 1 before CPython starts a full collection by itself


class GarbageCollector:
    """Keeps the pauses of garbage collection short, from `start` to `stop`, or in a `with` block.

    Args:
        metrics: those of the application: they know how many requests are open, and they count the pauses.
        growth: bytes by which memory may grow, beyond what open requests explain, before a full collection runs
            although requests are open. None changes nothing in how Python collects; pauses are measured nevertheless.
    """

    def __init__(self, metrics: Metrics, growth: int | None = defaults.GC_GROWTH) -> None:
        self._metrics = metrics
        self._growth = growth
        self._policy: CollectionPolicy | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0  # of the collection that is running

    def start(self) -> None:
        """Measure pauses. With a bound of growth, freeze the objects that exist now, and apply the policy.

        Needs a running event loop.
        """
        self._loop = asyncio.get_running_loop()
        if self._growth is not None:
            self._threshold = gc.get_threshold()
            gc.collect()
            gc.freeze()  # long-lived objects: no later collection has to visit them
        gc.callbacks.append(self._on_collection)
        if self._growth is not None:
            self._policy = CollectionPolicy(self._growth, _resident())
            gc.set_threshold(*YOUNG, _NEVER)
            self._timer = self._loop.call_later(TICK, self._on_tick)

    def stop(self) -> None:
        """Leave the collector to Python again. May be called again, and without `start`."""
        if self._on_collection not in gc.callbacks:
            return
        gc.callbacks.remove(self._on_collection)
        if self._policy is None:
            return
        self._policy = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gc.set_threshold(*self._threshold)
        gc.unfreeze()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        """Python calls it at the start and the end of each collection: in any thread, between any two instructions."""
        if phase == "start":
            self._began = perf_counter()
            return
        generation = info["generation"]
        self._metrics.observe_collection(generation, perf_counter() - self._began)
        if generation == 1 and self._policy is not None:
            self._policy.young_collected()

    def _on_tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._on_tick)
        policy, open_requests = self._policy, self._metrics.open_requests
        if open_requests:
            gc.collect(1)
        if policy is not None and policy.collects_now(self._loop.time(), open_requests, _resident()):
            gc.collect()
            policy.collected(open_requests, _resident())


def _resident() -> int:
    """Bytes of resident memory of this process; 0 if the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
