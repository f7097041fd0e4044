"""The clock that many streams share, on real time and a real event loop."""

import asyncio
import inspect
from time import monotonic

import pytest

from anthro_asgi.http.inline_driver import InlineDriver
from anthro_asgi.simulator import LoopClock, Sleeper


async def test_nobody_wakes_before_the_hour() -> None:
    clock = LoopClock()
    begun = clock.time()
    hours = [begun + 0.001 * number for number in (7, 3, 5, 5, 1)]
    woken: list[tuple[float, float]] = []

    async def sleep(hour: float) -> None:
        await clock.sleeper().until(hour)
        woken.append((hour, monotonic()))

    await asyncio.gather(*map(sleep, hours))
    assert [hour for hour, _ in woken] == sorted(hours)
    assert all(hour <= now for hour, now in woken)
    clock.close()


async def test_an_hour_that_has_passed_is_a_turn_for_the_others() -> None:
    clock = LoopClock()
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "turn")
    await clock.sleeper().until(clock.time() - 5)
    assert others == ["turn"]
    clock.close()


async def test_one_nap_serves_a_stream_from_token_to_token_driven_or_not() -> None:
    clock = LoopClock()

    async def tokens(sleeper: Sleeper) -> list[float]:
        begun = clock.time()
        late = []
        for number in range(20):
            await sleeper.until(begun + number * 0.001)
            late.append(monotonic() - begun - number * 0.001)
        return late

    for late in (await tokens(clock.sleeper()), await InlineDriver(tokens(clock.sleeper()))):
        assert len(late) == 20
        assert min(late) >= 0
    clock.close()


async def test_a_driven_stream_goes_on_within_the_alarms_callback() -> None:
    clock = LoopClock()

    async def tokens() -> list[bool]:
        sleeper, within = clock.sleeper(), list[bool]()
        for number in range(10):
            await sleeper.until(clock.time() + (-1 if number % 2 else 0.0005))
            within.append(any(frame.function == "_rang" for frame in inspect.stack(0)))
        return within

    assert await InlineDriver(tokens()) == [True] * 10
    assert await tokens() == [False] * 10
    clock.close()


async def test_who_leaves_in_its_sleep_keeps_nobody_else_from_waking() -> None:
    clock = LoopClock()
    soon = clock.time() + 0.002
    leaving = asyncio.ensure_future(clock.sleeper().until(soon))
    staying = asyncio.ensure_future(clock.sleeper().until(soon + 0.002))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await staying
    clock.close()


async def test_a_nap_is_not_ended_by_the_hour_of_one_it_gave_up() -> None:
    clock = LoopClock()
    sleeper = clock.sleeper()
    begun = clock.time()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleeper.until(begun + 0.2), 0.001)
    await sleeper.until(begun + 0.4)
    assert clock.time() >= begun + 0.4
    clock.close()


async def test_a_crowd_that_is_due_at_once_leaves_turns_to_the_loop() -> None:
    clock = LoopClock()
    hour = clock.time() + 0.005
    seen: list[int] = []
    woken = 0

    async def sleep() -> None:
        nonlocal woken
        await InlineDriver(once())

    async def once() -> None:
        nonlocal woken
        await clock.sleeper().until(hour)
        woken += 1

    async def other() -> None:
        while woken < 500:
            seen.append(woken)
            await asyncio.sleep(0)

    await asyncio.gather(*(sleep() for _ in range(500)), other())
    assert len({number for number in seen if number}) >= 500 // 64 - 1
    clock.close()


def test_a_clock_goes_on_in_another_loop_and_gives_back_what_it_took() -> None:
    clock = LoopClock()

    async def sleep() -> float:
        await clock.sleeper().until(hour := clock.time() + 0.001)
        return clock.time() - hour

    assert asyncio.run(sleep()) >= 0
    assert asyncio.run(sleep()) >= 0
    clock.close()
    clock.close()
