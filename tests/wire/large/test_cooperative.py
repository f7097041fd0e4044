"""Work in steps: what it makes, when others get their turn, and that it ends where it is left."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anthro_asgi.wire.large.cooperative import Steps, clear_in_steps, run_to_end, run_with_yields


def counting(steps: int, log: list[Any]) -> Steps[str]:
    try:
        for number in range(steps):
            log.append(number)
            yield
        return "made"
    finally:
        log.append("over")


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


async def turns_of_others(steps: Steps[Any], clock: Callable[[], float]) -> tuple[Any, int]:
    """What is made, and how often somebody else was let run meanwhile."""
    others = 0

    def other() -> None:
        nonlocal others, handle
        others += 1
        handle = asyncio.get_running_loop().call_soon(other)

    handle = asyncio.get_running_loop().call_soon(other)
    try:
        return await run_with_yields(steps, clock), others
    finally:
        handle.cancel()


def test_steps_can_be_gone_through_without_a_pause() -> None:
    log: list[Any] = []
    assert run_to_end(counting(3, log)) == "made"
    assert log == [0, 1, 2, "over"]


async def test_others_get_a_turn_whenever_a_millisecond_is_over() -> None:
    assert await turns_of_others(counting(175, []), ticking(2**-14)) == ("made", 10)  # after 17 steps


async def test_there_is_a_turn_after_every_step_that_takes_longer() -> None:
    assert await turns_of_others(counting(7, []), ticking(0.002)) == ("made", 8)


async def test_short_work_is_done_in_one_turn() -> None:
    assert await turns_of_others(counting(7, []), ticking(0.0)) == ("made", 0)
    assert await turns_of_others(counting(0, []), ticking(0.0)) == ("made", 0)


async def test_what_a_step_raises_is_raised() -> None:
    def broken() -> Steps[None]:
        yield
        raise ValueError("out of ink")

    with pytest.raises(ValueError, match="out of ink"):
        await run_with_yields(broken(), ticking(0.0))


async def test_a_cancelled_work_is_left_at_once() -> None:
    log: list[Any] = []
    work = asyncio.ensure_future(turns_of_others(counting(1000, log), ticking(0.002)))
    for _ in range(5):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
    assert log[-1] == "over"
    assert 2 < len(log) < 10


async def test_a_list_is_let_go_of_one_by_one() -> None:
    held = [object(), object(), object()]
    assert [len(held) for _ in clear_in_steps(held)] == [2, 1, 0]
