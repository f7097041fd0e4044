"""Client libraries, each in a process of its own: a driver of `tests/clients/drivers`, which runs tasks in turn.

with Client("anthropic_python") as client:
    client.run(service.url, prompt="Hello", stream=True).text
"""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.clients.install import FOLDER, PYTHON, ROOT

DRIVERS: Final = Path(__file__).parent / "drivers"
_DEADLINE: Final = 120.0  # seconds for one task

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task, as `tests/clients/drivers/__init__.py` describes it. `fields` holds the driver's own."""

    text: str | None
    calls: list[Json]
    structured: Json | None
    error: Json | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Json]:
        return [call["input"] for call in self.calls]


class Client:
    """A client library by the name of its driver. Entering starts its process, which takes seconds for some."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="client-")
        self._stderr = tempfile.TemporaryFile("w+", dir=self._home.name)
        self._process = subprocess.Popen(
            _command(self.name),
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": self._home.name, "CLIENTS_FOLDER": str(FOLDER)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
        self._home.cleanup()

    def run(self, url: str, **task: Any) -> Outcome:
        """Run one task to its end. Raises AssertionError, with what the client wrote, when there is no outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"url": url, "home": self._home.name, **task}), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], _DEADLINE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            self._stderr.seek(0)
            raise AssertionError(f"{self.name} returned nothing; it wrote:\n{self._stderr.read()[-10_000:]}")
        fields: Json = json.loads(line)
        return Outcome(
            text=fields.pop("text", None),
            calls=fields.pop("calls"),
            structured=fields.pop("structured", None),
            error=fields.pop("error", None),
            fields=fields,
        )


def _command(name: str) -> list[str]:
    if name.endswith("_node"):
        return ["node", str(DRIVERS / f"{name}.mjs")]
    return [str(PYTHON), "-m", f"tests.clients.drivers.{name}"]
