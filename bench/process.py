"""Processes: how the bench starts and ends them.

Every process is started in a group of its own, and the whole group is ended: first with SIGTERM, then with SIGKILL. So
no worker of a server survives. `anthro_asgi.bench.processes` measures what they cost.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Timer
from typing import IO, Any, Final

from .records import CHECKOUT

PATIENCE: Final = 20.0  # seconds for a server to print its address, and for a process to end after SIGTERM
_BACKLOG: Final = 4096  # thousands of clients may connect at once


class NotListening(RuntimeError):
    """A server ended, or its first line was not an address. The message quotes that line."""


def start(
    command: Sequence[str], stdout: IO[Any] | int, environment: Mapping[str, str] | None = None, **options: Any
) -> Any:
    """The process, in its own group and in the checkout, where `python -m bench` works. Raises OSError."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        cwd=CHECKOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        **options,
    )


def end(process: "subprocess.Popen[Any]", patience: float = PATIENCE) -> None:
    """End the process and its group. Returns when the process has ended; may be called again."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _signal_group(process: "subprocess.Popen[Any]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group is empty, or on some systems all zombies
        os.killpg(process.pid, number)


@contextmanager
def serving(command: Sequence[str], stderr: int | None = None) -> Iterator[tuple[str, int]]:
    """Run a server whose first line on stdout is `listening on URL`; gives that URL and the pid.

    Nothing else that it writes to stdout is read. Raises NotListening.
    """
    process = start(command, subprocess.PIPE, stderr=stderr, text=True)
    timer = Timer(PATIENCE, process.kill)
    timer.start()
    try:
        line = process.stdout.readline().strip()
        timer.cancel()
        if not line.startswith("listening on "):
            raise NotListening(f"{' '.join(command)}: {line!r}")
        yield line.removeprefix("listening on "), process.pid
    finally:
        timer.cancel()
        end(process)


async def listen(
    connect: Callable[[], asyncio.Protocol], host: str = "127.0.0.1", port: int = 0, path: str | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Prints `listening on URL` first; `port` 0 is any free port.

    With `path`, serve a Unix socket there too.
    """
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(connect, host, port, backlog=_BACKLOG)]
    if path is not None:
        servers.append(await loop.create_unix_server(connect, path, backlog=_BACKLOG))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host, port = servers[0].sockets[0].getsockname()[:2]
    print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    await stop.wait()
    for server in servers:
        server.close()
