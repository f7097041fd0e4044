"""The service as a process whose inside can be looked at, on either parser."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from tests.end_to_end.service import PATIENCE, Line, Service
from tests.support.client import connect

# As on a machine without the extra `fast`: h11 parses, and the event loop is asyncio's own.
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

    "leading" is fast and, as in a terminal, the first of a group of processes. What is `unwell` may log errors.
    """

    unwell = False

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
        return self.unwell or super()._is_excused(line)

    @property
    def children(self) -> list[int]:
        """The processes that it has forked, if it lives."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    @property
    def refuses(self) -> bool:
        """Whether nobody new is let in."""
        try:
            with closing(connect(self.url)) as connection:
                if connection.sock is None:
                    connection.connect()
            return False
        except OSError:
            return True

    @property
    def sockets(self) -> int:
        """How many sockets it has open."""
        return sum(1 for file in Path(f"/proc/{self.pid}/fd").iterdir() if _leads_to(file).startswith("socket:"))

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def runs(pid: int) -> bool:
    """Whether there is such a process, dead ones not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait for what is bound to come true. Raises TimeoutError."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come true")
        time.sleep(0.005)


def _leads_to(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:  # it was just closed
        return ""
