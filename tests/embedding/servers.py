"""Each server as a child process that serves `tests.embedding.served`."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.client import get

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds
WHAT = "tests.embedding.served"
Command = Callable[[int], list[str]]


@dataclass(frozen=True)
class Server:
    """How to start a server on a port. `prefix`: where the service is mounted. `lifespan`: whether it is run."""

    name: str
    command: Command
    prefix: str = ""
    lifespan: bool = True
    stops_by: int = signal.SIGTERM


def _uvicorn(*options: str, app: str = "app") -> Command:
    base = [
        sys.executable,
        "-m",
        "uvicorn",
        f"{WHAT}:{app}",
        "--log-level",
        "warning",
        "--timeout-graceful-shutdown",
        "3",
    ]
    return lambda port: [*base, "--port", str(port), *options]


def _hypercorn(port: int) -> list[str]:
    return [sys.executable, "-m", "hypercorn", f"{WHAT}:app", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]


def _granian(port: int) -> list[str]:
    options = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [sys.executable, "-m", "granian", f"{WHAT}:app", *options, "--workers-kill-timeout", "3"]


def _daphne(port: int) -> list[str]:
    return [sys.executable, "-m", "daphne", f"{WHAT}:app", "-p", str(port), "-b", "127.0.0.1", "-v", "0"]


SERVERS = (
    Server("uvicorn, h11", _uvicorn("--http", "h11")),
    Server("uvicorn, httptools", _uvicorn("--http", "httptools")),
    Server("uvicorn, zttp", _uvicorn("--http", "zttp")),
    Server("uvicorn, no lifespan", _uvicorn("--lifespan", "off"), lifespan=False),
    Server("hypercorn", _hypercorn),
    Server("granian", _granian),
    Server("daphne", _daphne, lifespan=False),
    Server("Starlette", _uvicorn("--factory", app="starlette"), prefix="/llm"),
    Server("FastAPI", _uvicorn("--factory", app="fastapi"), prefix="/llm"),
)


@dataclass
class Running:
    """A running server. `url` is that of the service."""

    server: Server
    port: int
    process: "subprocess.Popen[str]"
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}{self.server.prefix}"

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = get(f"http://127.0.0.1:{self.port}", f"{self.server.prefix}/watch/state").json
        return state

    def open(self, name: str) -> None:
        """Open the gate of a stream."""
        get(f"http://127.0.0.1:{self.port}", f"{self.server.prefix}/watch/open/{name}")

    def until(self, condition: Callable[[dict[str, Any]], Any], within: float = PATIENCE) -> dict[str, Any]:
        """Wait until the state meets `condition`, and return it. Fails after `within` seconds."""
        deadline = time.monotonic() + within
        while not condition(state := self.state()):
            assert time.monotonic() < deadline, f"{self.server.name}: {state}"
        return state


@contextmanager
def running(server: Server, *options: str) -> Iterator[Running]:
    """Run a server. The block is entered when it accepts connections. `options` are added to its command line."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*server.command(port), *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, **pipes)
    it = Running(server, port, process)
    try:
        _await_port(it)
        yield it
    finally:
        process.send_signal(server.stops_by)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
    if "Traceback" in said:
        raise AssertionError(f"{server.name} said:\n{said}")


def _await_port(it: Running) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", it.port)) == 0:
                return
        if it.process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{it.server.name} did not start")
        time.sleep(0.02)
