"""When a connection reads, and when it may go on with bytes that it has read already."""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl

_SLICE: Final = 0.0007  # seconds for which an iteration of the event loop handles what was read
_CHECK: Final = 1.0  # seconds between two checks whether a client that is not read from has left
_LEFT: Final = getattr(select, "POLLRDHUP", 0)  # Linux; other systems report only a reset, by POLLHUP


class Turns:
    """Bounds how long one iteration of the event loop handles what was read, however many connections have read some.

    Connections handle what they have read at once, until the slice of the iteration is used up. The others wait, and go
    on in the next iterations.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_scheduled = False  # whether the next iteration lets some go on
        self._until = 0.0  # the end of the slice of this iteration; 0 if nothing was handled in it

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a connection may handle what it has just read. If not, it has to call `add`, and to read no more.

        The slice of an iteration begins with the first call.
        """
        if self._until:
            return perf_counter() < self._until
        self._until = perf_counter() + _SLICE
        loop.call_soon(self._end_slice)
        return True

    def _end_slice(self) -> None:
        self._until = 0.0

    def add(self, resume: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `resume` when it is its turn."""
        self._waiting.append(resume)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._go_on, loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        left = len(self._waiting)  # those that call `add` again go on in the next iteration
        try:
            while left and self.take(loop):
                left -= 1
                self._waiting.popleft()()
        finally:
            self._is_scheduled = bool(self._waiting)
            if self._is_scheduled:
                loop.call_soon(self._go_on, loop)


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
