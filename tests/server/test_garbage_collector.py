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
from anthro_asgi.server.garbage_collector import GarbageCollector
from tests.support.clock import fake_clock

SOME = 40_000  # objects: more than two collections of generation 1


class Node:
    """An object in a reference cycle."""

    def __init__(self) -> None:
        self.me = self


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
async def test_python_starts_no_full_collection_by_itself_while_the_policy_applies() -> None:
    young = gc.get_threshold()[:2]
    with GarbageCollector(Metrics(())):
        assert gc.get_threshold()[:2] == young
        before = gc.get_stats()[2]["collections"]
        kept = [[] for _ in range(10 * SOME)]  # type: ignore[var-annotated]  # empty lists of anything
        assert gc.get_stats()[2]["collections"] == before
        assert len(kept) == 10 * SOME


@fake_clock
async def test_recent_objects_are_collected_and_the_survivors_are_frozen() -> None:
    metrics = Metrics(())
    with GarbageCollector(metrics):
        before = gc.get_freeze_count()
        kept = [[] for _ in range(SOME)]  # type: ignore[var-annotated]  # as above
        garbage = weakref.ref(Node())
        await asyncio.sleep(0)
        assert garbage() is None
        assert gc.get_freeze_count() >= before + len(kept)
        assert pauses(metrics, "2") == 1
        assert pauses(metrics, "1") >= 2
        assert pauses(metrics, "0") >= 2


@fake_clock
async def test_cycles_of_frozen_objects_are_collected_when_the_service_is_idle() -> None:
    metrics = Metrics(())
    with GarbageCollector(metrics):
        metrics.request_began()
        node = Node()
        garbage = weakref.ref(node)
        for _ in range(10):
            assert len([[] for _ in range(SOME)]) == SOME
            await asyncio.sleep(0)
        del node  # it is garbage now, in the frozen part
        await asyncio.sleep(60)
        assert garbage() is not None, "a request is open"
        metrics.request_ended(RequestRecord("POST", "/v1/messages", "req_1"))
        await asyncio.sleep(4)
        assert garbage() is None


@fake_clock
async def test_cycles_of_frozen_objects_are_collected_when_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(())
    memory = [100 << 20]
    monkeypatch.setattr(garbage_collector, "_resident", lambda: memory[0])
    with GarbageCollector(metrics, growth=50 << 20):
        metrics.request_began()
        node = Node()
        garbage = weakref.ref(node)
        gc.freeze()
        del node
        await asyncio.sleep(3)
        assert garbage() is not None
        memory[0] = 151 << 20
        await asyncio.sleep(2)
        assert garbage() is None


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
