"""The worker: which slots it takes, when it gives them up, what it tries again, and that every outcome is stored."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.batches.store import Claimed
from anthro_asgi.batches.worker import ATTEMPTS, BatchWorker
from anthro_asgi.http.admission import Admission
from anthro_asgi.wire.errors import (
    NO_SPARE_SLOT,
    ApiError,
    BadUpstream,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    RateLimited,
)
from anthro_asgi.wire.message_batch import MessageBatch
from tests.support.batch_store import InlineStore, begin
from tests.support.clock import fake_clock

ME = b"me"
Answer = Callable[[Claimed], Awaitable[bytes]]


def now() -> float:
    return asyncio.get_running_loop().time()


class Engine:
    """Answers requests as `answer` does, and records when each attempt started and ended."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.started: list[tuple[str, float]] = []
        self.running = 0
        self.most = 0
        self.held: list[list[Any]] = []

    async def run(self, claimed: Claimed, attempt: str, held: list[Any]) -> bytes:
        assert attempt.startswith("req_")
        held.append({"messages": []})
        self.held.append(held)
        self.started.append((claimed.custom_id, now()))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answer(claimed)
        finally:
            self.running -= 1

    def times(self, custom_id: str) -> list[float]:
        return [at for name, at in self.started if name == custom_id]


class Bench:
    """A store with one batch, a worker, and the slots that it shares with clients."""

    def __init__(self, path: Path, answer: Answer, *, slots: int = 4) -> None:
        self.store = InlineStore(str(path / "batches.db"))
        self.engine = Engine(answer)
        self.admission = Admission(slots, 100, 3600.0)
        self.noted: Counter[str] = Counter()
        self.worker = self.new_worker()

    def new_worker(self, concurrency: int = 4, **options: Any) -> BatchWorker:
        return BatchWorker(
            self.store,
            self.engine.run,
            self.admission,
            concurrency=concurrency,
            lease=30.0,
            note=lambda what, kind: self.noted.update([kind]),
            clock=now,
            **options,
        )

    async def ended(self, batch_id: str = "b1", poll: float = 0.05) -> MessageBatch:
        """The batch, once it has ended, seen up to `poll` seconds late."""
        while True:
            batch = await self.store.get(ME, batch_id)
            assert batch is not None
            if batch.ended_at is not None:
                return batch
            await asyncio.sleep(poll)

    async def bodies(self, batch_id: str = "b1") -> list[bytes | None]:
        return [result.body for result in await self.store.results(ME, batch_id, -1)]


@asynccontextmanager
async def bench(
    path: Path, answer: Answer, requests: int, *, slots: int = 4, concurrency: int = 4, **options: Any
) -> AsyncIterator[Bench]:
    one = Bench(path, answer, slots=slots)
    one.worker = one.new_worker(concurrency, **options)
    await one.store.open()
    await begin(one.store, "b1", requests, now=now())
    one.worker.start()
    try:
        yield one
    finally:
        await one.worker.stop()
        await one.store.close()


async def answered(claimed: Claimed) -> bytes:
    await asyncio.sleep(1.0)
    return b'"%b"' % claimed.custom_id.encode()


def failing(*errors: ApiError | None) -> Answer:
    """Request 0 fails with these errors, one after the other; None and all that follows is success."""
    left = list(errors)

    async def answer(claimed: Claimed) -> bytes:
        if claimed.custom_id == "0" and left and (error := left.pop(0)) is not None:
            raise error
        return await answered(claimed)

    return answer


@fake_clock
async def test_a_batch_is_worked_off_with_the_given_concurrency(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 20, slots=100, concurrency=5) as one:
        begun = now()
        batch = await one.ended()
        assert batch.outcomes == (20, 0, 0, 0)
        assert one.engine.most == 5
        assert now() - begun == pytest.approx(4.0, abs=0.2)  # no slot is idle while outcomes are written
        assert await one.bodies() == [b'"%d"' % at for at in range(20)]
        assert one.noted == {"succeeded": 20}


@fake_clock
async def test_batches_take_only_the_slots_that_clients_leave(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 6, slots=3) as one:
        async with one.admission.slot(), one.admission.slot():
            await asyncio.sleep(3.5)
            assert one.engine.most == 1
        await one.ended()
        assert one.engine.most == 3


@fake_clock
async def test_a_client_that_waits_gets_the_slot_of_the_youngest_request_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 4, slots=2) as one:
        await asyncio.sleep(0.5)
        assert [name for name, _ in one.engine.started] == ["0", "1"]
        begun = now()
        async with one.admission.slot():
            assert now() == begun
            await asyncio.sleep(2.0)  # request 0 ends, and request 1 starts again in its slot
        assert (await one.ended()).outcomes == (4, 0, 0, 0)
        assert len(one.engine.times("1")) == 2
        assert len(one.engine.started) == 5
        assert one.noted == {"succeeded": 4, "yielded": 1}
        assert one.admission.running == one.admission.spare_running == 0


@fake_clock
async def test_no_slot_is_lost_when_clients_come_and_go_at_random(tmp_path: Path) -> None:
    source = random.Random(17)

    async def client(admission: Admission) -> None:
        await asyncio.sleep(source.random() * 10)
        async with admission.slot():
            await asyncio.sleep(source.choice([0.0, 0.0, 0.1, 1.0]))

    async with bench(tmp_path, answered, 50, slots=5, concurrency=5) as one:
        clients = [asyncio.create_task(client(one.admission)) for _ in range(200)]
        for left in source.sample(clients, 40):
            asyncio.get_running_loop().call_later(source.random() * 10, left.cancel)
        await asyncio.gather(*clients, return_exceptions=True)
        assert (await one.ended()).outcomes == (50, 0, 0, 0)
        assert one.noted["succeeded"] == 50
        assert one.admission.running == one.admission.spare_running == one.admission.waiting == 0


@fake_clock
async def test_a_failure_of_the_engine_is_tried_again_after_a_growing_delay(tmp_path: Path) -> None:
    errors = [EngineFailed("no"), BadUpstream("no", reason="broken"), EngineFailed("no"), BadUpstream("no")]
    async with bench(tmp_path, failing(*errors), 3) as one:
        assert (await one.ended(poll=1.0)).outcomes == (3, 0, 0, 0)
        times = one.engine.times("0")
        delays = [later - earlier for earlier, later in pairwise(times)]
        assert len(delays) == 4
        for delay, mean in zip(delays, (2, 8, 32, 128), strict=True):
            assert mean / 2 <= delay <= mean * 1.5 + 2  # the store is asked each second
        assert one.noted == {"succeeded": 3, "retried": 4}


@fake_clock
async def test_after_five_failures_the_outcome_is_the_error(tmp_path: Path) -> None:
    async with bench(tmp_path, failing(*[EngineFailed("it broke")] * ATTEMPTS), 2) as one:
        assert (await one.ended(poll=1.0)).outcomes == (1, 1, 0, 0)
        body = (await one.bodies())[0]
        assert body is not None
        assert b'{"type":"error","error":{"type":"api_error","message":"it broke"},"request_id":"req_' in body


@fake_clock
async def test_a_request_that_is_wrong_is_not_tried_again(tmp_path: Path) -> None:
    async with bench(tmp_path, failing(InvalidRequest("max_tokens: required")), 2) as one:
        assert (await one.ended()).outcomes == (1, 1, 0, 0)
        assert len(one.engine.started) == 2
        assert b'"invalid_request_error","message":"max_tokens: required"' in ((await one.bodies())[0] or b"")


@fake_clock
@pytest.mark.parametrize("error", [Overloaded("busy"), RateLimited("slow down"), Overloaded("away", reason="connect")])
async def test_an_engine_that_takes_no_requests_pauses_the_work_and_costs_no_attempt(
    tmp_path: Path, error: ApiError
) -> None:
    until = now() + 600

    async def answer(claimed: Claimed) -> bytes:
        if now() < until:
            raise error
        return await answered(claimed)

    async with bench(tmp_path, answer, 8) as one:
        batch = await one.ended(poll=5.0)
        assert batch.outcomes == (8, 0, 0, 0)
        tried = sorted({at for _, at in one.engine.started if at < until})
        assert 20 < len(tried) < 40  # half a second at first, then up to half a minute
        assert now() - until < 60


@fake_clock
async def test_the_pause_is_as_long_as_the_engine_advises(tmp_path: Path) -> None:
    async with bench(tmp_path, failing(Overloaded("busy", retry_after=20)), 1, concurrency=1) as one:
        await one.ended()
        first, second = one.engine.times("0")
        assert 16 <= second - first <= 24.2


@fake_clock
@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, ZeroDivisionError])
async def test_an_engine_that_raises_anything_stops_neither_the_worker_nor_the_batch(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    async def answer(claimed: Claimed) -> bytes:
        if claimed.custom_id == "0":
            raise kind
        return await answered(claimed)

    async with bench(tmp_path, answer, 2) as one:
        assert (await one.ended(poll=1.0)).outcomes == (1, 1, 0, 0)
        assert len(one.engine.times("0")) == ATTEMPTS


@fake_clock
async def test_an_engine_that_reports_its_cancellation_as_an_error_has_not_failed(tmp_path: Path) -> None:
    async def answer(claimed: Claimed) -> bytes:
        try:
            return await answered(claimed)
        except asyncio.CancelledError:
            raise EngineFailed("cancelled") from None

    async with bench(tmp_path, answer, 1, slots=1) as one:
        await asyncio.sleep(0.5)
        async with one.admission.slot():
            pass
        assert (await one.ended()).outcomes == (1, 0, 0, 0)
        assert one.noted == {"yielded": 1, "succeeded": 1}


@fake_clock
async def test_outcomes_wait_while_the_store_fails(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 6) as one:
        await asyncio.sleep(0.5)
        one.store.fails = True
        await asyncio.sleep(60)
        one.store.fails = False
        assert (await one.ended()).outcomes == (6, 0, 0, 0)
        assert len(one.engine.started) == 6


@fake_clock
async def test_a_stopped_worker_leaves_its_requests_to_others(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 9, slots=100) as one:
        await asyncio.sleep(1.5)
        await one.worker.stop()
        assert one.engine.running == one.admission.running == 0
        other = one.new_worker()
        other.start()
        begun = now()
        assert (await one.ended()).outcomes == (9, 0, 0, 0)
        assert now() - begun < 5  # no lease has to run out
        await other.stop()
        assert Counter(len(one.engine.times(str(at))) for at in range(9)) == {1: 5, 2: 4}


@fake_clock
async def test_of_a_canceled_batch_nothing_starts_any_more(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 20) as one:
        await asyncio.sleep(0.5)
        await one.store.cancel(ME, "b1", now())
        one.worker.canceled("b1")
        begun = now()
        assert (await one.ended()).outcomes == (4, 0, 16, 0)
        assert now() - begun < 1.0


@fake_clock
async def test_what_a_process_that_was_killed_had_claimed_runs_when_its_lease_has_run_out(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 3) as one:
        await one.ended()
        await begin(one.store, "b2", 2, now=now())
        await one.store.claim("killed", 2, now(), now() + 30)
        begun = now()
        assert (await one.ended("b2")).outcomes == (2, 0, 0, 0)
        assert 30 <= now() - begun <= 33


@fake_clock
async def test_an_idle_worker_asks_the_store_about_once_a_second(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 1) as one:
        await one.ended()
        asked = one.store.transactions
        await asyncio.sleep(100)
        assert one.store.transactions - asked < 160


@fake_clock
async def test_a_batch_that_another_process_canceled_starts_nothing_after_a_few_seconds(tmp_path: Path) -> None:
    async def slow(claimed: Claimed) -> bytes:
        await asyncio.sleep(20)
        return b"{}"

    async with bench(tmp_path, slow, 20) as one:
        await asyncio.sleep(0.5)
        begun = now()
        await one.store.cancel(ME, "b1", begun)  # this worker learns it from the store
        assert (await one.ended(poll=1.0)).outcomes == (4, 0, 16, 0)
        assert len(one.engine.started) == 4
        assert now() - begun < 30


# several engines


async def engine_of(claimed: Claimed) -> str:
    return claimed.batch_id


TWO: dict[str, Any] = {"engine_of": engine_of, "engines": ("b1", "b2")}


@fake_clock
@pytest.mark.parametrize("error", [Overloaded("busy"), Overloaded("full", reason=NO_SPARE_SLOT)])
async def test_a_batch_for_a_busy_engine_does_not_hold_back_one_for_another(tmp_path: Path, error: ApiError) -> None:
    is_busy = True

    async def answer(claimed: Claimed) -> bytes:
        if claimed.batch_id == "b1" and is_busy:
            raise error
        return await answered(claimed)

    async with bench(tmp_path, answer, 50, slots=100, **TWO) as one:
        await asyncio.sleep(5)
        begun = now()
        await begin(one.store, "b2", 40, now=now())
        assert (await one.ended("b2")).outcomes == (40, 0, 0, 0)
        assert now() - begun < 12
        is_busy = False
        assert (await one.ended("b1")).outcomes == (50, 0, 0, 0)


@fake_clock
async def test_each_engine_has_the_given_concurrency(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 20, slots=100, **TWO) as one:
        await begin(one.store, "b2", 20, now=now())
        begun = now()
        await one.ended("b1")
        await one.ended("b2")
        assert one.engine.most == 8
        assert now() - begun < 8


@fake_clock
async def test_a_client_that_waits_at_one_engine_stops_the_youngest_request_there(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 2, slots=100, **TWO) as one:
        await begin(one.store, "b2", 2, now=now())
        one.worker.look()
        await asyncio.sleep(0.5)
        assert one.worker.running == 4
        one.worker.make_room("b2")
        await asyncio.sleep(0)
        await one.ended("b1")
        await one.ended("b2")
        assert one.noted == {"succeeded": 4, "yielded": 1}


@fake_clock
async def test_a_worker_keeps_few_requests_of_an_engine_that_is_away(tmp_path: Path) -> None:
    async def away(claimed: Claimed) -> bytes:
        raise Overloaded("away", reason="connect")

    async def one_engine(claimed: Claimed) -> str:
        return "a"

    async with bench(tmp_path, away, 30, slots=100, engine_of=one_engine, engines=("a", "b")) as one:
        for at in range(2, 12):
            await begin(one.store, f"b{at}", 30, now=now())
        await asyncio.sleep(60)
        other = await one.store.claim("other", 1000, now(), now() + 30)
        assert len(other) >= 330 - 3 * 4  # twice the concurrency is ready, and some may be on their way back


# short of CPU


@fake_clock
async def test_beside_clients_fewer_requests_run_while_the_process_is_short_of_cpu(tmp_path: Path) -> None:
    async with bench(tmp_path, answered, 60, slots=100, concurrency=8) as one:
        async with one.admission.slot():
            await asyncio.sleep(0.5)
            assert one.engine.running == 8
            for _ in range(20):
                one.worker.throttle.measured(1.0, clients=True)
            await asyncio.sleep(0.55)
            assert one.engine.running <= 3
        await asyncio.sleep(2.5)
        assert one.engine.running == 8
        assert (await one.ended()).outcomes == (60, 0, 0, 0)


@fake_clock
async def test_what_an_attempt_holds_is_freed_whatever_its_outcome(tmp_path: Path) -> None:
    async with bench(tmp_path, failing(BadUpstream("no"), InvalidRequest("no")), 3, slots=2) as one:
        await asyncio.sleep(0.5)
        async with one.admission.slot(None):  # an attempt is given up
            pass
        await one.ended()
    assert one.noted["yielded"] == 1
    assert one.noted["retried"] >= 1
    assert len(one.engine.held) > 3
    assert not any(one.engine.held)
