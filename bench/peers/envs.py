"""Environments of the peers: one folder each below the bench's cache, made once, made again when its pins change.

A folder counts as made only when its stamp says that exactly these pins were installed for this interpreter, and the
stamp is written last: an installation that was interrupted, or is for other pins, is thrown away and made anew. A lock
keeps two benches from making the same one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .peer import Missing

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_STAMP: Final = "stamp.json"
_SECONDS: Final = 900  # for one installation
Build = Callable[[Path], dict[str, str]]  # fills an empty folder and returns the versions it got


def cache() -> Path:
    """Where environments and results are kept: bench/.cache, or the variable ANTHRO_ASGI_BENCH_CACHE."""
    return Path(os.environ.get("ANTHRO_ASGI_BENCH_CACHE") or CHECKOUT / "bench" / ".cache").resolve()


def ensure(folder: Path, pins: Sequence[str], build: Build, *, refresh: bool = False) -> dict[str, str]:
    """The versions in `folder`, which `build` fills unless it is there with exactly these `pins`. Raises Missing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        stamp = _read(folder / _STAMP)
        if not refresh and stamp is not None and stamp["pins"] == list(pins):
            return dict(stamp["versions"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        print(f"installing {folder.name}", file=sys.stderr, flush=True)
        versions = build(folder)
        new = folder / f"{_STAMP}.new"
        new.write_text(json.dumps({"pins": list(pins), "versions": versions}))
        new.replace(folder / _STAMP)
        return versions


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(stamp, dict) and isinstance(stamp.get("pins"), list) and isinstance(stamp.get("versions"), dict)
    return stamp if whole else None


# --- Python ---


def venv(folder: Path, requirements: Sequence[str], *, editable: bool = False, refresh: bool = False) -> dict[str, str]:
    """A virtual environment with `requirements` (for pip); the version of everything in it. Raises Missing.

    An `editable` one follows the checkout's code by itself, and its pins hold what the checkout says it depends on.
    """
    pins = [*requirements, f"python {sys.version.split()[0]} {sys.executable}"]
    if editable:
        pins.append(f"pyproject {hashlib.sha256((CHECKOUT / 'pyproject.toml').read_bytes()).hexdigest()}")
    return ensure(folder, pins, lambda empty: _install(empty, requirements, editable), refresh=refresh)


def _install(folder: Path, requirements: Sequence[str], editable: bool) -> dict[str, str]:
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", *(["--editable"] if editable else []), *requirements])
    listed = json.loads(_run([*pip, "list", "--format", "json"]))
    return {package["name"].lower(): package["version"] for package in listed}


# --- Node ---


def node_modules(folder: Path, packages: Sequence[str], *, refresh: bool = False) -> dict[str, str]:
    """A folder with node_modules for `packages` (NAME@VERSION), and their versions. Raises Missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("node and npm are not on PATH: apt-get install --no-install-recommends nodejs npm")
    pins = [*packages, f"node {_run(['node', '--version']).strip()}"]
    return ensure(folder, pins, lambda empty: _install_node(empty, packages), refresh=refresh)


def _install_node(folder: Path, packages: Sequence[str]) -> dict[str, str]:
    (folder / "package.json").write_text('{"private": true}')
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    _run(["npm", "install", "--prefix", str(folder), *quiet, *packages])
    names = [package.rpartition("@")[0] for package in packages]
    described = {name: folder / "node_modules" / name / "package.json" for name in names}
    return {name: json.loads(path.read_text())["version"] for name, path in described.items()}


def _run(command: Sequence[str]) -> str:
    """The standard output of `command`. Raises Missing with the last line it complained in."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"{command[0]}: {exc}") from exc
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise Missing(f"could not be installed: {words[-1].strip()}")
    return done.stdout
