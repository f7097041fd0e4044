"""Keeping in touch with the client of one answer: noticing that it left, and telling it that we are still here."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from .call import ClientLeft, Receive


class Watch:
    """Cancels the block it guards when the client disconnects, which then ends with ClientLeft.

    Only `receive` tells of a lost client (no server's `send` reliably does), so one task waits on it. A cancellation
    that comes from elsewhere passes through untouched. Enter it once the body has been read.
    """

    __slots__ = ("_cancelling", "_receive", "_task", "_watcher", "left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        try:
            await asyncio.wait((self._watcher,))  # also where a cancel that came too late is delivered
        except asyncio.CancelledError:
            if not self.left:
                raise
        if self.left and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientLeft from None


class Pinger:
    """Calls `ping` whenever `interval` seconds have passed in which nothing was sent.

    One timer that looks at one number, so a send costs a clock reading. Pings and other sends must not overlap: who
    sends awaits `quiet()` first if `busy`, sets `held`, and says `sent()` afterwards; no ping begins while it is held.
    """

    __slots__ = ("_interval", "_last", "_loop", "_ping", "_task", "_timer", "held")

    def __init__(self, interval: float, ping: Callable[[], Awaitable[None]]) -> None:
        self._interval = interval
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.held = False

    def __enter__(self) -> "Pinger":
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + self._interval, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def sent(self) -> None:
        self.held = False
        self._last = self._loop.time()

    @property
    def busy(self) -> bool:
        return self._task is not None

    async def quiet(self) -> None:
        """Wait until no ping is being sent."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._last + self._interval:
            self._last = now
            if not self.held and self._task is None:
                self._task = self._loop.create_task(self._send())
        self._timer = self._loop.call_at(self._last + self._interval, self._look)

    async def _send(self) -> None:
        try:
            await self._ping()
        except (OSError, ClientLeft):
            pass  # the watch says so too
        finally:
            self._task = None
