"""claude-code-router's core, the npm package `@musistudio/llms`: its Server with one provider and no logging."""

from pathlib import Path
from typing import Final

from .envs import node_modules
from .peer import MODEL, Launch, Peer

_PACKAGE: Final = "@musistudio/llms"
_VERSION: Final = "1.0.53"
_PROVIDER: Final = "bench"
_MAIN: Final = """\
const Server = require("@musistudio/llms").default;
const [url, port] = process.argv.slice(2);
const provider = { name: "%s", api_base_url: url, api_key: "none", models: ["%s"] };
const initialConfig = { HOST: "127.0.0.1", PORT: port, providers: [provider] };
new Server({ logger: false, useJsonFile: false, initialConfig }).start();
"""


class Router(Peer):
    """Its main program is written beside node_modules, where Node finds the package."""

    name = "ccr"
    label = "claude-code-router core"
    model = f"{_PROVIDER},{MODEL}"
    ready = "/health"

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._folder = cache / "envs" / self.name
        return node_modules(self._folder, [f"{_PACKAGE}@{_VERSION}"], install=install)[_PACKAGE]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        main = self._folder / "main.cjs"
        main.write_text(_MAIN % (_PROVIDER, MODEL))
        command = ["node", str(main), f"http://{engine}/v1/chat/completions", listen.rpartition(":")[2]]
        return Launch(command, {"NODE_ENV": "production"})
