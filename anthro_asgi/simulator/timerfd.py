"""A timer of an event loop that is exact to about ten microseconds; the loop's own timers round to 1 ms.

libuv and epoll count in whole milliseconds. Sixty-four streams of fifty tokens a second have a token due every 312 µs:
with the loop's timers three of them would come at once, up to a millisecond late. A timerfd (Linux) uses the kernel's
high-resolution timers and is one more file descriptor in the loop's poll. Setting it again also clears it, so an alarm
costs one system call. Other systems use the loop's own timers.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

_CLOCK_MONOTONIC: Final = 1  # the clock of time.monotonic_ns
_ABSOLUTE: Final = 1
_BILLION: Final = 1_000_000_000


class _Timerspec(ctypes.Structure):
    """struct itimerspec: an interval (unused) and the time of expiry."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


_libc: Final = ctypes.CDLL(None, use_errno=True)
_precise: Final = hasattr(_libc, "timerfd_settime")
if _precise:
    _libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Timerspec), ctypes.c_void_p)


class Alarm:
    """Calls `ring()` from the event loop at the time set last, once for each `set`. Create it in a running loop.

    Raises OSError when the system has no more file descriptors.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._spec = _Timerspec()
        self._at = ctypes.byref(self._spec)
        self._ring = ring
        self._is_set = False
        self._loop.add_reader(self._file, self._rang)

    def set(self, at_ns: int) -> None:
        """Ring at this value of `time.monotonic_ns`, at once if it is past. Replaces the time set before."""
        self._is_set = True
        self._spec.at_s, self._spec.at_ns = divmod(max(at_ns, 1), _BILLION)
        _libc.timerfd_settime(self._file, _ABSOLUTE, self._at, None)

    def off(self) -> None:
        """Do not ring until `set` is called again."""
        self._spec.at_s = self._spec.at_ns = 0
        _libc.timerfd_settime(self._file, _ABSOLUTE, self._at, None)

    def close(self) -> None:
        """Close the file descriptor. The alarm cannot be used again; a second call does nothing."""
        if self._file >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _rang(self) -> None:
        # The descriptor stays readable until it is read or set again; `ring` usually sets it again.
        self._is_set = False
        self._ring()
        if not self._is_set and self._file >= 0:
            self.off()


class LoopAlarm:
    """The same interface with the loop's own timers."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        """See Alarm."""
        self.off()
        self._timer = self._loop.call_later(max(0, at_ns - monotonic_ns()) / _BILLION, self._ring)

    def off(self) -> None:
        """See Alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    close = off


def alarm_for(ring: Callable[[], None]) -> Alarm | LoopAlarm:
    """A timerfd alarm where the system has timerfd, else one on the loop's timers."""
    return Alarm(ring) if _precise else LoopAlarm(ring)
