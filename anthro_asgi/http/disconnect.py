"""Notices that the client of a response has disconnected, and pings a client that waits for a slow stream."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from .http_request import ClientDisconnected, Receive


class DisconnectWatch:
    """Cancels the block it guards when the client disconnects, which then ends with ClientDisconnected.

    Only `receive` tells of a lost client (no server's `send` reliably does), so one task waits on it. A cancellation
    that comes from elsewhere passes through untouched. Enter it once the body has been read.
    """

    __slots__ = ("_cancelling", "_receive", "_task", "_watcher", "disconnected")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.disconnected = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        try:
            await asyncio.wait((self._watcher,))  # also where a cancel that came too late is delivered
        except asyncio.CancelledError:
            if not self.disconnected:
                raise
        if self.disconnected and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnected from None


class Pinger:
    """Calls `ping` whenever `interval` seconds have passed in which nothing was sent.

    One timer that looks at one number, so a send costs a clock reading. Pings and other sends must not overlap: a
    sender awaits `wait_ping()` first if there is a `task`, sets `sending`, and calls `sent()` afterwards. No ping
    begins while `sending` is set.
    """

    __slots__ = ("_interval", "_loop", "_ping", "_time", "_timer", "last", "sending", "task")

    def __init__(self, interval: float, ping: Callable[[], Awaitable[None]]) -> None:
        self._interval = interval
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self.task: asyncio.Task[None] | None = None
        self.sending = False

    def __enter__(self) -> "Pinger":
        self.last = self._time()
        self._timer = self._loop.call_at(self.last + self._interval, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self.task is not None:
            self.task.cancel()

    def sent(self) -> None:
        self.sending = False
        self.last = self._time()

    async def wait_ping(self) -> None:
        """Wait until no ping is being sent."""
        if self.task is not None:
            await asyncio.wait((self.task,))

    def _look(self) -> None:
        now = self._time()
        if now >= self.last + self._interval:
            self.last = now
            if not self.sending and self.task is None:
                self.task = self._loop.create_task(self._send())
        self._timer = self._loop.call_at(self.last + self._interval, self._look)

    async def _send(self) -> None:
        try:
            await self._ping()
        except (OSError, ClientDisconnected):
            pass  # the watch says so too
        finally:
            self.task = None
