"""Single-flight: concurrent callers share one awaited call. Cancelling one caller does not cancel it for the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Shares the calls of `call`."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None
        self._started_at = 0.0  # on the loop's clock

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> "asyncio.Task[T]":
        """Start the call, unless it is running. Returns its task."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._started_at = asyncio.get_running_loop().time()
            self._task.add_done_callback(self._finish)
        return self._task

    async def result(self) -> T:
        """The result of the running call, or of a new one. Raises what `call` raises."""
        task = self.start()
        await asyncio.wait({task})  # unlike `await task`, its cancellation does not cancel the task
        return await task

    async def result_within(self, seconds: float, fallback: T) -> T:
        """The result of the call, or `fallback` if the call fails or takes longer than `seconds` from its start."""
        task = self.start()
        left = self._started_at + seconds - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({task}, timeout=max(0.0, left))
        return fallback if not done or task.cancelled() or task.exception() is not None else task.result()

    async def _run(self) -> T:
        return await self._call()

    def _finish(self, task: "asyncio.Task[T]") -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it when every caller was cancelled

    async def close(self) -> None:
        """Cancel the running call."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
