"""A client that takes nothing of its answer: told from a slow one, and cut off."""

import asyncio
import fcntl
import sys
from typing import Final

# How many bytes a socket has that its peer has not acknowledged: TIOCOUTQ, by another name. Linux answers for sockets.
_SIOCOUTQ: Final = 0x5411 if sys.platform == "linux" else None
_LOOKS: Final = 4  # in each deadline


class WriteStallTimer:
    """Aborts `transport` when nothing of what waits in it has moved for `deadline` seconds.

    Begin it whenever writing pauses, and tell it when it is resumed; it looks every now and then, and ends by itself
    when nothing waits any more. What moves is seen in the transport's buffer and in the kernel's, which may hold
    megabytes: a client that reads a little now and then frees nothing in ours for a long time. What the kernel knows is
    what the client's system has taken; it may take a window at a time.
    """

    __slots__ = ("_deadline", "_loop", "_moved", "_seen", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._deadline = deadline
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._timer is None:
            self._seen, self._moved = self._waiting(), self._loop.time()
            self._later()

    def resumed(self) -> None:
        """Some of it was taken, though as much may wait again by the time of the next look."""
        self._moved = self._loop.time()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _later(self) -> None:
        self._timer = self._loop.call_later(self._deadline / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = self._waiting()
        if waiting[0] == 0:
            return
        now = self._loop.time()
        if waiting != self._seen:
            self._seen, self._moved = waiting, now
        elif now - self._moved >= self._deadline:
            self._transport.abort()
            return
        self._later()

    def _waiting(self) -> tuple[int, bytes]:
        """What is in the two buffers, ours and the kernel's. While writing is paused any change means it moves."""
        return self._transport.get_write_buffer_size(), self._in_kernel()

    def _in_kernel(self) -> bytes:
        if _SIOCOUTQ is None:
            return b""
        try:
            return fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQ, b"\0\0\0\0")
        except OSError:  # it is closing
            return b""
