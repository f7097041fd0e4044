"""Which connections handle what they have read in an iteration of the event loop, and which wait for a later one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from anthro_asgi.server import read_control
from anthro_asgi.server.read_control import Turns

SHORT = 0.0003  # seconds: three fit into the slice of an iteration


class Reads:
    """Connections that have read something. Notes the iteration of the event loop in which each handles it."""

    def __init__(self) -> None:
        self.now = 1.0
        self.turns = Turns()
        self.handled: list[tuple[int, str]] = []
        self._iteration = 0

    def read(self, name: str, seconds: float = SHORT, then: Callable[[], None] = lambda: None) -> None:
        """As a connection does that has read something; it takes `seconds` to handle it."""

        def handle() -> None:
            self.handled.append((self._iteration, name))
            self.now += seconds
            then()

        loop = asyncio.get_running_loop()
        if self.turns.take(loop):
            handle()
        else:
            self.turns.add(handle, loop)

    async def next_iteration(self) -> None:
        self._iteration += 1
        await asyncio.sleep(0)


@pytest.fixture(name="reads")
def fixture_reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    monkeypatch.setattr(read_control, "perf_counter", lambda: reads.now)
    return reads


async def test_connections_beyond_the_slice_of_an_iteration_go_on_in_the_next_ones(reads: Reads) -> None:
    for name in "abcdefgh":
        reads.read(name)
    assert reads.handled == [(0, "a"), (0, "b"), (0, "c")]
    for _ in range(4):
        await reads.next_iteration()
    assert reads.handled[3:] == [(1, "d"), (1, "e"), (1, "f"), (2, "g"), (2, "h")]


async def test_each_iteration_has_a_slice_of_its_own(reads: Reads) -> None:
    for _ in range(3):
        for name in "abc":
            reads.read(name)
        await reads.next_iteration()
        await reads.next_iteration()
    assert [iteration for iteration, _ in reads.handled] == [0, 0, 0, 2, 2, 2, 4, 4, 4]


async def test_one_that_takes_longer_than_the_slice_is_alone_in_its_iteration(reads: Reads) -> None:
    for name in "abc":
        reads.read(name, seconds=0.005)
    for _ in range(4):
        await reads.next_iteration()
    assert reads.handled == [(0, "a"), (1, "b"), (2, "c")]


async def test_one_that_has_just_read_goes_behind_those_that_wait(reads: Reads) -> None:
    for name in "abcdefgh":
        reads.read(name)
    await reads.next_iteration()
    reads.read("late")
    for _ in range(4):
        await reads.next_iteration()
    assert [name for _, name in reads.handled] == [*"abcdefgh", "late"]


async def test_one_that_is_not_done_lets_the_others_go_first(reads: Reads) -> None:
    reads.read("first", seconds=0.005)
    rest: list[Any] = ["rest 1", "rest 2"]

    def again() -> None:
        if rest:
            reads.read(rest.pop(0), seconds=0.005, then=again)

    reads.read("long", seconds=0.005, then=again)
    reads.read("other", seconds=0.005)
    for _ in range(6):
        await reads.next_iteration()
    assert [name for _, name in reads.handled] == ["first", "long", "other", "rest 1", "rest 2"]
    assert len({iteration for iteration, _ in reads.handled}) == 5


async def test_an_exception_of_one_does_not_stop_the_others(reads: Reads) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail() -> None:
        raise ValueError("out of ink")

    reads.read("first", seconds=0.005)
    reads.read("failing", then=fail)
    reads.read("other")
    for _ in range(4):
        await reads.next_iteration()
    assert [name for _, name in reads.handled] == ["first", "failing", "other"]
    assert [str(context["exception"]) for context in reported] == ["out of ink"]
