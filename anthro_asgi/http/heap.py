"""Gives freed memory back to the system.

glibc keeps memory that was freed, because the next request may need it. After a large request that can be many times
the memory of an idle service, for as long as it runs. `malloc_trim` gives it back.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PAUSE: Final = 5.0
"""Seconds from a large request to the next `malloc_trim`. It is called at most this often."""


def trim_heap() -> None:
    """`malloc_trim` of glibc. Does nothing with another C library."""
    import ctypes  # not at the start of the service: few requests are large

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class HeapTrimmer:
    """Calls `trim` in a thread some seconds after large requests: it takes milliseconds for each 10 MiB."""

    __slots__ = ("_timer", "_trim")

    def __init__(self, trim: Callable[[], None] = trim_heap) -> None:
        self._trim = trim
        self._timer: asyncio.TimerHandle | None = None

    def note_large_request(self) -> None:
        """Trim soon. To be called when the body of a large request was read, and when its response has ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._run)

    def _run(self) -> None:
        self._timer = None
        with suppress(RuntimeError):  # no thread can be started now
            threading.Thread(target=self._trim, name="anthro-asgi heap", daemon=True).start()

    def stop(self) -> None:
        """Cancel a call that is still to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
