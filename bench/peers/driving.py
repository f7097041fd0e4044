"""The load client, run as a process of its own so that what it costs is on nobody's account."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .peer import Api, Launch, Missing
from .processes import last_words, running

SLACK_SECONDS: Final = 30.0  # for a client to start and to write its summary
_NEVER: Final = 3_600


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the client: streams of `tokens` tokens, `concurrency` at once or else `rate` new ones a second.

    It ends after `requests` streams, or begins none after `duration` seconds. Over `ramp` seconds the concurrent ones
    come one by one.
    """

    tokens: int
    requests: int | None = None
    duration: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    ramp: float | None = None

    def arguments(self) -> list[str]:
        """Its command line, but for whom to ask. How long one request may take is for the bench to say."""
        open_loop = self.rate is not None
        options = {
            "--concurrency": self.concurrency,
            "--ramp": self.ramp,
            "--rate": self.rate,
            "--arrivals": "constant" if open_loop else None,
            "--max-open": self.requests if open_loop else None,
            "--requests": self.requests,
            "--duration": self.duration,
            "--output-tokens": self.tokens,
            "--timeout": _NEVER,
        }
        return [word for name, value in options.items() if value is not None for word in (name, str(value))]


@dataclass(frozen=True, slots=True)
class Server:
    """What the client asks: a peer that is up, or the engine itself. `pid` is whose CPU time and memory are counted."""

    name: str
    label: str
    api: Api
    model: str
    url: str
    pid: int
    version: str | None = None


class Client:
    """A client at work."""

    def __init__(self, process: subprocess.Popen[bytes], report: Path, log: Path) -> None:
        self._process = process
        self._report = report
        self._log = log

    @property
    def at_work(self) -> bool:
        return self._process.poll() is None

    def summary(self, seconds: float) -> dict[str, Any]:
        """Its summary, once it is done. Raises Missing when it is not after `seconds`, or nothing was answered."""
        try:
            status = self._process.wait(seconds + SLACK_SECONDS)
        except subprocess.TimeoutExpired:
            raise Missing(f"hangs: the load was not over after {seconds + SLACK_SECONDS:g} s") from None
        lines = self._report.read_text().splitlines() if self._report.exists() else []
        if not lines:
            raise Missing(f"the load client ended with status {status}: {last_words(self._log)}")
        summary: dict[str, Any] = json.loads(lines[-1])
        if not summary["ok"] or not summary["tokens"]:
            raise Missing(f"no request was answered: {summary['errors']}")
        return summary


@contextmanager
def driving(server: Server, load: Load, folder: Path, client: str = "load") -> Iterator[Client]:
    """The client at work on `server`; gone at the end. `folder` takes its files, named after `client`."""
    report, log = folder / f"{client}.json", folder / f"{client}.log"
    report.unlink(missing_ok=True)
    whom = [server.url, "--api", server.api, "--model", server.model, "--pid", str(server.pid)]
    command: Sequence[str] = [sys.executable, "-m", "bench.load", *whom, *load.arguments(), "--json", str(report)]
    with running(Launch(list(command)), log) as process:
        yield Client(process, report, log)


def drive(server: Server, load: Load, folder: Path, seconds: float) -> dict[str, Any]:
    """The summary of a whole run, which should take up to `seconds`. Raises Missing."""
    with driving(server, load, folder) as client:
        return client.summary(seconds)
