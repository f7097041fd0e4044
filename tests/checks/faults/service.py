"""The service in a thread of this process, so that a test can inspect what it holds.

The functions of the command build it from options, and the process class of the command serves it, without signals. An
`Installation` chooses the HTTP parser and the API of the engine.
"""

import asyncio
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from unittest import mock

from anthro_asgi import factory
from anthro_asgi.engines.shared.remote import RemoteEngine
from anthro_asgi.observability.logs import JsonFormatter
from anthro_asgi.server import http_protocol
from anthro_asgi.server.listeners import bind_listeners
from anthro_asgi.server.process import ServerProcess
from anthro_asgi.settings.api_keys import client_keys
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import Settings
from anthro_asgi.upstream.http_parsers import PARSERS, chunk_tracking_parser
from tests.checks.faults.healthy_response import CANARY, Json
from tests.checks.faults.response_faults import UPSTREAM_KEY
from tests.support.service import native

CLIENT_KEY: Final = f"sk-{CANARY}-client"
_ADMISSION: Final = re.compile(r"<Admission running=0/\d+ waiting=0/")
_PATIENCE: Final = 10.0  # seconds for a start or an end


@dataclass(frozen=True, slots=True)
class Installation:
    """The `parser` of requests and responses, and the `api` of the engine.

    The event loop is asyncio's: objects of uvloop must not be collected as garbage by another loop's thread.
    """

    name: str
    parser: str
    api: str


INSTALLATIONS: Final = (
    Installation("httptools", "httptools", "chat"),
    Installation("h11", "h11", "chat"),
    Installation("relay", "httptools", "messages"),
)


class ServiceThread:
    """`async with ServiceThread(installation, upstream, options) as service:`. `options` are those of the command."""

    def __init__(self, installation: Installation, upstream: str, options: Mapping[str, str]) -> None:
        self.installation = installation
        self.log: list[Json] = []
        self.errors_of_loop: list[str] = []
        self.port = 0
        self._upstream = upstream
        self._options = {
            "upstream": upstream,
            "upstream-api": installation.api,
            "dialect": "openai",
            "port": "0",
            **options,
        }
        self._thread = threading.Thread(target=self._run, name=f"service-{installation.name}", daemon=True)
        self._failure: BaseException | None = None
        self._handler = _Lines(self.log)
        self._own: set[asyncio.Task[Any]] = set()
        self._process: _Process
        self._loop: asyncio.AbstractEventLoop
        self._app: Any

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not appear in a log or a response."""
        address = self._upstream.partition("://")[2] or self._upstream.removeprefix("unix:")
        return (CANARY, UPSTREAM_KEY, CLIENT_KEY, address)

    async def __aenter__(self) -> Self:
        self._ready, self._ended = asyncio.Event(), asyncio.Event()
        self._caller = asyncio.get_running_loop()
        self._thread.start()
        async with asyncio.timeout(_PATIENCE):
            await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        await self.record_baseline()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._process.end)
        async with asyncio.timeout(_PATIENCE):
            await self._ended.wait()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    # start and end

    def _run(self) -> None:
        self._handler.thread = threading.get_ident()
        logging.getLogger().addHandler(self._handler)
        try:
            self._serve()
        except BaseException as exc:
            self._failure = exc
        finally:
            logging.getLogger().removeHandler(self._handler)
            self._caller.call_soon_threadsafe(self._ready.set)
            self._caller.call_soon_threadsafe(self._ended.set)

    def _serve(self) -> None:
        environ = {"ANTHRO_ASGI_API_KEYS": CLIENT_KEY, "ANTHRO_ASGI_UPSTREAM_KEY": UPSTREAM_KEY}
        options = {"native": native(), "gc": "python", **self._options}  # all services share one collector
        settings = load_settings({name: [value] for name, value in options.items()}, environ)
        with bind_listeners(settings) as shares:
            engine = factory.build_engine(settings)
            assert isinstance(engine, RemoteEngine)
            tracks = native() != "off" and self.installation.parser == "httptools"
            parser = chunk_tracking_parser() if tracks else PARSERS[self.installation.parser]
            engine._pool._parser = engine._readiness_pool._parser = parser
            self._app = factory.build_app(engine, client_keys(settings), settings)
            self._process = _Process(self._app, settings, self.installation)
            self.port = shares[0][0].sock.getsockname()[1]
            self._process.serve_listeners(shares[0], self._began)

    def _began(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self.errors_of_loop.append(repr(context)))
        self._caller.call_soon_threadsafe(self._ready.set)

    # inspection

    async def record_baseline(self) -> None:
        """Regard the tasks of this moment as the service's own."""
        self._own = await self.inside(self._tasks)

    async def held_resources(self) -> list[str]:
        """What it still holds for a request: tasks, connections, slots."""
        held: list[str] = await self.inside(self._held_resources)
        return held

    def loop_errors(self) -> list[str]:
        """The errors of the event loop since the last call."""
        said = self.errors_of_loop[:]
        self.errors_of_loop.clear()
        return said

    @property
    def connections(self) -> int:
        """Connections of clients."""
        return len(self._process.server_state.connections)

    @property
    def idle(self) -> int:
        """Idle connections to the engine."""
        return int(self._app.engine.connections()["idle"])

    @property
    def admission(self) -> str:
        """The state of admission: running and waiting requests."""
        return repr(self._app._admission)

    def _held_resources(self) -> list[str]:
        held = [f"task {task}" for task in self._tasks() - self._own]
        held += [f"connection {connection}" for connection in self._process.server_state.connections]
        counts = self._app.engine.connections()
        held += [f"{count} {state} to the engine" for state, count in counts.items() if count and state != "idle"]
        slots = sum(pool.slots_used for pool in (self._app.engine._pool, self._app.engine._readiness_pool))
        held += [f"{slots} slots, and {counts['idle']} idle connections"] * (slots != counts["idle"])
        if not _ADMISSION.search(self.admission):
            held.append(self.admission)
        return held

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}

    async def inside(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, which is called in the event loop of the service."""

        async def call() -> Any:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))


class _Process(ServerProcess):
    """The process class of the command for an installation; without signals, which only a main thread can handle."""

    def __init__(self, app: Any, settings: Settings, installation: Installation) -> None:
        installed = object() if installation.parser == "httptools" else None
        with mock.patch.object(http_protocol, "find_spec", return_value=installed):
            super().__init__(app, settings, None, lambda: None)
        self._loop_factory = asyncio.SelectorEventLoop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        self._stop.set()


class _Lines(logging.StreamHandler[Any]):
    """Collects the log lines of one thread."""

    def __init__(self, lines: list[Json]) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(JsonFormatter())
        self.thread = 0
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self.thread:  # a process that has configured its log leaves `record.thread` out
            self._lines.append(json.loads(self.format(record)))
