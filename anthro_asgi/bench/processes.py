"""What processes cost, read from outside; and the settings of a process that makes or serves thousands of connections.

CPU is read from the process's CPU clock (`clock_getcpuclockid(3)`): nanoseconds of user and system time of all its
threads, including those that have ended, at a microsecond per reading. Other sources are wrong for this purpose:
`/proc/PID/stat` counts ticks of 10 ms, and sums over `/proc/PID/task/*/schedstat` lose the threads that have ended. A
descendant that appears after the start counts in full. One that ends keeps the value of the last reading, so `sample`
is called a few times per second.

Resident memory is the sum over the processes of `/proc/PID/statm`; shared pages count in each of them.
"""

import gc
import os
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

_CPUCLOCK_SCHED: Final = 2
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1024 * 1024
_NEVER: Final = 1_000_000_000


def cpu_ns(pid: int) -> int:
    """User and system time of a process, without its children's. Raises ProcessLookupError."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError as exc:
        raise ProcessLookupError(f"no process {pid}") from exc


def resident(pid: int) -> int:
    """Bytes of resident memory; 0 when the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found, front = [pid], [pid]
    while front:
        front = [child for parent in front for child in _children(parent)]
        found += front
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_bytes().split()]
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds between `start` and `stop`; resident MiB at the end and at most."""

    cpu_s: float
    rss_mib: float
    rss_peak_mib: float


class Meter:
    """The cost of some processes and their descendants from `start` to `stop`."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._resident = self._peak = 0

    def start(self) -> None:
        """Raises ProcessLookupError when one of the processes does not exist."""
        for pid in self._pids:
            cpu_ns(pid)
        self._first, self._last, self._peak = {}, {}, 0
        self.sample()
        self._first = dict(self._last)

    def sample(self) -> None:
        """Read the clocks and the memory."""
        self._resident = 0
        for pid in {member for root in self._pids for member in family(root)}:
            try:
                self._last[pid] = cpu_ns(pid)
            except ProcessLookupError:
                continue
            self._resident += resident(pid)
        self._peak = max(self._peak, self._resident)

    def stop(self) -> Cost:
        """The cost since `start`."""
        self.sample()
        used = sum(last - self._first.get(pid, 0) for pid, last in self._last.items())
        return Cost(used / 1e9, self._resident / _MIB, self._peak / _MIB)


# settings


def many_files() -> None:
    """Raise the limit of open files of this process and its children to the maximum: each stream is a file or two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_pauses_short() -> None:
    """Freeze the objects that exist now, and start no full garbage collection by itself: it would delay all streams."""
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _NEVER)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that each `finally` ends the processes that it started."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
