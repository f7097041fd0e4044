"""rolter, a gateway in Rust (axum, hyper, tokio): Messages in front of an OpenAI-compatible engine, from PyPI."""

from pathlib import Path
from typing import Final

from .envs import venv
from .peer import MODEL, Launch, Peer

_VERSION: Final = "0.1.0"
_CONFIG: Final = """\
[server]
host = "{host}"
port = {port}
[[providers]]
name = "engine"
kind = "openai_compatible"
api_base = "http://{engine}"
[[routes]]
model = "{model}"
strategy = "round_robin"
[[routes.targets]]
provider = "engine"
model = "{model}"
"""


class Rolter(Peer):
    name = "rolter"
    label = "rolter (Rust)"
    ready = "/health"

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._folder = cache / "envs" / self.name
        return venv(self._folder, [f"rolter=={_VERSION}"], install=install)["rolter"]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        config = folder / "rolter.toml"
        host, _, port = listen.rpartition(":")
        config.write_text(_CONFIG.format(engine=engine, host=host, port=port, model=MODEL))
        return Launch([str(self._folder / "bin" / "rolter"), "gateway", "-c", str(config)], {"RUST_LOG": "error"})
