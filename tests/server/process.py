"""The service as a child process whose sockets, memory and workers can be inspected, with either HTTP parser."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from tests.end_to_end.service import PATIENCE, Line, Service
from tests.support.client import connect

# As without the extra `fast`: h11 parses, and the event loop is asyncio's.
_PLAIN = (
    "import sys; sys.modules['httptools'] = sys.modules['uvloop'] = None; "
    "from anthro_asgi.cli.main import main; sys.exit(main())"
)
_LEADING = "import os, sys; os.setpgid(0, 0); from anthro_asgi.cli.main import main; sys.exit(main())"
KINDS = ("fast", "plain")
AT_ONCE = ("--simulate-ttft", "0", "--simulate-itl", "0")
ENDLESS = ("--simulate-ttft", "0", "--simulate-itl", "20ms", "--simulate-output-tokens", "100000")


class Process(Service):
    """`anthro-asgi serve` with `options`: "fast" is with httptools and uvloop, "plain" without.

    "leading" is fast and, as in a terminal, leads a process group. If `may_log_errors`, an error line does not fail the
    test.
    """

    may_log_errors = False

    def __init__(self, kind: str, *options: str, **environ: str) -> None:
        super().__init__(*options, **environ)
        code = {"plain": _PLAIN, "leading": _LEADING}.get(kind)
        if code is not None:
            begin = self._command.index("-m")
            self._command[begin : begin + 2] = ["-c", code]

    def _end(self) -> None:
        for pid in (*self.children, self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super()._end()

    def _is_excused(self, line: Line) -> bool:
        return self.may_log_errors or super()._is_excused(line)

    @property
    def children(self) -> list[int]:
        """The pids of its child processes; none if it has exited."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    @property
    def refuses(self) -> bool:
        """Whether it refuses new connections."""
        try:
            with closing(connect(self.url)) as connection:
                if connection.sock is None:
                    connection.connect()
            return False
        except OSError:
            return True

    @property
    def sockets(self) -> int:
        """The number of its open sockets."""
        return sum(1 for file in Path(f"/proc/{self.pid}/fd").iterdir() if _link_target(file).startswith("socket:"))

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until the condition is true. Raises TimeoutError after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition was not true within {within} s")
        time.sleep(0.005)


def _link_target(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:  # the file was closed in the meantime
        return ""
