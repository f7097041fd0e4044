"""Who runs and who waits."""

import asyncio

import pytest

from anthro_asgi.simulator.queue import RequestQueue
from anthro_asgi.wire.errors import Overloaded


class Runner:
    """One that runs until it is let go."""

    def __init__(self, gate: RequestQueue, name: str, order: list[str]) -> None:
        self._queue = gate
        self._name = name
        self._order = order
        self._go = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with self._queue:
            self._order.append(self._name)
            await self._go.wait()

    async def leave(self) -> None:
        self._go.set()
        await self.task

    async def give_up(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_run_and_the_others_follow_in_the_order_they_came() -> None:
    gate, order = RequestQueue(2), list[str]()
    runners = [Runner(gate, name, order) for name in "abcde"]
    await settle()
    assert (order, gate.running) == (["a", "b"], 2)
    assert repr(gate) == "<RequestQueue running=2/2 waiting=3>"
    for number, runner in enumerate(runners):
        await runner.leave()
        await settle()
        assert order == list("abcde")[: number + 3]
    assert repr(gate) == "<RequestQueue running=0/2 waiting=0>"


async def test_without_a_limit_all_run_at_once() -> None:
    gate, order = RequestQueue(), list[str]()
    runners = [Runner(gate, name, order) for name in "abc"]
    await settle()
    assert (order, gate.running) == (["a", "b", "c"], 3)
    for runner in runners:
        await runner.leave()
    assert gate.running == 0


async def test_more_than_may_wait_are_turned_away() -> None:
    gate, order = RequestQueue(1, 1), list[str]()
    runners = [Runner(gate, name, order) for name in "ab"]
    await settle()
    with pytest.raises(Overloaded):
        async with gate:
            raise AssertionError("let in")
    for runner in runners:
        await runner.leave()
    assert order == ["a", "b"]
    async with gate:
        assert gate.running == 1
    assert gate.running == 0


async def test_who_gives_up_waiting_is_left_out() -> None:
    gate, order = RequestQueue(1), list[str]()
    first, second, third = (Runner(gate, name, order) for name in "abc")
    await settle()
    await second.give_up()
    await first.leave()
    await settle()
    assert order == ["a", "c"]
    await third.leave()
    assert gate.running == 0


async def test_a_turn_that_came_as_its_runner_gave_up_goes_to_the_next() -> None:
    gate, order = RequestQueue(1), list[str]()
    first, second, third = (Runner(gate, name, order) for name in "abc")
    await settle()
    first.task.cancel()
    await asyncio.sleep(0)  # the place is the second's now, who does not know it yet
    second.task.cancel()
    await settle()
    assert order == ["a", "c"]
    await asyncio.gather(first.task, second.task, return_exceptions=True)
    await third.leave()
    assert gate.running == 0
