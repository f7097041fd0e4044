"""Pings for a stream in which nothing is sent for a while."""

import asyncio
from collections.abc import Awaitable, Callable

from ..wire.direct_output import DirectWriter
from .http_request import ClientDisconnected


class Pinger:
    """Calls `ping` whenever nothing was sent for `interval` seconds, within a `with` block.

    One timer compares the clock with `last`, the time of the last send, so a send costs one clock reading. A ping and
    another send must not overlap. So a sender

    1. awaits `wait_ping()` if `task` is not None, because a ping is then being sent;
    2. sets `sending`, which keeps a ping from starting;
    3. calls `sent()` afterwards.
    """

    __slots__ = ("_interval", "_loop", "_ping", "_time", "_timer", "last", "sending", "task", "writer")

    def __init__(self, interval: float, ping: Callable[[], Awaitable[None]]) -> None:
        self._interval = interval
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self.task: asyncio.Task[None] | None = None
        self.sending = False
        self.writer: DirectWriter | None = None  # notes its sends only when it is asked

    def __enter__(self) -> "Pinger":
        self.last = self._time()
        self._timer = self._loop.call_at(self.last + self._interval, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self.task is not None:
            self.task.cancel()
        del self._timer, self._ping  # they refer to the pinger and to its owner: a cycle otherwise

    def sent(self) -> None:
        self.sending = False
        self.last = self._time()

    async def wait_ping(self) -> None:
        """Wait until no ping is being sent."""
        if self.task is not None:
            await asyncio.wait((self.task,))

    def _look(self) -> None:
        if self.writer is not None:
            self.writer.sync()
        now = self._time()
        if now >= self.last + self._interval:
            self.last = now
            if not self.sending and self.task is None:
                self.task = self._loop.create_task(self._send())
            if self.writer is not None:  # after `task` is set: it may hand over bytes, after which the engine goes on
                self.writer.stop()
        self._timer = self._loop.call_at(self.last + self._interval, self._look)

    async def _send(self) -> None:
        try:
            await self._ping()
        except (OSError, ClientDisconnected):
            pass  # DisconnectWatch ends the response
        finally:
            self.task = None
