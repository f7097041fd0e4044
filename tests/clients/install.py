"""Installs the clients into `.clients/` of the checkout. What is there already is kept."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".clients"
NPM: Final = {"@anthropic-ai/claude-code": "2.1.332", "@anthropic-ai/sdk": "1.14.0"}
CLAUDE: Final = FOLDER / "node_modules" / ".bin" / "claude"


def install() -> None:
    """Raises CalledProcessError when a registry or npm is not there."""
    FOLDER.mkdir(exist_ok=True)
    wanted = {name: version for name, version in NPM.items() if _installed(name) != version}
    if wanted:
        packages = [f"{name}@{version}" for name, version in wanted.items()]
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), *packages]
        print("+", *command, file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _installed(name: str) -> str:
    path = FOLDER / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else ""
