"""Installs what the SDK's tests need into `.clients/`: its source distribution, and an environment with its pins."""

import venv
from pathlib import Path
from typing import Final

from tests.clients.install import FOLDER, PYPI, run_quietly

VERSION: Final = PYPI["anthropic"]
_ENVIRONMENT: Final = FOLDER / "sdk-tests"
PYTHON: Final = _ENVIRONMENT / "bin" / "python"
_SOURCES: Final = FOLDER / f"anthropic-{VERSION}"
_PINS: Final = (
    f"anthropic[aiohttp]=={VERSION}",
    "dirty-equals==0.11",
    "http-snapshot[httpx]==0.1.9",
    "inline-snapshot==0.32.5",
    "pytest==9.0.3",
    "pytest-asyncio==1.3.0",
    "pytest-xdist==3.8.0",
    "respx==0.22.0",
)
"""As in requirements-dev.lock of the source distribution."""


def install() -> Path:
    """The folder of the source distribution. What is there is kept. Raises CalledProcessError."""
    FOLDER.mkdir(exist_ok=True)
    stamp = _ENVIRONMENT / f"anthropic-{VERSION}"
    if not stamp.exists():
        venv.create(_ENVIRONMENT, with_pip=True)
        run_quietly(str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q", *_PINS)
        stamp.touch()
    if not (_SOURCES / "tests").exists():
        archive = FOLDER / f"anthropic-{VERSION}.tar.gz"
        download = ("download", "-q", "--no-deps", "--no-binary", "anthropic", "--dest", str(FOLDER))
        run_quietly(str(PYTHON), "-m", "pip", *download, f"anthropic=={VERSION}")
        run_quietly("tar", "-xzf", str(archive), "-C", str(FOLDER))
    return _SOURCES
