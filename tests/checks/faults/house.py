"""The service as it is installed, in a thread of this process, so that one can look at what it holds.

It is made by the command's own functions, from options, and served by the command's own process class; only signals are
left out. A `Kit` is one of the two parsers it may be installed with, or
the other kind of engine.
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
from anthro_asgi.observability.logs import JsonFormatter
from anthro_asgi.server import http_protocol
from anthro_asgi.server.listeners import bind_listeners
from anthro_asgi.server.process import ServerProcess
from anthro_asgi.settings.api_keys import client_keys
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import Settings
from anthro_asgi.upstream.http_parsers import PARSERS
from tests.checks.faults.answers import UPSTREAM_KEY
from tests.checks.faults.speech import CANARY, Json

CLIENT_KEY: Final = f"sk-{CANARY}-client"
_ADMISSION: Final = re.compile(r"<Admission running=0/\d+ waiting=0/")
_PATIENCE: Final = 10.0  # seconds to start or to end


@dataclass(frozen=True, slots=True)
class Kit:
    """The `parser` of requests and answers, and the `api` of the engine.

    The event loop is asyncio's: objects of uvloop must not be collected as garbage by another loop's thread.
    """

    name: str
    parser: str
    api: str


KITS: Final = (Kit("httptools", "httptools", "chat"), Kit("h11", "h11", "chat"), Kit("relay", "httptools", "messages"))


class House:
    """Use it as `async with House(kit, upstream, options) as house:`. `options` are the command's, by name."""

    def __init__(self, kit: Kit, upstream: str, options: Mapping[str, str]) -> None:
        self.kit = kit
        self.log: list[Json] = []
        self.complaints: list[str] = []  # of the event loop
        self.port = 0
        self._upstream = upstream
        self._options = {"upstream": upstream, "upstream-api": kit.api, "dialect": "openai", "port": "0", **options}
        self._thread = threading.Thread(target=self._run, name=f"house-{kit.name}", daemon=True)
        self._failure: BaseException | None = None
        self._handler = _Lines(self.log)
        self._own: set[asyncio.Task[Any]] = set()
        self._process: _Process
        self._loop: asyncio.AbstractEventLoop
        self._app: Any

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody may read in its log or be told."""
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
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._process.end)
        async with asyncio.timeout(_PATIENCE):
            await self._ended.wait()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    # its life

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
        settings = load_settings({name: [value] for name, value in self._options.items()}, environ)
        with bind_listeners(settings) as shares:
            engine = factory.build_engine(settings)
            engine._pool._parser = engine._readiness_pool._parser = PARSERS[self.kit.parser]
            self._app = factory.build_app(engine, client_keys(settings), settings)
            self._process = _Process(self._app, settings, self.kit)
            self.port = shares[0][0].sock.getsockname()[1]
            self._process.serve_listeners(shares[0], self._began)

    def _began(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self.complaints.append(repr(context)))
        self._caller.call_soon_threadsafe(self._ready.set)

    # looking at it

    async def settle(self) -> None:
        """What runs now may run on."""
        self._own = await self._inside(self._tasks)

    async def unrest(self) -> list[str]:
        """What it still holds: tasks, connections, slots."""
        held: list[str] = await self._inside(self._unrest)
        return held

    def complained(self) -> list[str]:
        """What the event loop complained of since this was asked."""
        said = self.complaints[:]
        self.complaints.clear()
        return said

    @property
    def connections(self) -> int:
        """Of clients."""
        return len(self._process.server_state.connections)

    @property
    def idle(self) -> int:
        """Connections to the engine that rest."""
        return int(self._app.engine.connections()["idle"])

    @property
    def admission(self) -> str:
        """Who has a turn and who waits for one."""
        return repr(self._app._admission)

    def _unrest(self) -> list[str]:
        held = [f"task {task}" for task in self._tasks() - self._own]
        held += [f"connection {connection}" for connection in self._process.server_state.connections]
        counts = self._app.engine.connections()
        held += [f"{count} {state} to the engine" for state, count in counts.items() if count and state != "idle"]
        slots = sum(pool.slots_used for pool in (self._app.engine._pool, self._app.engine._readiness_pool))
        held += [f"{slots} slots, and {counts['idle']} connections that rest"] * (slots != counts["idle"])
        if not _ADMISSION.search(self.admission):
            held.append(self.admission)
        return held

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}

    async def _inside(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))


class _Process(ServerProcess):
    """The command's, of a kit, and without signals, which only a main thread can have."""

    def __init__(self, app: Any, settings: Settings, kit: Kit) -> None:
        installed = object() if kit.parser == "httptools" else None
        with mock.patch.object(http_protocol, "find_spec", return_value=installed):
            super().__init__(app, settings, None, lambda: None)
        self._loop_factory = asyncio.SelectorEventLoop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        self._stop.set()


class _Lines(logging.StreamHandler[Any]):
    """What one thread logs, as the service would write it."""

    def __init__(self, lines: list[Json]) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(JsonFormatter())
        self.thread = 0
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self._lines.append(json.loads(self.format(record)))
