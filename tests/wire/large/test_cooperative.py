"""Work in steps: its result, when it yields to the loop, and that cancelling stops it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anthro_asgi.wire.large.cooperative import Steps, clear_in_steps, drop_in_steps, run_to_end, run_with_yields


def counting(steps: int, log: list[Any]) -> Steps[str]:
    try:
        for number in range(steps):
            log.append(number)
            yield
        return "made"
    finally:
        log.append("over")


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that advances by `seconds` at each reading."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


async def yields_to_others(steps: Steps[Any], clock: Callable[[], float]) -> tuple[Any, int]:
    """The result, and how often another task ran meanwhile."""
    loop = asyncio.get_running_loop()
    others = 0
    handle: asyncio.Handle

    def other() -> None:
        nonlocal others, handle
        others += 1
        handle = loop.call_soon(other)

    handle = loop.call_soon(other)
    try:
        return await run_with_yields(steps, clock), others
    finally:
        handle.cancel()


def test_steps_can_be_run_without_a_pause() -> None:
    log: list[Any] = []
    assert run_to_end(counting(3, log)) == "made"
    assert log == [0, 1, 2, "over"]


async def test_it_yields_to_the_loop_after_each_millisecond() -> None:
    assert await yields_to_others(counting(175, []), ticking(2**-14)) == ("made", 10)  # after 17 steps


async def test_it_yields_after_every_step_longer_than_a_millisecond() -> None:
    assert await yields_to_others(counting(7, []), ticking(0.002)) == ("made", 8)


async def test_short_work_runs_without_a_yield() -> None:
    assert await yields_to_others(counting(7, []), ticking(0.0)) == ("made", 0)
    assert await yields_to_others(counting(0, []), ticking(0.0)) == ("made", 0)


async def test_an_exception_of_a_step_is_raised() -> None:
    def broken() -> Steps[None]:
        yield
        raise ValueError("out of ink")

    with pytest.raises(ValueError, match="out of ink"):
        await run_with_yields(broken(), ticking(0.0))


async def test_cancelled_work_stops_at_once() -> None:
    log: list[Any] = []
    work = asyncio.ensure_future(yields_to_others(counting(1000, log), ticking(0.002)))
    for _ in range(5):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
    assert log[-1] == "over"
    assert 2 < len(log) < 10


async def test_a_list_is_cleared_item_by_item() -> None:
    held = [object(), object(), object()]
    assert [len(held) for _ in clear_in_steps(held)] == [2, 1, 0]


@pytest.mark.slow
def test_a_wide_value_is_dropped_in_short_steps() -> None:
    wide: Any = {"tools": [{f"p{number}": [number] for number in range(20_000)} for _ in range(3)]}
    held = [wide]
    del wide
    assert sum(1 for _ in drop_in_steps(held)) > 3 * 20_000 // 256
    assert held == []


def test_many_empty_values_are_dropped_in_short_steps() -> None:
    assert sum(1 for _ in drop_in_steps([[{"enum": [[] for _ in range(20_000)]}]])) > 2 * 20_000 // 256 - 2


def test_a_dropped_value_that_is_needed_elsewhere_keeps_its_content() -> None:
    needed = {"schema": {f"p{number}": [number, {}] for number in range(1_000)}}
    before = repr(needed)
    run_to_end(drop_in_steps([[needed, [needed["schema"]]], {"other": needed}]))
    assert repr(needed) == before
