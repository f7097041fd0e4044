"""A PostgreSQL server of its own, from the Debian package: a new cluster in a temporary folder, on a Unix socket.

The server refuses to run as root; then it runs as `postgres`, whom the package creates.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_PACKAGE: Final = Path("/usr/lib/postgresql")  # programs that Debian does not put on the PATH
_USER: Final = "postgres"
_PATIENCE: Final = 60.0  # seconds until the server accepts connections


def _program(name: str) -> str:
    found = sorted(_PACKAGE.glob(f"*/bin/{name}")) or [Path(shutil.which(name) or name)]
    return str(found[-1])


class PostgresServer:
    """Use it as a context manager. `kill` is SIGKILL for every process of the server."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        self._how: dict[str, Any] = {"cwd": self.folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER)
            self._how["user"] = _USER
            self._how["group"] = _USER
            self._how["extra_groups"] = []
        data = str(self.folder / "data")
        initialize = [
            _program("initdb"),
            "-D",
            data,
            "-U",
            _USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(initialize, check=True, **self._how)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGQUIT)  # an immediate shutdown
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections. It is a child, so that it can be waited for."""
        options = ["-k", str(self.folder), "-c", "listen_addresses=", "-c", "shared_buffers=16MB"]
        self._process = subprocess.Popen([_program("postgres"), "-D", str(self.folder / "data"), *options], **self._how)
        until = time.monotonic() + _PATIENCE
        while subprocess.run([_program("pg_isready"), "-q", f"--host={self.folder}"], check=False).returncode:
            assert self._process.poll() is None, "PostgreSQL has ended"
            assert time.monotonic() < until, "PostgreSQL does not accept connections"

    def kill(self) -> None:
        """Kill the server: it stops at once, in the middle of what it does, and recovers at the next start."""
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # so that it has no further children
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for process in (pid, *children):
            os.kill(process, signal.SIGKILL)
        self._process.wait()
        while any(_is_alive(process) for process in children):
            os.sched_yield()

    def create(self, name: str) -> str:
        """Create a database; returns its URL."""
        host = f"--host={self.folder}"
        subprocess.run([_program("createdb"), host, f"--username={_USER}", name], check=True, **self._how)
        return f"postgresql:///{name}?host={self.folder}&user={_USER}"


def _is_alive(process: int) -> bool:
    """Whether the process runs: one that has ended, and that nobody has waited for, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
