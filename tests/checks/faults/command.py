"""The real command in a process of its own, on uvloop, looked at from outside: its log, and the files it has open."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from tests.checks.faults.acting import Engine
from tests.checks.faults.answers import UPSTREAM_KEY
from tests.checks.faults.house import CLIENT_KEY, Kit
from tests.checks.faults.speech import CANARY, Json
from tests.support.service import Service


class Command:
    """To be used in place of a House."""

    kit = Kit("command", "httptools", "chat")

    def __init__(self, engine: Engine, options: Mapping[str, str]) -> None:
        self._engine = engine
        line = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._service = Service(
            *("--upstream", engine.url, "--dialect", "openai", "--upstream-api", "chat", "--log-level", "debug", *line),
            ANTHRO_ASGI_API_KEYS=CLIENT_KEY,
            ANTHRO_ASGI_UPSTREAM_KEY=UPSTREAM_KEY,
        )
        self._files = sys.maxsize  # until it has settled
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
        raise NotImplementedError("a process tells nobody who waits")

    @property
    def connections(self) -> int:
        raise NotImplementedError("a process tells nobody who is connected")

    @property
    def idle(self) -> int:
        """Connections to the engine on which it is asked nothing."""
        return self._engine.open - self._engine.answering

    async def settle(self) -> None:
        """What it has open now it may keep."""
        self._files = self._open() - self.idle

    async def unrest(self) -> list[str]:
        files = self._open() - self._files - self.idle
        return [f"{files} files more than when it began"] * (files > 0)

    def complained(self) -> list[str]:
        return []  # its log would tell, as an error

    def _open(self) -> int:
        return len(os.listdir(f"/proc/{self._service.pid}/fd"))
