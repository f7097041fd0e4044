"""The service as a child process: the command `anthro-asgi serve`, watched from outside.

    with Service("--simulate") as service:
        service.url, service.log

The block is entered when the child has printed its address. When the block is left, the child gets SIGTERM. It must
then exit with status 0, and its log must hold no line of level "error" or above. A test that fails inside the block
kills the child. A thread reads everything that the child writes, so that no pipe fills up.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from anthro_asgi.settings.options import PREFIX
from tests.support.client import connect

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, "-W", "error", "-m", "anthro_asgi")
NATIVE: Final = "TESTS_NATIVE"
"""The variable with the `--native` of the services that tests start, unless a test wants another value."""
PATIENCE: Final = 20.0  # seconds after which a test fails that waits for the child
AT_ONCE: Final = ("--simulate-ttft", "0", "--simulate-itl", "0")  # an answer without pauses
ENDLESS: Final = ("--simulate-ttft", "0", "--simulate-itl", "20ms", "--simulate-output-tokens", "100000")

# Kind of installation → the packages that cannot be imported.
INSTALLATIONS: Final[dict[str, tuple[str, ...]]] = {
    "fast": (),  # httptools parses, uvloop runs
    "h11": ("httptools",),  # h11 parses, uvloop runs
    "plain": ("httptools", "uvloop"),  # without the extra `fast`: h11 parses, asyncio's own loop runs
    "without metrics": ("prometheus_client",),
}
KINDS: Final = ("fast", "plain")
PARSERS: Final = ("fast", "h11")

Line = dict[str, Any]
T = TypeVar("T")


def native() -> str:
    """The value of the variable `NATIVE`: off by default."""
    return os.environ.get(NATIVE, "off")


class ServiceFailed(AssertionError):
    """The child exited before it printed its address, or it ended badly. The message holds what it wrote."""


class Service:
    """`anthro-asgi serve` with `options`, and with `environ` and the `variables` added to the environment.

    Its port is a free one, unless the options name a port or a Unix socket. `kind` is one of INSTALLATIONS. A
    `group_leader` leads a process group of its own, as a command does that a shell starts. With `may_log_errors` the
    log may hold errors and lines of any form.
    """

    command = "serve"

    def __init__(
        self,
        *options: str,
        kind: str = "fast",
        group_leader: bool = False,
        may_log_errors: bool = False,
        environ: Mapping[str, str] | None = None,
        **variables: str,
    ) -> None:
        where = () if {"--uds", "--port"} & set(options) else ("--port", "0")
        self._command = [*_interpreter(kind, group_leader), self.command, *where, *options]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environ = {**inherited, f"{PREFIX}NATIVE": native(), **(environ or {}), **variables}
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._excused: str | None = None
        self._expected = 0
        self.may_log_errors = may_log_errors
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._process.stdout is not None
        first = self._process.stdout.readline().strip()
        if not first.startswith("listening on "):
            self._end()
            raise ServiceFailed(f"the first line was not its address but {first!r}; its log:\n{self._log_text()}")
        self.url = first.removeprefix("listening on ")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if exc is not None:
            self._end()
            exc.add_note(f"the log of the service:\n{self._log_text()}")
        else:
            self.stop()

    def stop(self) -> int:
        """Send SIGTERM and wait; returns the exit status. Raises ServiceFailed if the child ended badly."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.ended()

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and do not wait."""
        self._process.send_signal(number)

    def ended(self, excused: str | None = None, expected: int = 0) -> int:
        """Wait until the child has exited; returns its status. Raises ServiceFailed unless the status is `expected`.

        An error in the log does not count if its message contains `excused`.
        """
        self._excused = excused or self._excused
        self._expected = expected or self._expected
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        self._end()
        errors = [line for line in self.log if line["level"] in ("error", "critical") and not self._is_excused(line)]
        if status != self._expected or errors:
            raise ServiceFailed(f"it ended with status {status}; its log:\n{self._log_text()}")
        return status

    def _is_excused(self, line: Line) -> bool:
        return self.may_log_errors or (self._excused is not None and self._excused in line.get("message", ""))

    # what it writes

    @property
    def log(self) -> list[Line]:
        """The lines of its log so far. A line that is not JSON becomes one of level "error" with its `text`."""
        return [_parsed(line) for line in self._lines]

    @property
    def lines(self) -> list[str]:
        """The lines of standard error so far, as they were written."""
        return list(self._lines)

    @property
    def rest_of_stdout(self) -> str:
        """What it wrote to standard output after its address. Only for a child that has been told to end."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def logged(self, within: float = PATIENCE, since: int = 0, **fields: Any) -> Line:
        """Wait for a log line with these fields, from line number `since` on. Raises ServiceFailed without one."""

        def found() -> Line | None:
            return next((line for line in self.log[since:] if fields.items() <= line.items()), None)

        return self._wait(found, within, f"no line with {fields}")

    def event_logged(self, since: int) -> int:
        """Wait for a line that is not about a request, after the first `since` lines; returns the number of lines."""

        def found(lines: list[str]) -> int:
            return next((at for at, line in enumerate(lines, 1) if at > since and '"event":"request"' not in line), 0)

        return self.wait_for_lines(found)

    def wait_for_lines(self, enough: Callable[[list[str]], T]) -> T:
        """Wait until `enough` returns something true for the lines, and return it. Raises ServiceFailed."""
        return self._wait(lambda: enough(self._lines), PATIENCE, "too few lines")

    def _wait(self, found: Callable[[], T | None], within: float, complaint: str) -> T:
        deadline = time.monotonic() + within
        with self._news:
            while not (value := found()):
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise ServiceFailed(f"{complaint} within {within} s; its log:\n{self._log_text()}")
        return value

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def _log_text(self) -> str:
        return "\n".join(self._lines) or "(nothing)"

    # its processes

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """The process ids of its workers; empty when it has exited."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    @property
    def refuses_connections(self) -> bool:
        try:
            with closing(connect(self.url)) as connection:
                if connection.sock is None:
                    connection.connect()
            return False
        except OSError:
            return True

    @property
    def open_sockets(self) -> int:
        return sum(1 for file in Path(f"/proc/{self.pid}/fd").iterdir() if _target(file).startswith("socket:"))

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def _end(self) -> None:
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until the condition is true; looks every 5 ms. Raises TimeoutError."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not become true")
        time.sleep(0.005)


def _interpreter(kind: str, group_leader: bool) -> list[str]:
    """How Python starts the command: as a module, or with code that first changes the process."""
    missing = INSTALLATIONS[kind]
    if not missing and not group_leader:
        return list(COMMAND)
    lines = ["import os, sys", *(f"sys.modules[{name!r}] = None" for name in missing)]
    lines += ["os.setpgid(0, 0)"] if group_leader else []
    lines += ["from anthro_asgi.cli.main import main", "sys.exit(main())"]
    return [*COMMAND[: COMMAND.index("-m")], "-c", "\n".join(lines)]


def _parsed(line: str) -> Line:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"level": "error", "text": line}


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:  # it was just closed
        return ""
