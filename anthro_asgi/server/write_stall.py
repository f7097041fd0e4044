"""Disconnects a client that reads no response data. A client that reads slowly stays connected."""

import asyncio
import fcntl
import sys
from typing import Final

# The ioctl that returns how many bytes of a socket the peer has not acknowledged. Linux supports it for sockets and
# calls it TIOCOUTQ as well.
_SIOCOUTQ: Final = 0x5411 if sys.platform == "linux" else None
_CHECKS: Final = 4  # in each deadline


class WriteStallTimer:
    """Aborts `transport` when none of the bytes that wait in it has moved for `deadline` seconds.

    Call `begin` whenever writing pauses, and `resumed` when it resumes. The timer checks at intervals, and ends by
    itself when no bytes wait any more. It compares both send buffers, the transport's and the kernel's. The kernel's
    may hold megabytes, so a client that reads a little now and then frees nothing in ours for a long time. The kernel
    counts what the client's system has acknowledged, which may be a whole window at a time.
    """

    __slots__ = ("_deadline", "_loop", "_moved", "_seen", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._deadline = deadline
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start to check, unless it is checking already."""
        if self._timer is None:
            self._seen, self._moved = self._buffered(), self._loop.time()
            self._schedule()

    def resumed(self) -> None:
        """The client has read something, although as much may be buffered again at the next check."""
        self._moved = self._loop.time()

    def end(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(self._deadline / _CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        buffered = self._buffered()
        if buffered[0] == 0:
            return
        now = self._loop.time()
        if buffered != self._seen:
            self._seen, self._moved = buffered, now
        elif now - self._moved >= self._deadline:
            self._transport.abort()
            return
        self._schedule()

    def _buffered(self) -> tuple[int, bytes]:
        """The state of both buffers. While writing is paused, any change means that the client reads."""
        return self._transport.get_write_buffer_size(), self._unacknowledged()

    def _unacknowledged(self) -> bytes:
        if _SIOCOUTQ is None:
            return b""
        try:
            return fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQ, b"\0\0\0\0")
        except OSError:  # the socket is being closed
            return b""
