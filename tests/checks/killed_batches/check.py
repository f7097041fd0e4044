"""The check itself: processes, kills, and the comparison."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from anthro_asgi.batches.database import Database
from anthro_asgi.batches.store import StoreUnavailable

_LEASE: Final = 3.0  # seconds
_MARGIN: Final = 0.5  # seconds by which the clock readings of two processes may be off
_REQUESTS: Final = 120  # of one batch
_RECOVERY: Final = 10.0  # seconds for a service that was not killed to reach the store again
_PATIENCE: Final = 120.0  # seconds for the end of all batches, after the last kill


class Child:
    """A process that is killed and started again."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = [sys.executable, "-m", *arguments]

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(b"listening"), f"{self._arguments}: {line!r}"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass
class Report:
    """What happened. `problems` is empty if nothing is wrong."""

    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    requests: int = 0
    attempts: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} of {name}" for name, count in sorted(self.kills.items()))
        lines = [
            f"{self.seconds:.0f} s, {sum(self.kills.values())} kills ({kills})",
            f"{self.batches} batches with {self.requests} requests; the engine began {self.attempts} answers",
            *self.problems,
            "FAILED" if self.problems else "no result is missing, none is there twice, and nothing ran again",
        ]
        return "\n".join(lines)


class Check:
    """Two services that share a store, an engine, and a client; as a context manager.

    `store` is the value of `--batch-store`. `database` reads the same store, to see when a result was stored.
    `others` are further processes to kill: each is killed and started again by its function, which returns when it is
    ready again.
    """

    def __init__(
        self, folder: Path, store: str, database: Database, seed: int, others: dict[str, Callable[[], None]]
    ) -> None:
        ports = [_free_port() for _ in range(3)]
        self._log = folder / "engine.log"
        self._log.touch()
        self._database = database
        self._random = random.Random(seed)
        self._others = others
        serve = ["anthro_asgi", "serve", "--upstream", f"http://127.0.0.1:{ports[0]}/v1", "--dialect", "openai"]
        serve += ["--batch-store", store, "--batch-lease", f"{_LEASE}s", "--batch-concurrency", "8", "--native", "off"]
        self._children = {
            "engine": Child(["tests.checks.killed_batches.engine", str(ports[0]), str(self._log)]),
            **{f"service {port}": Child([*serve, "--port", str(port)]) for port in ports[1:]},
        }
        self._urls = [f"http://127.0.0.1:{port}/v1/messages/batches" for port in ports[1:]]
        self._stored: dict[str, float] = {}  # prompt → when its result was seen in the store
        self._stopping = threading.Event()
        self._submitted = 0
        self.report = Report()

    def __enter__(self) -> Self:
        for child in self._children.values():
            child.start()
            child.wait_ready()
        self._database.open()
        self._database.close()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._watcher.join()
        for child in self._children.values():
            child.kill()

    def run(self, seconds: float) -> Report:
        """Kill for `seconds`, wait until all batches have ended, and compare."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if not self._open_batches():
                self._submit()
            time.sleep(self._random.uniform(0.1, 1.5))
            self._kill_some()
        until = time.monotonic() + _PATIENCE
        while left := self._open_batches():
            if time.monotonic() > until:
                self.report.problems.append(f"{len(left)} batches have not ended")
                break
            time.sleep(0.2)
        self.report.seconds = time.monotonic() - began
        self._compare()
        return self.report

    # kills

    def _kill_some(self) -> None:
        services = [name for name in self._children if name != "engine"]
        everything = list(self._children)
        chosen = self._random.choice(
            [services[:1], services[1:], services, ["engine"], everything, *([name] for name in self._others)]
        )
        if chosen[0] in self._others:
            self._others[chosen[0]]()
        else:
            for name in chosen:
                self._children[name].kill()
            for name in chosen:
                self._children[name].start()
            for name in chosen:
                self._children[name].wait_ready()
        self.report.kills[" and ".join(name.split()[0] for name in chosen)] += 1

    # the client

    def _submit(self) -> None:
        """Submit a batch. If the response is lost, the batch may be there nevertheless, and then runs too."""
        self._submitted += 1
        requests = [
            {
                "custom_id": f"b{self._submitted}-{at}",
                "params": {
                    "model": "m",
                    "max_tokens": 100,
                    "messages": [{"role": "user", "content": f"b{self._submitted}-{at}"}],
                },
            }
            for at in range(_REQUESTS)
        ]
        with suppress(OSError, urllib.error.URLError):
            self._call("", json.dumps({"requests": requests}).encode())

    def _open_batches(self) -> list[dict[str, Any]]:
        """The batches that have not ended. A service that does not answer has one, as far as anybody knows."""
        try:
            return [batch for batch in self._batches() if batch["processing_status"] != "ended"]
        except (OSError, urllib.error.URLError):
            return [{}]

    def _batches(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self._call("?limit=1000"))["data"]
        return listed

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        url = self._random.choice(self._urls) + path
        with urllib.request.urlopen(url, body, timeout=30) as response:  # noqa: S310 - a service of this check
            content: bytes = response.read()
            return content

    def _read(self, path: str) -> bytes:
        """What a service answers, in the end: one whose connections to the store were killed says 529 meanwhile."""
        until = time.monotonic() + _RECOVERY
        while True:
            try:
                return self._call(path)
            except urllib.error.HTTPError as exc:
                if exc.code != 529 or time.monotonic() > until:
                    raise
            time.sleep(0.2)

    # what must be

    def _watch(self) -> None:
        """Record when the result of each prompt is in the store."""
        while not self._stopping.wait(0.05):
            try:
                self._database.open()
                rows = self._database.transaction(
                    lambda statements: statements.rows("SELECT custom_id FROM requests WHERE outcome = 1")
                )
            except StoreUnavailable:  # the database is being killed too
                continue
            finally:
                self._database.close()
            now = time.time()
            for (name,) in rows:
                self._stored.setdefault(name, now)

    def _compare(self) -> None:
        report = self.report
        for batch in json.loads(self._read("?limit=1000"))["data"]:
            report.batches += 1
            report.requests += sum(batch["request_counts"].values())
            lines = [json.loads(line) for line in self._read(f"/{batch['id']}/results").splitlines()]
            number = lines[0]["custom_id"].partition("-")[0] if lines else "?"
            if [line["custom_id"] for line in lines] != [f"{number}-{at}" for at in range(_REQUESTS)]:
                report.problems.append(f"{batch['id']}: results are missing, or are there twice")
            for line in lines:
                said = line["result"].get("message", {}).get("content", [{}])[0].get("text")
                if said != f"you said {line['custom_id']}":
                    report.problems.append(f"{line['custom_id']}: {json.dumps(line['result'])[:300]}")
        for line in self._log.read_text().splitlines():
            name, began = line.split()
            report.attempts += 1
            if float(began) > self._stored.get(name, float("inf")) + _MARGIN:
                report.problems.append(f"{name} ran again after its result had been stored")
        if not report.requests:
            report.problems.append("no batch was created")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
