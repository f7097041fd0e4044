"""The thread of a process that relays streams from socket to socket, as an event loop uses it (see `thread.h`).

pump.leave_to(thread, fd) ──► the thread reads, converts and writes
                                  │ eventfd
Owner.sync, Owner.hand_back ◄── collect() in the event loop
"""

import asyncio
import logging
import os
from time import monotonic
from typing import Final

from . import NewThread, Pump, Thread

_RETRY: Final = 10.0  # seconds without another attempt after one that failed: a stream asks at each of its reads
_log = logging.getLogger(__name__)


class PumpThread:
    """One thread for all engines of a process. It serves the event loop that runs when it starts.

    It starts with the engine: a thread that starts with the first stream would look like a leak of that stream.
    """

    def __init__(self, new_thread: NewThread) -> None:
        self._new_thread = new_thread
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._retry_at = 0.0

    def start(self) -> bool:
        """Start the thread, unless it runs. Returns whether it serves the running event loop.

        It does not if the system has no thread or descriptor left, which is logged and tried again ten seconds later,
        nor while it has streams of another event loop.
        """
        loop = asyncio.get_running_loop()
        return (self._loop is loop and self._process == os.getpid()) or self._start(loop)

    def take(self, pump: Pump, upstream: int) -> bool:
        """Let the thread relay the stream of `pump`, which is armed, from the socket `upstream`, until `disarm`.

        Returns whether it does. It starts the thread if that does not run.
        """
        return self.start() and self._thread is not None and pump.leave_to(self._thread, upstream)

    def close(self) -> None:
        """End the thread if no pump uses it. The next stream starts another one."""
        if self._thread is None or self._thread.pumps:
            return
        if self._loop is not None and self._process == os.getpid() and not self._loop.is_closed():
            self._loop.remove_reader(self._thread.fileno())
        self._thread.close()
        self._thread = self._loop = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> bool:
        self.close()
        if self._thread is not None or monotonic() < self._retry_at:
            return False
        try:
            thread = self._new_thread()
        except OSError as exc:
            self._retry_at = monotonic() + _RETRY
            _log.warning("native_thread_unavailable reason=%(reason)s", {"reason": exc.strerror})
            return False
        try:
            loop.add_reader(thread.fileno(), thread.collect)
        except NotImplementedError:  # an event loop without readers
            thread.close()
            return False
        self._thread, self._loop, self._process = thread, loop, os.getpid()
        return True
