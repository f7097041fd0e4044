"""The floor: `bench.relay` passes bytes on without parsing them, in the bench's own environment."""

import sys
from importlib.metadata import version
from pathlib import Path

from .peer import Launch, Peer


class Relay(Peer):
    name = "relay"
    label = "byte relay (asyncio, uvloop)"
    api = "chat"
    unix = True

    def prepare(self, cache: Path, *, install: bool) -> str:
        return f"uvloop {version('uvloop')}"

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        return Launch([sys.executable, "-m", "bench.relay", engine, "--listen", listen])
