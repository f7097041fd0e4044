"""This service: in Python alone and with the native path, both in the bench's environment with the extra `fast`; and
with its dependencies only, in an environment of its own, which follows the code of the checkout.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from ..records import CHECKOUT
from .envs import venv
from .peer import Launch, Peer, is_path


class Ours(Peer):
    """`anthro-asgi serve` of the checkout, in the environment of the bench or in one without the extra `fast`.

    `native` is the value of `--native`. With `on` the peer does not start where the extension module is not built.
    """

    ready = "/healthz"
    unix = True

    def __init__(self, name: str, label: str, native: str = "off", *, own_environment: bool = False) -> None:
        self.name = name
        self.label = label
        self.python = sys.executable
        self._native = native
        self._own_environment = own_environment

    def prepare(self, cache: Path, *, install: bool) -> str:
        if not self._own_environment:
            return f"checkout, uvicorn {version('uvicorn')}, uvloop {version('uvloop')}"
        folder = cache / "envs" / self.name
        versions = venv(folder, [str(CHECKOUT)], editable=True, install=install)
        self.python = str(folder / "bin" / "python")
        return f"checkout, uvicorn {versions['uvicorn']}, h11 {versions['h11']}"

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        upstream = f"unix:{engine}" if is_path(engine) else f"http://{engine}/v1"
        return self.serve(listen, "--upstream", upstream, "--max-concurrency", "10000")

    def serve(self, listen: str, *options: str) -> Launch:
        """`anthro-asgi serve` with `options` at `listen`, after `prepare`."""
        where = ["--uds", listen] if is_path(listen) else ["--port", listen.rpartition(":")[2]]
        command = [self.python, "-m", "anthro_asgi", "serve", *where, "--log-level", "warning"]
        return Launch([*command, "--native", self._native, *options])


def fast() -> Ours:
    """On uvicorn with httptools and uvloop, in Python alone."""
    return Ours("ours-fast", "anthro-asgi, fast")


def native() -> Ours:
    """The same with the native path."""
    return Ours("ours-native", "anthro-asgi, fast and native", "on")


def loop() -> Ours:
    """The same with the native path in the event loop alone."""
    return Ours("ours-loop", "anthro-asgi, fast and native, without a thread", "loop")


def h11() -> Ours:
    """On uvicorn with h11 and asyncio."""
    return Ours("ours-h11", "anthro-asgi, h11 + asyncio", own_environment=True)
