"""Runs Claude Code without a terminal, in an empty home, against one server."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.engine import Play, ScriptedEngine, call
from tests.clients.install import CLAUDE
from tests.clients.scenario import served
from tests.support.service import Service

_DEADLINE = 120.0  # seconds for one run


@dataclass(frozen=True, slots=True)
class Result:
    """What `claude -p --output-format json` printed."""

    status: int
    fields: dict[str, Any]
    stderr: str

    @property
    def text(self) -> str:
        return str(self.fields.get("result"))

    @property
    def is_error(self) -> bool:
        return bool(self.fields.get("is_error", True)) or self.status != 0


class ClaudeCode:
    """Claude Code at work in `folder`, with `url` as its server. Each `ask` after the first continues the session."""

    def __init__(self, url: str, folder: Path, **environ: str) -> None:
        self._folder = folder
        home = folder.parent / "home"
        home.mkdir(exist_ok=True)
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": "key",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
            **environ,
        }
        self._asked = False

    def ask(self, prompt: str, *options: str) -> Result:
        """Run one prompt to its end."""
        again = ("--continue",) if self._asked else ()
        self._asked = True
        command = [str(CLAUDE), "-p", prompt, "--output-format", "json", "--model", "local", *again, *options]
        done = subprocess.run(
            [*command, "--dangerously-skip-permissions"],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
        try:
            fields = json.loads(done.stdout)
        except json.JSONDecodeError:
            fields = {"result": done.stdout}
        return Result(done.returncode, fields if isinstance(fields, dict) else {}, done.stderr)


@dataclass(frozen=True, slots=True)
class Session:
    """Claude Code at work in `folder`, the service as its server, and the scripted engine behind it."""

    claude: ClaudeCode
    engine: ScriptedEngine
    service: Service
    folder: Path


@contextmanager
def session(tmp_path: Path, play: Play, *options: str, **engine: object) -> Iterator[Session]:
    """`options` are those of `anthro-asgi serve`, `engine` the keywords of ScriptedEngine."""
    folder = tmp_path / "project"
    folder.mkdir()
    with served(play, *options, **engine) as s:
        yield Session(ClaudeCode(s.url, folder), s.engine, s.service, folder)


def bash(command: str, identity: str = "call_1", prompt: int = 900, **more: object) -> bytes:
    """A call of Claude Code's Bash tool."""
    return call("Bash", json.dumps({"command": command, "description": "a step"}), identity, prompt, **more)
