"""A fresh environment: an empty home, a copy of the checkout, and a virtual environment that has only pip."""

import os
import re
import shutil
import socket
import subprocess
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.docs.pages import PAGES, ROOT, blocks

PATIENCE: Final = 300.0  # seconds for one step
_BASH: Final = shutil.which("bash") or "bash"
_PASSED_ON: Final = re.compile(r"(?:PIP|UV|NPM|npm)_|(?:https?|no)_proxy$|SSL_CERT", re.IGNORECASE)


class StepFailed(Exception):
    """A step of a page did not do what the page says."""


class Fresh:
    """A user's machine below `folder`. `page` is the page of `docs/` that the user follows."""

    def __init__(self, folder: Path, page: str) -> None:
        self.page = page
        self.home = folder / "home"
        self.home.mkdir()
        self._python = folder / "python"
        self._checkout = folder / "checkout"
        self._ports = {port: str(_free_port()) for port in ("8484", "8000", "8080")}
        venv.create(self._python, with_pip=True, symlinks=True)
        _copy_checkout(self._checkout)

    @property
    def url(self) -> str:
        """Where the service listens that the page starts."""
        return f"http://127.0.0.1:{self._ports['8484']}"

    @property
    def log(self) -> str:
        """What all servers have written so far."""
        return (self.home / "server.log").read_text("utf-8", "replace")

    @property
    def checkout(self) -> Path:
        """The copy of the checkout."""
        return self._checkout

    def code(self, language: str, containing: str) -> str:
        """The first block of the page in this language that contains a text."""
        return block_with(containing, language, self.page)

    def line(self, containing: str) -> str:
        """The first line of shell of the page that contains a text."""
        block = block_with(containing, "sh", self.page)
        return next(line for line in re.sub(r"\\\n *", "", block).splitlines() if containing in line)

    def adapted(self, command: str) -> str:
        """A command of the page, with free ports, and with the package of this checkout."""
        return adapted(command, self._ports, self._checkout)

    def run(self, command: str, *, folder: Path | None = None, **variables: str) -> str:
        """What a command prints. Raises StepFailed if its exit status is not 0."""
        command = self.adapted(command)
        print(f"    $ {command.strip().splitlines()[0][:110]}", flush=True)
        done = subprocess.run(
            [_BASH, "-euo", "pipefail", "-c", command],
            cwd=folder or self.home,
            env=self._environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(f"exit status {done.returncode}: {command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    @contextmanager
    def served(self, command: str, ready: Callable[[], bool], *, folder: Path | None = None) -> Iterator[None]:
        """Run a server until the end of the block. The block begins when `ready` is true."""
        command = self.adapted(command)
        print(f"    $ {command.strip()[:110]} &", flush=True)
        with (
            (self.home / "server.log").open("ab") as output,
            subprocess.Popen(
                [_BASH, "-c", f"exec {command}"],
                cwd=folder or self.home,
                env=self._environment({"ANTHRO_ASGI_PORT": self._ports["8484"]} if "--port" not in command else {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                deadline = time.monotonic() + PATIENCE
                while not ready():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise StepFailed(f"not ready: {command}\n{self.log[-3000:]}")
                    time.sleep(0.1)
                yield
            finally:
                with suppress(ProcessLookupError):
                    process.terminate()
                process.wait(timeout=60)

    def answers(self, path: str, *, port: str = "8484") -> Callable[[], bool]:
        """A function for `served`: whether this path of a server on a port of the page answers 200."""

        def ready() -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{self._ports[port]}{path}", timeout=10) as answer:
                    return bool(answer.status == 200)
            except (HTTPError, URLError, OSError):
                return False

        return ready

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
        path = f"{self._python / 'bin'}:{os.environ['PATH']}"
        return {**passed, "PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **variables}


def block_with(containing: str, language: str, page: str) -> str:
    """The first block of code of a page that contains a text. Raises StepFailed if there is none."""
    for _, found, code in blocks(PAGES[page]):
        if found == language and containing in code:
            return code
    raise StepFailed(f"docs/{page} has no block of {language} with {containing!r}")


def adapted(command: str, ports: Mapping[str, str], checkout: Path) -> str:
    """A command with other ports, and with `checkout` instead of `.` or `/path/to/anthro-asgi` after `pip install`."""
    for usual, free in ports.items():
        command = re.sub(rf"(?<=[: ]){usual}\b", free, command)
    if "pip install" in command:
        command = re.sub(r"(?<=[ '])(?:/path/to/anthro-asgi|\.)(?=[\[\s']|$)", str(checkout), command)
    return command


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _copy_checkout(folder: Path) -> None:
    """Copy the files that git knows, or all but hidden ones where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)  # noqa: S607 - git
    if done.returncode != 0:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__"))
        return
    for name in done.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
