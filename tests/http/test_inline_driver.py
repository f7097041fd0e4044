"""A driven coroutine continues when `resume` is called, and cannot otherwise notice that it is driven."""

import asyncio
from contextvars import ContextVar

import pytest

from anthro_asgi.http.inline_driver import InlineDriver
from anthro_asgi.upstream.connection import Waiter

WORD: ContextVar[str] = ContextVar("WORD", default="unset")


class Source:
    """Delivers words: at once to a waiting coroutine, else when one asks. The loop calls `put`, as for a transport."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter = Waiter(loop=self._loop)
        self._words: list[str] = []
        self.at_once: list[bool] = []  # for each word, whether a coroutine took it during `put`

    async def get(self) -> str:
        while not self._words:
            if self._waiter.done():
                self._waiter = Waiter(loop=self._loop)
            await self._waiter
        return self._words.pop(0)

    def put(self, word: str) -> None:
        self._words.append(word)
        self._waiter.wake()
        self.at_once.append(not self._words)

    def send(self, *words: str) -> None:
        """Put each word from a callback of its own, in separate iterations of the loop."""
        if words:
            self._loop.call_soon(self._send, words)

    def _send(self, words: tuple[str, ...]) -> None:
        self.put(words[0])
        self.send(*words[1:])


async def drive(*words: str) -> tuple[Source, list[str]]:
    """A coroutine that takes all words, and the list of them."""
    source = Source()

    async def take() -> list[str]:
        return [await source.get() for _ in words]

    source.send(*words)
    return source, await InlineDriver(take())


async def test_it_returns_what_the_coroutine_returns() -> None:
    assert (await drive("a", "b", "c"))[1] == ["a", "b", "c"]


async def test_it_continues_within_the_callback_that_delivers_the_data() -> None:
    source, _ = await drive("a", "b", "c")
    assert source.at_once == [True, True, True]


async def test_in_a_plain_task_the_same_source_is_an_ordinary_future() -> None:
    source = Source()

    async def take() -> list[str]:
        return [await source.get() for _ in range(3)]

    source.send("a", "b", "c")
    assert await take() == ["a", "b", "c"]
    assert source.at_once == [False, False, False]


async def test_a_coroutine_that_never_waits_runs_at_once() -> None:
    async def immediate() -> int:
        return 7

    assert await InlineDriver(immediate()) == 7


@pytest.mark.parametrize("words", [[], ["a"]])
async def test_what_the_coroutine_raises_is_raised(words: list[str]) -> None:
    source = Source()

    async def fail() -> None:
        for _ in words:
            await source.get()
        raise LookupError("here")

    source.send(*words)
    with pytest.raises(LookupError, match="here"):
        await InlineDriver(fail())


async def test_it_awaits_other_futures_like_a_task() -> None:
    source = Source()
    loop = asyncio.get_running_loop()

    async def both() -> list[str]:
        out = [await source.get()]
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(future.set_result, "from a future")
        out.append(await future)
        await asyncio.sleep(0)
        out.append(await source.get())
        out.append(await asyncio.wait_for(source.get(), 5))
        return out

    source.send("a", "b", "c")
    assert await InlineDriver(both()) == ["a", "from a future", "b", "c"]


async def test_data_that_arrives_while_it_awaits_something_else_is_kept() -> None:
    source = Source()
    gate = asyncio.Event()

    async def take() -> list[str]:
        first = await source.get()
        await gate.wait()
        return [first, await source.get(), await source.get()]

    driven = asyncio.create_task(drive_in_task(take()))
    source.send("a", "b", "c")
    for _ in range(6):
        await asyncio.sleep(0)
    gate.set()
    assert await driven == ["a", "b", "c"]


async def drive_in_task(coroutine: object) -> object:
    return await InlineDriver(coroutine)  # type: ignore[arg-type]  # any coroutine


async def test_its_task_is_the_current_task_and_its_context_is_kept() -> None:
    source = Source()
    seen: list[object] = []

    async def look() -> None:
        for _ in range(2):
            seen.append((asyncio.current_task(), WORD.get()))
            await source.get()
        seen.append((asyncio.current_task(), WORD.get()))

    async def driven() -> None:
        WORD.set("mine")
        await InlineDriver(look())

    task = asyncio.create_task(driven())
    source.send("a", "b")
    await task
    assert seen == [(task, "mine")] * 3
    assert WORD.get() == "unset"


async def test_a_timeout_within_it_works() -> None:
    source = Source()

    async def impatient() -> str:
        await source.get()  # the timeout is entered from a callback
        try:
            async with asyncio.timeout(0.001):
                return await source.get()
        except TimeoutError:
            return "too late"

    source.send("a")
    assert await InlineDriver(impatient()) == "too late"


@pytest.mark.parametrize("words", [[], ["a", "b"]])
async def test_a_cancellation_is_raised_where_the_coroutine_waits(words: list[str]) -> None:
    source = Source()
    seen: list[str] = []

    async def take() -> None:
        try:
            while True:
                seen.append(await source.get())
        finally:
            seen.append("cleaned up")

    task = asyncio.create_task(drive_in_task(take()))
    source.send(*words)
    for _ in range(6):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [*words, "cleaned up"]


async def test_the_coroutine_may_suppress_a_cancellation() -> None:
    source = Source()

    async def stubborn() -> str:
        try:
            return await source.get()
        except asyncio.CancelledError:
            return await source.get()

    task = asyncio.create_task(drive_in_task(stubborn()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    source.send("after")
    assert await task == "after"


async def test_it_is_not_stepped_once_its_task_is_cancelled() -> None:
    source = Source()
    seen: list[str] = []

    async def take() -> None:
        while True:
            seen.append(await source.get())

    task = asyncio.create_task(drive_in_task(take()))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_soon(task.cancel)
    loop.call_soon(source.put, "too late")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == []


async def test_a_cancellation_after_the_coroutine_has_ended_is_not_lost() -> None:
    source = Source()
    task = asyncio.create_task(drive_in_task(source.get()))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_soon(source.put, "last")
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_resumed_from_another_task_it_continues_in_the_next_iteration_of_the_loop() -> None:
    source = Source()
    seen: list[object] = []

    async def take() -> None:
        await source.get()
        seen.append(asyncio.current_task())

    task = asyncio.create_task(drive_in_task(take()))
    await asyncio.sleep(0)
    source.put("from this task")
    assert seen == []
    await task
    assert seen == [task]


async def test_one_driver_may_resume_the_source_of_another() -> None:
    first, second = Source(), Source()

    async def pass_on() -> str:
        word = await first.get()
        second.put(word)
        return word

    driven = asyncio.create_task(drive_in_task(second.get()))
    await asyncio.sleep(0)
    first.send("a")
    assert await InlineDriver(pass_on()) == "a"
    assert await driven == "a"
