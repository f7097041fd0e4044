"""What the bench starts, it ends: processes in groups of their own, ready before they are used, gone after.

A peer may have workers, so a group is started (a session of its own) and the group is ended: asked to first, made to
after a few seconds. What a process prints goes to a file, where no pipe can fill up, and where its last words are found
when it does not start.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType
from typing import Final

from .envs import CHECKOUT
from .peer import Launch, Missing

START_SECONDS: Final = 60.0  # LiteLLM takes ten on a busy machine
_END_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 2.0


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(launch: Launch, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, in a group that is ended at the end whatever happens. Raises Missing when there is no such command.

    It runs in the checkout, where the bench's own modules are found.
    """
    environment = {**os.environ, **launch.environment}
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as exc:
            raise Missing(f"cannot be started: {exc}") from exc
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever is left of its group. May be called again."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group is empty, or (on some systems) all zombies
        os.killpg(process.pid, number)


def await_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path, seconds: float) -> None:
    """Return once GET `path` is answered with a status below 500. Raises Missing when that does not come to pass."""
    deadline = monotonic() + seconds
    pause = Event()  # never set: a wait that Ctrl-C ends
    while monotonic() < deadline:
        if process.poll() is not None:
            raise Missing(f"ended by itself with status {process.returncode}: {last_words(log)}")
        if _answers(port, path, min(_ANSWER_SECONDS, seconds)):
            return
        pause.wait(_POLL_SECONDS)
    raise Missing(f"not ready after {seconds:g} s: {last_words(log)}")


def _answers(port: int, path: str, seconds: float) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def last_words(log: Path) -> str:
    """The last line of a log that says anything."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that every `finally` ends what it started."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
