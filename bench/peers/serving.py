"""The scripted engine and a peer in front of it, up and answering for as long as a `with` lasts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .driving import Server
from .peer import MODEL, Launch, Peer
from .processes import START_SECONDS, await_ready, free_port, running

_ENGINE: Final = "direct"


@contextmanager
def engine(rate: float, folder: Path, module: str = "bench.scripted") -> Iterator[Server]:
    """The scripted engine at `rate` tokens/s a stream (0: as fast as it is read). Raises Missing."""
    port = free_port()
    command = [sys.executable, "-m", module, "--port", str(port), "--rate", f"{rate:g}", "--model", MODEL]
    log = folder / "engine.log"
    with running(Launch(command), log) as process:
        await_ready(process, port, "/v1/models", log, START_SECONDS)
        yield Server(_ENGINE, "the engine itself", "chat", MODEL, f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def serving(peer: Peer, version: str, upstream: Server, folder: Path) -> Iterator[Server]:
    """`peer`, which is prepared, in front of `upstream`. Raises Missing."""
    home = folder / peer.name
    home.mkdir(exist_ok=True)
    port = free_port()
    with started(peer.launch(upstream.url, port, home), port, peer.ready, home / "log") as pid:
        yield Server(peer.name, peer.label, peer.api, peer.model, f"http://127.0.0.1:{port}", pid, version)


@contextmanager
def started(launch: Launch, port: int, ready: str, log: Path) -> Iterator[int]:
    """The pid of a server that answers on `port`. Raises Missing."""
    with running(launch, log) as process:
        await_ready(process, port, ready, log, START_SECONDS)
        yield process.pid
