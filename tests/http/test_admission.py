"""Slots at the engine: the limit, the queue, refusals, and that no slot is ever lost."""

import asyncio
import random
import socket
import time
from time import perf_counter

import pytest

from anthro_asgi.http.admission import Admission
from anthro_asgi.wire.errors import Overloaded
from tests.support.clock import fake_clock

KEY, OTHER = b"key", b"other"


class Guests:
    """Requests that start and end as a test tells them."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.served: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, key: bytes | None = None) -> None:
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._stay(name, key))
        await asyncio.sleep(0)

    async def _stay(self, name: str, key: bytes | None) -> None:
        async with self._admission.slot(key):
            self.served.append(name)
            await self._leave[name].wait()

    def leave(self, name: str) -> None:
        self._leave[name].set()

    async def go(self, name: str) -> None:
        self.leave(name)
        await self._tasks[name]
        await asyncio.sleep(0)

    async def vanish(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks[name]})

    def task(self, name: str) -> "asyncio.Task[None]":
        return self._tasks[name]

    async def outcome(self, name: str) -> None:
        await self._tasks[name]


async def test_slots_are_acquired_up_to_the_limit_and_then_in_the_order_of_the_queue() -> None:
    admission = Admission(limit=2, queue=2)
    guests = Guests(admission)
    for name in "abcd":
        await guests.come(name)
    assert guests.served == ["a", "b"]
    assert repr(admission) == "<Admission running=2/2 waiting=2/2>"
    await guests.go("b")
    await guests.go("a")
    assert guests.served == ["a", "b", "c", "d"]
    await guests.go("c")
    await guests.go("d")
    assert repr(admission) == "<Admission running=0/2 waiting=0/2>"


async def test_a_request_beyond_the_queue_is_refused_with_retry_after() -> None:
    noted: list[tuple[str, str]] = []
    admission = Admission(limit=1, queue=1, note=lambda what, kind: noted.append((what, kind)))
    guests = Guests(admission)
    for name in "abc":
        await guests.come(name)
    with pytest.raises(Overloaded) as caught:
        await guests.outcome("c")
    assert caught.value.status == 529
    assert int(dict(caught.value.headers)["retry-after"]) >= 1
    with pytest.raises(Overloaded):
        admission.check()
    assert noted == [("refused", "queue_full")] * 2
    await guests.go("a")
    await guests.go("b")
    admission.check()


async def test_without_a_queue_a_request_gets_a_slot_or_is_refused() -> None:
    admission = Admission(limit=1, queue=0)
    guests = Guests(admission)
    await guests.come("a")
    with pytest.raises(Overloaded):
        admission.check()
    await guests.go("a")
    admission.check()


@fake_clock
async def test_a_request_that_waits_too_long_is_refused_and_leaves_the_queue() -> None:
    noted: list[tuple[str, str]] = []
    admission = Admission(limit=1, queue=5, timeout=3.0, note=lambda what, kind: noted.append((what, kind)))
    guests = Guests(admission)
    await guests.come("a")
    await guests.come("b")
    with pytest.raises(Overloaded, match="3 s"):
        await guests.outcome("b")
    assert noted == [("refused", "queue_timeout")]
    await guests.come("c")
    assert admission.waiting == 1
    await guests.go("a")
    assert guests.served == ["a", "c"]
    await guests.go("c")


async def test_a_slot_that_was_freed_while_the_process_was_stopped_is_used() -> None:
    """After a stop, the timer of the deadline fires before the loop has handled the end of an answer."""
    admission = Admission(limit=1, queue=5, timeout=0.05)
    guests = Guests(admission)
    await guests.come("a")
    await guests.come("b")
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()

    def ended() -> None:
        loop.remove_reader(ours)
        guests.leave("a")

    with ours, theirs:
        loop.add_reader(ours, ended)
        theirs.send(b"the answer has ended")
        loop.call_soon(time.sleep, 0.1)
        while "b" not in guests.served:
            await asyncio.wait([guests.task("b")], timeout=0.01)
            assert not guests.task("b").done()
    await guests.go("b")
    assert guests.served == ["a", "b"]


async def test_a_cancelled_request_leaves_the_queue() -> None:
    admission = Admission(limit=1, queue=5)
    guests = Guests(admission)
    for name in "abc":
        await guests.come(name)
    await guests.vanish("b")
    assert admission.waiting == 1
    await guests.go("a")
    assert guests.served == ["a", "c"]
    await guests.go("c")
    assert repr(admission) == "<Admission running=0/1 waiting=0/5>"


async def test_a_slot_acquired_by_a_request_that_is_cancelled_at_once_goes_to_the_next() -> None:
    admission = Admission(limit=1, queue=5)
    guests = Guests(admission)
    await admission.acquire(None)
    for name in "bc":
        await guests.come(name)
    admission.release(None)  # to b, whose task has not run yet
    await guests.vanish("b")
    await asyncio.sleep(0)
    assert guests.served == ["c"]
    await guests.go("c")
    assert repr(admission) == "<Admission running=0/1 waiting=0/5>"


async def test_one_key_is_limited_to_its_share_of_slots_and_queue_places() -> None:
    noted: list[tuple[str, str]] = []
    admission = Admission(limit=2, queue=9, per_key=3, note=lambda what, kind: noted.append((what, kind)))
    guests = Guests(admission)
    for name in "abc":
        await guests.come(name, KEY)
    assert (admission.running, admission.waiting) == (2, 1)
    with pytest.raises(Overloaded, match="its limit"):
        admission.check(KEY)
    admission.check(OTHER)
    admission.check(None)
    assert noted == [("refused", "key")]
    await guests.go("a")
    admission.check(KEY)
    for name in "bc":
        await guests.go(name)
    assert not admission.keys, "nothing is kept of keys that have nothing open"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@fake_clock
async def test_no_slot_is_lost_or_invented_under_random_load(seed: int) -> None:
    chance = random.Random(seed)

    admission = Admission(limit=3, queue=4, timeout=5.0, per_key=4)
    inside = 0

    async def visit() -> None:
        nonlocal inside
        async with admission.slot(chance.choice((None, KEY, OTHER))):
            inside += 1
            assert inside == admission.running <= 3
            try:
                await asyncio.sleep(chance.random() * 4)
            finally:
                inside -= 1

    async def life() -> None:
        await asyncio.sleep(chance.random() * 20)
        visitor = asyncio.create_task(visit())
        await asyncio.wait({visitor}, timeout=chance.choice((0, 0.5, 60)))
        visitor.cancel()
        await asyncio.wait({visitor})
        assert visitor.cancelled() or visitor.exception() is None or isinstance(visitor.exception(), Overloaded)

    await asyncio.gather(*(life() for _ in range(200)))
    assert repr(admission) == "<Admission running=0/3 waiting=0/4>"
    assert not admission.keys


async def test_a_refusal_takes_less_than_a_millisecond() -> None:
    admission = Admission(limit=1000, queue=0)
    guests = Guests(admission)
    for number in range(1000):
        await guests.come(str(number))
    took = []
    for _ in range(100):
        began = perf_counter()
        with pytest.raises(Overloaded):
            admission.check()
        took.append(perf_counter() - began)
    assert min(took) < 0.001
    for number in range(1000):
        await guests.go(str(number))
