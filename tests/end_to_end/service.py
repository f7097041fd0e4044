"""The real command as a child process.

    with Service("--simulate") as service:
        service.url, service.log

The block is entered once the child has printed where it listens. When it is left, the child is stopped as an operator
would and must have ended well: status 0, and nothing on standard error but log lines below the level of an error. A
test that fails inside the block kills it. Everything the child says is read as it comes, so that no pipe fills up.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anthro_asgi.settings.options import PREFIX

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-W", "error", "-m", "anthro_asgi")
PATIENCE = 20.0  # seconds until what hangs fails its test

Line = dict[str, Any]


class ServiceFailed(AssertionError):
    """The child ended where its address was due, or ended badly. The message holds what it said."""


class Service:
    """`anthro-asgi serve` with `options`, on a free port unless they name a socket, and with `environ` set besides."""

    command = "serve"

    def __init__(self, *options: str, **environ: str) -> None:
        where = () if {"--uds", "--port"} & set(options) else ("--port", "0")
        self._command = [*COMMAND, self.command, *where, *options]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environ = inherited | environ
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._excused: str | None = None
        self._expected = 0
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
            raise ServiceFailed(f"it did not listen, but said {first!r} and\n{self._told()}")
        self.url = first.removeprefix("listening on ")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if exc is not None:
            self._end()
            exc.add_note(f"the service said:\n{self._told()}")
        else:
            self.stop()

    def stop(self) -> int:
        """Stop it as an operator does; returns its exit status. Raises ServiceFailed if it ended badly."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.ended()

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """Only tell it to stop, or whatever that signal tells it."""
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self, excused: str | None = None, expected: int = 0) -> int:
        """Wait until it has ended by itself; returns its exit status. Raises ServiceFailed if it ended otherwise.

        An error in the log whose message has the words `excused` is none.
        """
        self._excused = excused or self._excused
        self._expected = expected or self._expected
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        self._end()
        faults = [line for line in self.log if line["level"] in ("error", "critical") and not self._is_excused(line)]
        if status != self._expected or faults:
            raise ServiceFailed(f"it ended with status {status} and said\n{self._told()}")
        return status

    def _is_excused(self, line: Line) -> bool:
        return self._excused is not None and self._excused in line.get("message", "")

    # what it says

    @property
    def log(self) -> list[Line]:
        """The lines of its log so far. What is no log line is one of level "error" with its `text`."""
        return [_parsed(line) for line in self._lines]

    def logged(self, within: float = PATIENCE, since: int = 0, **fields: Any) -> Line:
        """The first log line from `since` on that has these fields, waited for. Raises ServiceFailed without one."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                for line in self.log[since:]:
                    if fields.items() <= line.items():
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise ServiceFailed(f"no line with {fields} came within {within} s:\n{self._told()}")

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def _told(self) -> str:
        return "\n".join(self._lines) or "(nothing)"

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


def _parsed(line: str) -> Line:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"level": "error", "text": line}
