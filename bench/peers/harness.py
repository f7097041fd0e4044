"""What every measurement uses: the scripted engine, a peer in front of it, and the load client as its own process.

What a process prints goes to a file: no pipe can fill up, and the last line explains why it did not start.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, socket
from threading import Event
from time import monotonic
from typing import Any, Final

from anthro_asgi.bench.counting import Api
from anthro_asgi.bench.records import Load, load_from

from ..process import end, start
from ..records import DIRECT, Grammar, ResultFile, Start
from .peer import MODEL, Launch, Peer, Unavailable, is_path
from .probe import TOKENS, probe

START_SECONDS: Final = 180.0  # LiteLLM takes more than a minute on a busy machine
SLACK_SECONDS: Final = 30.0  # for a load client to start and to write its summary
PATIENCE: Final = 12  # a server hangs when a turn takes this many times what it should
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01  # between two looks whether a server is ready
_NEVER: Final = 3_600
PROBE_SECONDS: Final = 60.0  # for each read of a checked stream


# processes


def free_address() -> str:
    """A port on 127.0.0.1 that is free at this moment."""
    with socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probing.getsockname()[1]}"


class UnixConnection(HTTPConnection):
    """An HTTP connection over the Unix socket `path`."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def http(address: str, seconds: float) -> HTTPConnection:
    """A connection to `HOST:PORT` or to the path of a Unix socket; each read may take `seconds`."""
    return UnixConnection(address, seconds) if is_path(address) else HTTPConnection(address, timeout=seconds)


def ask(address: str, path: str, seconds: float = SLACK_SECONDS) -> tuple[int, bytes]:
    """Status and body of `GET path`. Raises OSError."""
    connection = http(address, seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except HTTPException as exc:
        raise OSError(f"{address}: {type(exc).__name__}: {exc}") from exc
    finally:
        connection.close()


def pause(seconds: float) -> None:
    """Let the measured time pass. Ctrl-C interrupts it."""
    Event().wait(seconds)


@contextmanager
def running(launch: Launch, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process while the `with` block runs. Raises Unavailable when the command does not exist."""
    with log.open("wb") as out:
        try:
            process = start(launch.command, out, launch.environment, stderr=subprocess.STDOUT)
        except OSError as exc:
            raise Unavailable(f"cannot be started: {exc}") from exc
    try:
        yield process
    finally:
        end(process, _END_SECONDS)


@contextmanager
def started(
    launch: Launch, address: str, path: str, log: Path, seconds: float = START_SECONDS, holds: bytes = b""
) -> Iterator[int]:
    """The pid of a server, once GET `path` is answered with a status below 500 and a body that holds `holds`.

    Raises Unavailable.
    """
    with running(launch, log) as process:
        deadline = monotonic() + seconds
        while not _answers(address, path, min(2.0, seconds), holds):
            if process.poll() is not None:
                raise Unavailable(f"ended with status {process.returncode}: {last_line(log)}")
            if monotonic() > deadline:
                raise Unavailable(f"not ready after {seconds:g} s: {last_line(log)}")
            pause(_LOOK_SECONDS)
        yield process.pid


def _answers(address: str, path: str, seconds: float, holds: bytes) -> bool:
    try:
        status, body = ask(address, path, seconds)
    except OSError:
        return False
    return status < 500 and holds in body


def last_line(log: Path) -> str:
    """The last line of a log that is not blank."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


# servers


@dataclass(frozen=True, slots=True)
class Server:
    """What the load client connects to: a peer, or the engine itself. `pid` is the process whose cost counts."""

    name: str
    label: str
    api: Api
    model: str
    address: str
    pid: int
    version: str | None = None

    @property
    def url(self) -> str:
        return f"unix:{self.address}" if is_path(self.address) else f"http://{self.address}"


@contextmanager
def engine(rate: float, folder: Path, socket_name: str | None = None) -> Iterator[Server]:
    """The scripted engine at `rate` tokens/s per stream (0: as fast as it is read). Raises Unavailable.

    With `socket_name` it also listens on the Unix socket of this name in `folder`.
    """
    address = free_address()
    command = [sys.executable, "-m", "bench.scripted", "--port", address.rpartition(":")[2], "--model", MODEL]
    command += ["--rate", f"{rate:g}", *(["--unix", str(folder / socket_name)] if socket_name else [])]
    with started(Launch(command), address, "/v1/models", folder / "engine.log") as pid:
        yield Server(DIRECT, "the engine itself", "chat", MODEL, address, pid)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An installed peer and its version."""

    peer: Peer
    version: str


@dataclass(frozen=True, slots=True)
class Bench:
    """One invocation. `seconds` is the intended length of a turn; `folder` is for temporary files.

    `streams` are the numbers of streams of simultaneous measurements, and `windows` that of their windows.
    """

    peers: Sequence[Prepared]
    folder: Path
    records: ResultFile
    rounds: int = 1
    seconds: float = 1.0
    streams: Sequence[int] = ()
    windows: int = 1

    def named(self, *names: str) -> list[Prepared]:
        """Those of `names` that are prepared, in that order."""
        found = {prepared.peer.name: prepared for prepared in self.peers}
        return [found[name] for name in names if name in found]

    @contextmanager
    def serving(
        self, prepared: Prepared, upstream: str, *, listen: str | None = None, tokens: int = TOKENS
    ) -> Iterator[Server]:
        """The peer in front of the engine at `upstream`. A stream is checked first. Raises Unavailable.

        It listens at `listen`, by default on a free port. Both are `HOST:PORT` or the path of a Unix socket.
        """
        peer, address = prepared.peer, listen or free_address()
        home = self.folder / peer.name
        home.mkdir(exist_ok=True)
        began = monotonic()
        launch = peer.launch(upstream, address, home)
        with started(launch, address, peer.ready, home / "log", holds=peer.holds) as pid:
            self.records.add(Start(peer.name, monotonic() - began))
            faults = probe(http(address, PROBE_SECONDS), peer.api, peer.model, tokens)
            if peer.name not in {known.server for known in self.records.of(Grammar)}:
                self.records.add(Grammar(peer.name, tuple(faults)))
                for fault in faults:
                    print(f"{peer.name}: BREAKS THE CONTRACT: {fault}", flush=True)
            yield Server(peer.name, peer.label, peer.api, peer.model, address, pid, prepared.version)


def opened(server: Server) -> int:
    """The number of streams that the scripted engine has open; 0 when it has ended."""
    try:
        return int(ask(server.address, "/streams")[1])
    except OSError:
        return 0


# load


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the load client: streams of `tokens` tokens, `concurrency` at once, or `rate` new ones per second.

    It ends after `requests` streams or `duration` seconds. The concurrent streams start over `ramp` seconds. `extra` is
    a JSON object that is merged into the body of each request.
    """

    tokens: int
    requests: int | None = None
    duration: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    ramp: float | None = None
    extra: str | None = None

    def arguments(self) -> list[str]:
        """The command line. The bench, not the client, decides how long a request may take."""
        open_loop = self.rate is not None
        options = {
            "--concurrency": self.concurrency,
            "--ramp": self.ramp,
            "--rate": self.rate,
            "--arrivals": "constant" if open_loop else None,
            "--max-open": self.requests if open_loop else None,
            "--requests": self.requests,
            "--duration": self.duration,
            "--output-tokens": self.tokens,
            "--extra": self.extra,
            "--timeout": _NEVER,
        }
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]


class Client:
    """A running load client."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, log: Path) -> None:
        self._process = process
        self._out = out
        self._log = log

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def begun(self) -> bool:
        """Whether it has begun to send: it opens the file of its summary just before."""
        return self._out.exists()

    def interrupt(self) -> None:
        """End the load now. Requests that are open count as unfinished, which is no error."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Return when the load is over, or after `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def summary(self, seconds: float) -> Load:
        """Waits for the end. Raises Unavailable when that takes longer than `seconds`, or no token arrived."""
        try:
            status = self._process.wait(seconds + SLACK_SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"hangs: the load was not over after {seconds + SLACK_SECONDS:g} s") from None
        lines = self._out.read_bytes().splitlines() if self._out.exists() else []
        if not lines:
            raise Unavailable(f"the load client ended with status {status}: {last_line(self._log)}")
        summary = load_from(lines[-1])
        if not summary.chunks:
            raise Unavailable(f"no request was answered: {summary.errors}")
        return summary


@contextmanager
def driving(server: Server, plan: Plan, folder: Path, name: str = "load") -> Iterator[Client]:
    """A load client on `server` while the `with` block runs. Its files go to `folder` and begin with `name`."""
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    out.unlink(missing_ok=True)
    target = [server.url, "--api", server.api, "--model", server.model, "--pid", str(server.pid)]
    command = [sys.executable, "-m", "anthro_asgi", "bench", "load", *target, *plan.arguments(), "--json", str(out)]
    with running(Launch(command), log) as process:
        yield Client(process, out, log)


def await_open(count: Callable[[], int], streams: int, clients: Sequence[Client], seconds: float = 0.0) -> None:
    """Return once `count` gives this many streams. Raises Unavailable after `seconds`, or when a client has ended."""
    deadline = monotonic() + SLACK_SECONDS + seconds
    while count() < streams:
        if monotonic() > deadline or not all(client.running for client in clients):
            raise Unavailable(f"{streams} streams were never open at once")
        pause(0.1)


def drive(server: Server, plan: Plan, folder: Path, seconds: float) -> Load:
    """The summary of a whole run that should take up to `seconds`. Raises Unavailable."""
    with driving(server, plan, folder) as client:
        return client.summary(seconds)


def cpu_per_token(load: Load) -> float:
    """Microseconds of the server's CPU. Raises Unavailable when it was not metered."""
    cost: Any = load.server and load.server.cpu_us_per_chunk
    if not cost:
        raise Unavailable("its CPU time was not measured")
    return float(cost)
