"""The environments of the peers: one folder each below the bench's cache, installed only on request (`--install`).

They come from PyPI, npm and Debian. A Debian package is unpacked, not installed: its binary runs from the cache.

A folder counts as built only when its stamp lists exactly these pins for this interpreter. The stamp is written last,
so an interrupted installation is discarded. A lock keeps two processes from building the same folder.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from ..records import CHECKOUT
from .peer import Launch, Unavailable

_STAMP: Final = "stamp.json"
_SECONDS: Final = 600  # for one installation
_TO_INSTALL: Final = re.compile(r"^Inst (\S+) \((\S+)", re.MULTILINE)  # what `apt-get install --simulate` prints
_SYSTEM: Final = "/usr/sbin:/usr/local/sbin:/usr/bin"
Versions = dict[str, str]


def cache() -> Path:
    """The folder of environments and results: bench/.cache, or the variable BENCH_CACHE."""
    return Path(os.environ.get("BENCH_CACHE") or CHECKOUT / "bench" / ".cache").resolve()


def ensure(folder: Path, pins: Sequence[str], build: Callable[[Path], Versions], *, install: bool) -> Versions:
    """The versions in `folder`. If it was not built with these `pins`, `build` fills it. Raises Unavailable.

    Without `install` nothing is built.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp = folder / _STAMP
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := _read(stamp, pins)) is not None:
            return found
        if not install:
            raise Unavailable("not installed: use --install")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        print(f"installing {folder.name}", file=sys.stderr, flush=True)
        versions = build(folder)
        new = folder / f"{_STAMP}.new"
        new.write_bytes(orjson.dumps({"pins": list(pins), "versions": versions}))
        new.replace(stamp)
        return versions


def _read(path: Path, pins: Sequence[str]) -> Versions | None:
    """The versions of a stamp that is valid for `pins`."""
    try:
        stamp = orjson.loads(path.read_bytes())
        return dict(stamp["versions"]) if stamp["pins"] == list(pins) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def venv(
    folder: Path, requirements: Sequence[str], *, bare: Sequence[str] = (), editable: bool = False, install: bool
) -> Versions:
    """A virtual environment with `requirements` for pip; the version of every package in it. Raises Unavailable.

    `bare` are packages without their dependencies.
    An `editable` one follows the checkout's code, and is built again when pyproject.toml changes.
    """
    pins = [*requirements, *bare, f"python {sys.version.split()[0]} {sys.executable}"]
    if editable:
        pins.append(f"pyproject {hashlib.sha256((CHECKOUT / 'pyproject.toml').read_bytes()).hexdigest()}")
    return ensure(folder, pins, lambda empty: _install(empty, requirements, bare, editable), install=install)


def _install(folder: Path, requirements: Sequence[str], bare: Sequence[str], editable: bool) -> Versions:
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", *(["--editable"] if editable else []), *requirements])
    if bare:
        _run([*pip, "install", "--quiet", "--no-deps", *bare])
    listed = orjson.loads(_run([*pip, "list", "--format", "json"]))
    return {package["name"].lower(): package["version"] for package in listed}


def node_modules(folder: Path, packages: Sequence[str], *, install: bool) -> Versions:
    """A folder with node_modules for `packages` (NAME@VERSION), and their versions. Raises Unavailable."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("node and npm are not on PATH: apt-get install --no-install-recommends nodejs npm")
    pins = [*packages, f"node {_run(['node', '--version']).strip()}"]
    return ensure(folder, pins, lambda empty: _install_node(empty, packages), install=install)


def _install_node(folder: Path, packages: Sequence[str]) -> Versions:
    (folder / "package.json").write_text('{"private": true}')
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]
    _run(["npm", "install", "--prefix", str(folder), *quiet, *packages])
    names = [package.rpartition("@")[0] for package in packages]
    described = {name: folder / "node_modules" / name / "package.json" for name in names}
    return {name: orjson.loads(path.read_bytes())["version"] for name, path in described.items()}


def debian(folder: Path, package: str, *, install: bool) -> Launch:
    """How to start `package`: the program of the system, or of the package in `folder`. Raises Unavailable."""
    search = os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM))
    if path := shutil.which(package, path=search):
        return Launch([path])
    ensure(folder, [package], lambda empty: _unpack(empty, package), install=install)
    found = next((path for path in (folder / "root").glob(f"usr/*bin/{package}")), None)
    if found is None:
        raise Unavailable(f"the package {package} holds no program of this name")
    libraries = os.pathsep.join(str(path) for path in (folder / "root" / "usr" / "lib").glob("*-linux-*"))
    return Launch([str(found)], {"LD_LIBRARY_PATH": libraries})


def _unpack(folder: Path, package: str) -> Versions:
    """The package and those of its dependencies that the system does not have."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Unavailable("not installed: this system has no apt-get")
    listed = _run(["apt-get", "install", "--simulate", "--no-install-recommends", package])
    versions = dict(_TO_INSTALL.findall(listed))
    _run(["apt-get", "download", *(f"{name}={version}" for name, version in versions.items())], folder)
    for archive in folder.glob("*.deb"):
        _run(["dpkg", "--extract", str(archive), str(folder / "root")])
    return versions


def said(launch: Launch, *words: str) -> str:
    """What the program prints for `words`, such as its version. Raises Unavailable."""
    return _run([*launch.command, *words], environment=launch.environment)


def _run(command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What `command` prints. Raises Unavailable with the last line of its error output."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"{command[0]}: {exc}") from exc
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise Unavailable(f"could not be installed: {words[-1].strip()}")
    return done.stdout or done.stderr
