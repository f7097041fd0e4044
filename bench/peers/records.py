"""The results of one invocation, as JSON lines: written as they come, so that a run that is broken off keeps them."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .envs import CHECKOUT

Record = dict[str, Any]


class Records:
    """A fresh file at `path`, and all that was written to it in `all`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.all: list[Record] = []
        self._file = path.open("w")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, kind: str, **fields: Any) -> Record:
        """Add a record of a kind that README.md of the bench describes, and return it."""
        record = {"kind": kind, **fields}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.all.append(record)
        return record

    def missing(self, server: str, why: str) -> None:
        """A server that is not compared, or not to the end: said aloud and recorded."""
        print(f"{server}: MISSING: {why}", flush=True)
        self.write("missing", server=server, why=why)

    def environment(self, versions: Mapping[str, str]) -> None:
        """The machine, the moment and the commit. `versions` are of what the servers are made of."""
        self.write(
            "env",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=_commit(),
            python=platform.python_version(),
            cpu=_processor(),
            cores=os.cpu_count(),
            kernel=platform.release(),
            versions=dict(versions),
        )


def _commit() -> str | None:
    command = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
