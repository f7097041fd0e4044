"""Work in steps: its result, when it yields to the loop, and that cancelling stops it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Work:
    """Calls of `run_with_yields` at the same time, and the iteration of the event loop in which each step was run.

    Each step is a slice, if it takes more than a millisecond. `iteration` counts from 0.
    """

    def __init__(self, seconds_per_step: float) -> None:
        self.iteration = 0
        self.steps: list[tuple[int, str]] = []  # the iteration, and whose step it was
        self._clock = ticking(seconds_per_step)
        self._expected = 0
        self._reached = asyncio.Event()
        self._counter = asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self.iteration += 1
        self._counter = asyncio.get_running_loop().call_soon(self._count)

    def start(self, name: str, steps: int) -> asyncio.Task[str]:
        return asyncio.ensure_future(self._run(name, steps))

    async def _run(self, name: str, steps: int) -> str:
        return await run_with_yields(self._steps(name, steps), self._clock)

    def _steps(self, name: str, steps: int) -> Steps[str]:
        for _ in range(steps):
            self.steps.append((self.iteration, name))
            if len(self.steps) == self._expected:
                self._reached.set()
            yield
        return name

    async def reached(self, steps: int) -> None:
        """Wait until so many steps were run in all."""
        self._expected = steps
        await self._reached.wait()

    def of(self, name: str) -> list[int]:
        """The iterations in which the steps of this call were run."""
        return [iteration for iteration, other in self.steps if other == name]

    def stop(self) -> None:
        self._counter.cancel()


@contextmanager
def working(seconds_per_step: float = 0.002) -> Iterator[Work]:
    work = Work(seconds_per_step)
    try:
        yield work
    finally:
        work.stop()


async def test_calls_at_the_same_time_take_turns_and_an_iteration_of_the_loop_has_one_slice() -> None:
    with working() as work:
        calls = [work.start(name, 20) for name in "abcde"]
        assert await asyncio.gather(*calls) == list("abcde")
    iterations = [iteration for iteration, _ in work.steps]
    names = [name for _, name in work.steps]
    assert len(set(iterations)) == 100
    assert max(iterations) <= 6 * 20 + 6  # one of six is left out, after the last call has had its turn
    for first in range(0, 100, 5):
        assert set(names[first : first + 5]) == set("abcde")


async def test_a_call_that_comes_later_waits_for_its_turn_and_then_shares() -> None:
    with working() as work:
        first = work.start("first", 30)
        await work.reached(10)
        second = work.start("second", 10)
        assert (await first, await second) == ("first", "second")
    iterations = [iteration for iteration, _ in work.steps]
    assert len(set(iterations)) == 40
    meanwhile = [name for _, name in work.steps[10:30]]
    assert 9 <= meanwhile.count("second") <= 11


async def test_calls_that_need_less_than_a_slice_take_turns_with_a_longer_one() -> None:
    with working(seconds_per_step=0.0002) as work:
        calls = [work.start("long", 300)]
        await work.reached(10)
        calls += [work.start(name, 2) for name in "abcde"]
        await asyncio.gather(*calls)
    iterations = [set(work.of(name)) for name in ("long", *"abcde")]
    assert sum(map(len, iterations)) == len(set.union(*iterations))


async def test_calls_that_keep_coming_do_not_keep_another_from_its_turns() -> None:
    with working() as work:
        call = work.start("long", 10)
        others = []
        for number in range(300):
            others.append(work.start(f"other {number}", 1))
            await asyncio.sleep(0)
        assert len(work.of("long")) >= 4  # each other needs two turns, so there are more and more of them
        await asyncio.gather(call, *others)
    assert len(work.of("long")) == 10


async def test_a_cancelled_call_leaves_its_turn_to_the_others() -> None:
    with working() as work:
        calls = [work.start(name, 50) for name in "abc"]
        await work.reached(9)
        for call in calls[:2]:
            call.cancel()
        await asyncio.wait(calls[:2])
        assert await calls[2] == "c"
    assert len(work.of("c")) == 50
    assert await yields_to_others(counting(175, []), ticking(2**-14)) == ("made", 10)  # as if it had never been there


async def test_a_call_that_its_loop_never_resumed_leaves_its_turn_to_the_others() -> None:
    abandoned: Any = run_with_yields(counting(5, []), ticking(0.002))
    next(abandoned)
    assert (await yields_to_others(counting(7, []), ticking(0.002)))[0] == "made"
    del abandoned
    assert await yields_to_others(counting(7, []), ticking(0.002)) == ("made", 8)


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
