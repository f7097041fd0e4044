"""The floor: `bench.relay` passes bytes on without parsing them, in the bench's own environment."""

import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from .peer import Launch, Peer


class Relay(Peer):
    name = "relay"
    label = "byte relay (asyncio, uvloop)"
    api = "chat"

    def prepare(self, cache: Path, *, refresh: bool) -> str:
        return f"uvloop {version('uvloop')}"

    def launch(self, upstream: str, port: int, folder: Path) -> Launch:
        return Launch([sys.executable, "-m", "bench.relay", urlsplit(upstream).netloc, "--port", str(port)])
