"""This service: with the `fast` extra, in Python alone and with the native path; and with its dependencies only.

Each has its own environment with an editable installation of the checkout, so the current code is measured.
"""

from pathlib import Path

from ..records import CHECKOUT
from .envs import venv
from .peer import Launch, Peer


class Ours(Peer):
    """`anthro-asgi serve` with the checkout's `extra`, or with the given `python` and no installation.

    `native` is the value of `--native`. With `on` the peer does not start where the extension module is not built.
    """

    ready = "/healthz"

    def __init__(self, name: str, label: str, extra: str, python: str | None = None, native: str = "off") -> None:
        self.name = name
        self.label = label
        self.python = python
        self._native = native
        self.versions: dict[str, str] = {}  # of the packages in its environment, once prepared
        self._requirement = f"{CHECKOUT}[{extra}]" if extra else str(CHECKOUT)

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        if self.python is None:
            folder = cache / "envs" / self.name
            self.versions = venv(folder, [self._requirement], editable=True, refresh=refresh)
            self.python = str(folder / "bin" / "python")
        return self.versions.get("anthro-asgi", "checkout")

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return self.serve(port, "--upstream", f"{upstream}/v1", "--max-concurrency", "10000")

    def serve(self, port: int, *options: str) -> Launch:
        """`anthro-asgi serve` with `options` on 127.0.0.1:`port`, after `prepare`."""
        assert self.python is not None
        command = [self.python, "-m", "anthro_asgi", "serve", "--port", str(port), "--log-level", "warning"]
        return Launch([*command, "--native", self._native, *options])


def fast(python: str | None = None) -> Ours:
    """On uvicorn with httptools and uvloop."""
    return Ours("ours-fast", "anthro-asgi, fast", "fast", python)


def native(python: str | None = None) -> Ours:
    """The same with the native path."""
    return Ours("ours-native", "anthro-asgi, fast and native", "fast", python, "on")


def h11() -> Ours:
    """On uvicorn with h11 and asyncio."""
    return Ours("ours-h11", "anthro-asgi, h11 + asyncio", "")
