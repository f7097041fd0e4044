"""The service as a process: started, observed from outside, and ended."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from anthro_asgi.bench.processes import family, resident
from bench.process import PATIENCE, NotListening, end, start

COMMAND: Final = ("-m", "anthro_asgi")
_LINES_PER_PAUSE: Final = 1000  # of the log
_PAUSE: Final = 3.0  # seconds in which the log is not read
_KEPT: Final = 20  # lines of the log that are shown
_SAMPLE: Final = re.compile(r"^anthro_asgi_(requests_in_flight|upstream_connections)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_STATE: Final = re.compile(r'state="(\w+)"')
_CONTENT: Final = "soak "  # every prompt begins with it, and no log line may contain it


def command(
    upstream: str, *, streams: int, workers: int, native: str = "auto", run: Sequence[str] = COMMAND
) -> list[str]:
    """The real command, with deadlines that are short enough for an engine that stalls. `run`: arguments of Python."""
    options = {
        "--port": "0",
        "--upstream": f"{upstream}/v1",
        "--workers": str(workers),
        "--native": native,
        "--connect-deadline": "15s",  # a worker may be stopped meanwhile, and the machine is busy
        "--first-byte-deadline": "5s",
        "--silence-deadline": "5s",
        "--ping-interval": "2s",
        "--max-concurrency": str(2 * streams + 100),
    }
    return [sys.executable, *run, "serve", *(word for option in options.items() for word in option)]


@dataclass(slots=True)
class Log:
    """The service's standard error: the number of lines, and the lines that should not be there."""

    lines: int = 0
    faults: int = 0
    samples: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        self.lines += 1
        if _is_fault(line):
            self.faults += 1
            if len(self.samples) < _KEPT:
                self.samples.append(line.rstrip("\n"))


def _is_fault(line: str) -> bool:
    """An error, a line that no logger wrote, or content of a request."""
    try:
        told = json.loads(line)
    except ValueError:
        return True
    return told.get("level") in ("error", "critical") or "exception" in told or _CONTENT in line


@dataclass(frozen=True, slots=True)
class Gauges:
    """From `/metrics`: requests in flight, and connections to the engine by state."""

    in_flight: int
    connections: dict[str, int]


class Service:
    """Running between `__enter__` and `stop`, or the end of a `with` block. Raises NotListening.

    With `pauses`, its log is not read for some seconds after each thousand lines.
    """

    def __init__(self, arguments: Sequence[str], *, pauses: bool = False) -> None:
        self.log = Log()
        self._pauses = pauses
        self._stopping = threading.Event()
        self._processes = 1
        self.status: int | None = None
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._process = start(self._arguments, subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.startswith("listening on http://"):
            self.stop()
            raise NotListening(f"{' '.join(self._arguments)}: {line!r} {self.log.samples}")
        self.host, _, port = line.removeprefix("listening on http://").rpartition(":")
        self.port = int(port)
        self._processes = len(list(family(self._process.pid)))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it with SIGTERM, then with SIGKILL; `status` is the exit status."""
        if self.status is None:
            self._stopping.set()
            end(self._process)
            self.status = self._process.returncode
            self._reader.join(PATIENCE)
            assert self._process.stderr is not None
            self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.take(line)
            if self._pauses and self.log.lines % _LINES_PER_PAUSE == 0:
                self._stopping.wait(_PAUSE)

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    @property
    def processes(self) -> int:
        """How many there were at the start."""
        return self._processes

    # ---- observed from outside; sums over the workers

    def memory(self) -> int:
        """Resident bytes."""
        return sum(map(resident, family(self._process.pid)))

    def files(self) -> int:
        """Open file descriptors."""
        return sum(_entries(pid, "fd") for pid in family(self._process.pid))

    def threads(self) -> int:
        return sum(_entries(pid, "task") for pid in family(self._process.pid))

    def gauges(self) -> Gauges | None:
        """The gauges of `/metrics`; None when it is not available, as without its extra."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/metrics", headers={"connection": "close"})
            answer = connection.getresponse()
            told = answer.read().decode()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        if answer.status != 200:
            return None
        found = [(name, labels or "", float(value)) for name, labels, value in _SAMPLE.findall(told)]
        in_flight = sum(int(value) for name, _, value in found if name == "requests_in_flight")
        states = {state[1]: int(value) for _, labels, value in found if (state := _STATE.search(labels))}
        return Gauges(in_flight - 1, states)  # this request does not count


def _entries(pid: int, kind: str) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/{kind}").iterdir()))
    except OSError:
        return 0
