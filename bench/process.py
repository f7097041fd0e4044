"""What a process costs, read from outside, and how the bench runs one.

CPU is read from the process's own clock (`clock_getcpuclockid(3)`): nanoseconds of user and system time of all its
threads, those that have ended included, for a microsecond a look. The other sources are wrong for this: the times in
`/proc/PID/stat` come in ticks of 10 ms, and sums over `/proc/PID/task/*/schedstat` lose the threads that have ended. A
descendant counts from when it is first seen, with all that it had used if it was not there at the start; one that ends
keeps what it had at the last look, so `sample` is called a few times a second.

Resident memory is the sum over the processes of what `/proc/PID/statm` says; pages that they share count in each.
"""

import os
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Final

_CPUCLOCK_SCHED: Final = 2
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1024 * 1024
PATIENCE: Final = 20.0  # seconds for a server to say where it listens, and for any process to end


def cpu_ns(pid: int) -> int:
    """User and system time of a process since it began, without its children's. Raises ProcessLookupError."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError as exc:
        raise ProcessLookupError(f"no process {pid}") from exc


def resident(pid: int) -> int:
    """Bytes of memory that a process has resident; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def family(pid: int) -> list[int]:
    """A process and its descendants, those that live."""
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


def many_files() -> None:
    """Let this process, and those it starts, have as many files open as it may: a stream is one, or two in a proxy."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds used while measured; MiB resident at the end, and the most that was seen."""

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
        """Count from here. Raises ProcessLookupError when one of the processes is not there."""
        for pid in self._pids:
            cpu_ns(pid)
        self._first, self._last, self._peak = {}, {}, 0
        self.sample()
        self._first = dict(self._last)

    def sample(self) -> None:
        """Look now."""
        self._resident = 0
        for pid in {member for root in self._pids for member in family(root)}:
            try:
                self._last[pid] = cpu_ns(pid)
            except ProcessLookupError:
                continue
            self._resident += resident(pid)
        self._peak = max(self._peak, self._resident)

    def stop(self) -> Cost:
        """Count to here."""
        self.sample()
        used = sum(last - self._first.get(pid, 0) for pid, last in self._last.items())
        return Cost(used / 1e9, self._resident / _MIB, self._peak / _MIB)


class NotListening(RuntimeError):
    """A server ended, or its first line was no address. The message holds what it said."""


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Run a server whose first line on stdout is `listening on URL`: its URL and its pid. It is ended on leaving.

    It must not say much more on stdout, which is not read. Raises NotListening.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    patience = Timer(PATIENCE, process.kill)
    patience.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        patience.cancel()
        if not line.startswith("listening on "):
            raise NotListening(f"{' '.join(command)}: {line!r}")
        yield line.removeprefix("listening on "), process.pid
    finally:
        patience.cancel()
        end(process)


def end(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, and SIGKILL when that is not heeded; returns when the process is gone."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
