"""An alarm clock on an event loop that is right to some ten microseconds, where the loop's own timers round to 1 ms.

libuv and epoll count in whole milliseconds. Sixty-four streams of fifty tokens a second have a token due every 312 µs:
on the loop's timers they would come in clumps of three, and an arrival at a stated moment would be up to a millisecond
late, which is what is to be measured. A timerfd (Linux) has the kernel's high-resolution timers and is one more file
descriptor in the loop's poll; setting it again also clears it, so an alarm costs one system call. Where there is none,
the loop's own timers have to do.
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
    """struct itimerspec: an interval, which is not used, and the moment."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


_libc: Final = ctypes.CDLL(None, use_errno=True)
_precise: Final = hasattr(_libc, "timerfd_settime")
if _precise:
    _libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Timerspec), ctypes.c_void_p)


class Alarm:
    """Calls `ring()` from the loop at the moment set last; once for each `set`. Made inside a running event loop.

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
        """Ring at this value of `time.monotonic_ns`; at once if it is past. Replaces the moment that was set."""
        self._is_set = True
        self._spec.at_s, self._spec.at_ns = divmod(max(at_ns, 1), _BILLION)
        _libc.timerfd_settime(self._file, _ABSOLUTE, self._at, None)

    def off(self) -> None:
        """Do not ring, until set again."""
        self._spec.at_s = self._spec.at_ns = 0
        _libc.timerfd_settime(self._file, _ABSOLUTE, self._at, None)

    def close(self) -> None:
        """Give the file descriptor back. The alarm is of no further use; may be called again."""
        if self._file >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _rang(self) -> None:
        # The descriptor is reported until it is read or set; `ring` does the latter as a rule.
        self._is_set = False
        self._ring()
        if not self._is_set and self._file >= 0:
            self.off()


class LoopAlarm:
    """The same on the loop's own timers."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        """As an Alarm's."""
        self.off()
        self._timer = self._loop.call_later(max(0, at_ns - monotonic_ns()) / _BILLION, self._ring)

    def off(self) -> None:
        """As an Alarm's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    close = off


def alarm_for(ring: Callable[[], None]) -> Alarm | LoopAlarm:
    """The best alarm that the system has."""
    return Alarm(ring) if _precise else LoopAlarm(ring)
