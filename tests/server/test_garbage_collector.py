"""The policy applied to the real garbage collector of this process, on a fake clock."""

import asyncio
import gc
import re
import weakref
from collections.abc import Iterator

import pytest

from anthro_asgi.observability.logs import RequestRecord
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.server import garbage_collector
from anthro_asgi.server.collection_policy import WORTHWHILE
from anthro_asgi.server.garbage_collector import GarbageCollector
from tests.support.clock import fake_clock
from tests.support.heap import freeze_heap

SOME = 40_000  # objects: at least five collections of generation 1


class Node:
    """An object in a reference cycle."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(scope="module", autouse=True)
def _heap_as_before() -> Iterator[None]:
    yield
    freeze_heap()


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    assert gc.get_threshold() == before


def pauses(metrics: Metrics, generation: str) -> float:
    """The number of collections of this generation that `/metrics` reports."""
    count = re.escape(f'anthro_asgi_gc_pause_seconds_count{{generation="{generation}"}}')
    found = re.search(rf"^{count} (\S+)$", metrics.exposition()[0].decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@fake_clock
async def test_no_full_collection_starts_by_itself_and_young_garbage_is_freed_nevertheless() -> None:
    metrics = Metrics(())
    with GarbageCollector(metrics):
        before = gc.get_stats()[2]["collections"]
        garbage = weakref.ref(Node())
        kept = [[] for _ in range(SOME)]  # type: ignore[var-annotated]  # empty lists of anything
        assert len(kept) == SOME
        assert gc.get_stats()[2]["collections"] == before
        assert garbage() is None
        assert pauses(metrics, "2") == 0
        assert pauses(metrics, "1") >= 2
        assert pauses(metrics, "0") >= 2


@fake_clock
async def test_young_objects_are_collected_four_times_a_second_while_requests_are_open() -> None:
    metrics = Metrics(())
    with GarbageCollector(metrics):
        await asyncio.sleep(10)
        assert pauses(metrics, "1") == 0, "no request is open"
        metrics.request_began()
        await asyncio.sleep(10)
        assert pauses(metrics, "1") == pytest.approx(40, abs=2)


@fake_clock
async def test_old_cycles_are_collected_when_the_service_is_idle() -> None:
    metrics = Metrics(())
    with GarbageCollector(metrics):
        metrics.request_began()
        node = Node()
        garbage = weakref.ref(node)
        kept = [[] for _ in range(WORTHWHILE * SOME // 5)]  # type: ignore[var-annotated]  # as above
        del node  # it is garbage now, and not young
        await asyncio.sleep(60)
        assert garbage() is not None, "a request is open"
        metrics.request_ended(RequestRecord("POST", "/v1/messages", "req_1"))
        await asyncio.sleep(4)
        assert garbage() is None
        assert kept


@fake_clock
async def test_old_cycles_are_collected_when_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(())
    memory = [100 << 20]
    monkeypatch.setattr(garbage_collector, "_resident", lambda: memory[0])
    with GarbageCollector(metrics, growth=50 << 20):
        metrics.request_began()
        node = Node()
        garbage = weakref.ref(node)
        kept = [[] for _ in range(SOME)]  # type: ignore[var-annotated]  # as above
        del node
        await asyncio.sleep(3)
        assert garbage() is not None
        memory[0] = 151 << 20
        await asyncio.sleep(2)
        assert garbage() is None
        assert kept


@fake_clock
async def test_without_a_bound_python_collects_as_usual_and_pauses_are_counted() -> None:
    metrics = Metrics(())
    before = gc.get_threshold()
    with GarbageCollector(metrics, growth=None):
        assert gc.get_threshold() == before
        kept = [[] for _ in range(SOME)]  # type: ignore[var-annotated]  # as above
        await asyncio.sleep(10)
        assert len(kept) == SOME
        assert pauses(metrics, "0") >= 2


@fake_clock
async def test_stopping_leaves_the_collector_to_python() -> None:
    metrics = Metrics(())
    collector = GarbageCollector(metrics)
    collector.stop()
    before = gc.get_threshold(), len(gc.callbacks)
    collector.start()
    collector.stop()
    collector.stop()
    assert (gc.get_threshold(), len(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0
    counted = pauses(metrics, "2")
    gc.collect()
    assert pauses(metrics, "2") == counted
