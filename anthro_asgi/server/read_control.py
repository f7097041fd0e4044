"""When a connection reads, and when it may go on with bytes that it has read already."""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl

_CHECK: Final = 1.0  # seconds between two checks whether a client that is not read from has left
_LEFT: Final = getattr(select, "POLLRDHUP", 0)  # Linux; other systems report only a reset, by POLLHUP


class Turns:
    """Connections with bytes that are not parsed yet. One of them goes on in each iteration of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, resume: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `resume` when it is its turn."""
        self._waiting.append(resume)
        if len(self._waiting) == 1:
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        resume = self._waiting[0]
        try:
            resume()
        finally:
            self._waiting.popleft()
            if self._waiting:
                loop.call_soon(self._next, loop)


class ReadControl(FlowControl):
    """uvicorn's flow control, with a second reason not to read, and with a check for clients that leave meanwhile.

    While nothing is read, the event loop does not see that a client has closed its side. So this class asks the kernel
    every second, and closes the connection.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._held = False
        self._check: asyncio.TimerHandle | None = None

    def hold(self) -> None:
        """Read nothing until `release`, whatever uvicorn asks for."""
        self._held = True
        self.pause_reading()

    def release(self) -> None:
        """Read again."""
        self._held = False
        self.resume_reading()

    def pause_reading(self) -> None:
        super().pause_reading()
        if self._check is None:
            self._check = self._loop.call_later(_CHECK, self._on_check)

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()

    def end(self) -> None:
        """The connection is closed."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _on_check(self) -> None:
        self._check = None
        if not self.read_paused or self._transport.is_closing():
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _LEFT)
        if poll.poll(0):
            self._transport.abort()
        else:
            self._check = self._loop.call_later(_CHECK, self._on_check)
