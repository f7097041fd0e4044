"""The floor: `bench.relay`, which passes bytes on and looks at none of them."""

import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .peer import MODEL, Api, Launch


class Relay:
    """Runs in the bench's own environment."""

    name: Final = "relay"
    label: Final = "byte relay (asyncio, uvloop)"
    api: Final[Api] = "chat"
    model: Final = MODEL
    ready: Final = "/v1/models"

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        from importlib.metadata import version

        return f"uvloop {version('uvloop')}"

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return Launch([sys.executable, "-m", "bench.relay", urlsplit(upstream).netloc, "--port", str(port)])
