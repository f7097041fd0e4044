"""This service, as its command serves it: once with the `fast` extra and once with the card's own packages only.

Each has an environment of its own with the checkout in it, editable, so that what is measured is the code as it stands.
"""

from pathlib import Path
from typing import Final

from .envs import CHECKOUT, venv
from .peer import MODEL, Api, Launch

_CONNECTIONS: Final = 10_000  # to the engine: thousands of streams are open at once in some runs
_QUIET: Final = ("--log-level", "warning")


class Ours:
    """`anthro-asgi serve` with the checkout's `extra`. `python` is one that has it all, instead of an environment."""

    api: Final[Api] = "messages"
    model: Final = MODEL
    ready: Final = "/healthz"

    def __init__(self, name: str, label: str, extra: str, python: str | None = None) -> None:
        self.name = name
        self.label = label
        self.python = python  # None until prepared
        self.versions: dict[str, str] = {}  # of everything in its environment, once prepared
        self._requirement = f"{CHECKOUT}[{extra}]" if extra else str(CHECKOUT)

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        if self.python is None:
            folder = cache / "envs" / self.name
            self.versions = venv(folder, [self._requirement], editable=True, refresh=refresh)
            self.python = str(folder / "bin" / "python")
        return self.versions.get("anthro-asgi", "checkout")

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return self.serve(port, "--upstream", f"{upstream}/v1", "--max-concurrency", str(_CONNECTIONS))

    def serve(self, port: int, *options: str) -> Launch:
        """`anthro-asgi serve` with `options` on 127.0.0.1:`port`. `prepare` was called."""
        assert self.python is not None
        return Launch([self.python, "-m", "anthro_asgi", "serve", "--port", str(port), *_QUIET, *options])


def fast(python: str | None = None) -> Ours:
    """On uvicorn with httptools and uvloop. `python` is one that has these and the checkout; else it gets its own."""
    return Ours("ours-fast", "anthro-asgi, fast", "fast", python)


def bare() -> Ours:
    """On uvicorn with h11 and asyncio."""
    return Ours("ours-h11", "anthro-asgi, h11 + asyncio", "")
