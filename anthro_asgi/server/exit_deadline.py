"""Ends the process when its orderly end takes too long.

An orderly end waits for tasks and threads that this service does not control: an engine that ignores cancellation, a
resolver, a tokenizer. None of them may keep the process alive for ever.
"""

import logging
import os
import time
from _thread import allocate_lock, start_new_thread
from contextlib import suppress
from typing import Final

from ..observability.logs import flush

_REPORT: Final = 2.0  # seconds for the log line
_log = logging.getLogger(__name__)


def exit_within(seconds: float, status: int, level: int, reason: str) -> None:
    """Exit with `status` after `seconds`, unless the process has ended before. `reason` is logged with `level` then.

    May be called in a signal handler. So it starts a bare thread: `threading` has locks, which the interrupted code may
    hold. A thread of this kind does not keep the process alive.
    """
    with suppress(RuntimeError):  # the system has no thread left; the end may still be orderly
        start_new_thread(_expire, (seconds, status, level, reason))


def _expire(seconds: float, status: int, level: int, reason: str) -> None:
    time.sleep(seconds)
    reported = allocate_lock()
    reported.acquire()

    def report() -> None:
        _log.log(level, "%s", reason)
        flush()
        reported.release()

    with suppress(RuntimeError):
        start_new_thread(report, ())
        reported.acquire(timeout=_REPORT)  # the logger may be blocked too
    os._exit(status)
