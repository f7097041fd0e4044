"""Slots in order of arrival, held against a slow model; no cancellation loses one."""

import asyncio
import random

import pytest

from anthro_asgi.http.slots import Slots


async def taken(slots: Slots) -> None:
    if not slots.take():
        await slots.wait()


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_without_a_limit_every_task_gets_a_slot_at_once() -> None:
    slots = Slots(None)
    assert all(slots.take() for _ in range(100))
    assert (slots.running, slots.waiting, slots.are_taken) == (100, 0, False)


async def test_a_task_that_is_cancelled_just_after_it_got_a_slot_gives_it_to_the_next() -> None:
    slots = Slots(1)
    assert slots.take()
    first, second = (asyncio.ensure_future(taken(slots)) for _ in range(2))
    await turn()
    slots.release()
    first.cancel()
    await turn()
    assert first.cancelled()
    assert second.done()
    assert (slots.running, slots.waiting) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_arrivals_releases_and_cancellations_gives_the_slots_in_order(seed: int) -> None:
    draw, slots = random.Random(seed), Slots(3)
    waiting: list[asyncio.Future[None]] = []  # in order of arrival
    running = 0
    for _ in range(200):
        match draw.randrange(3):
            case 0:
                waiting.append(asyncio.ensure_future(taken(slots)))
            case 1 if running:
                slots.release()
                running -= 1
            case _ if waiting:
                waiting.pop(draw.randrange(len(waiting))).cancel()
        await turn()
        served, waiting = waiting[: 3 - running], waiting[3 - running :]
        running += len(served)
        assert all(task.done() for task in served)
        assert not any(task.done() for task in waiting)
        assert (slots.running, slots.waiting) == (running, len(waiting))
    for task in waiting:
        task.cancel()
    await turn()
