"""The command in a process of its own, on uvloop, inspected from outside: its log and its open files."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from tests.checks.faults.bad_engine import BadEngine
from tests.checks.faults.healthy_response import CANARY, Json
from tests.checks.faults.response_faults import UPSTREAM_KEY
from tests.checks.faults.service import CLIENT_KEY, Installation
from tests.support.service import Service


class ServiceProcess:
    """Has the interface of ServiceThread, except what only a thread can show."""

    installation = Installation("command", "httptools", "chat")

    def __init__(self, engine: BadEngine, options: Mapping[str, str]) -> None:
        self._engine = engine
        line = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._service = Service(
            *("--upstream", engine.url, "--dialect", "openai", "--upstream-api", "chat", "--log-level", "debug", *line),
            ANTHRO_ASGI_API_KEYS=CLIENT_KEY,
            ANTHRO_ASGI_UPSTREAM_KEY=UPSTREAM_KEY,
        )
        self._files = sys.maxsize  # until record_baseline
        self.secrets = (CANARY, UPSTREAM_KEY, CLIENT_KEY, engine.url.partition("://")[2])

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._service.__enter__)
        self.port = urlsplit(self._service.url).port or 0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._service.stop)

    @property
    def log(self) -> list[Json]:
        return self._service.log

    @property
    def admission(self) -> str:
        raise NotImplementedError("not visible from outside the process")

    @property
    def connections(self) -> int:
        raise NotImplementedError("not visible from outside the process")

    @property
    def idle(self) -> int:
        """Connections to the engine without a request."""
        return self._engine.open - self._engine.answering

    async def record_baseline(self) -> None:
        """Regard the files that are open now as the service's own."""
        self._files = self._open() - self.idle

    async def held_resources(self) -> list[str]:
        files = self._open() - self._files - self.idle
        return [f"{files} files more than at the start"] * (files > 0)

    def loop_errors(self) -> list[str]:
        return []  # the log would contain them as errors

    def _open(self) -> int:
        return len(os.listdir(f"/proc/{self._service.pid}/fd"))
