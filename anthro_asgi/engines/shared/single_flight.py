"""One question that everybody who asks it at one time shares. Who leaves takes nothing away from the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """`call` is the question."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> "asyncio.Task[T]":
        """Ask, unless it is being asked already."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._settle)
        return self._task

    async def result(self) -> T:
        """Raises what `call` raises."""
        task = self.start()
        await asyncio.wait({task})
        return await task

    async def _run(self) -> T:
        return await self._call()

    def _settle(self, task: "asyncio.Task[T]") -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # told to those who wait; nobody else misses it

    async def close(self) -> None:
        """Ask no more."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
