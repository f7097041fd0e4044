"""One process that serves: uvicorn, told what this service needs of it, and made to start and stop in good order.

start ─► listening ─► a signal ─► not ready, but serving ─► nobody new ─► what is open comes to its end ─► stop
                         │         (for the drain delay)                  (for the drain timeout, then it is told)
                         └─ a second SIGINT: all that at once
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from uvicorn import Config, Server

from ..observability.logs import log_event
from ..observability.version import version
from ..settings.options import ConfigError, ResourceUnavailable, Settings
from .acceptor import Acceptor
from .http_protocol import protocol_class
from .listeners import Listener
from .tls import Certificate

_KEEP_ALIVE: Final = 75  # seconds: longer than load balancers keep an idle connection (60), so that they hang up first
_TICK: Final = 1.0  # seconds between renewals of the date that answers bear
_LOOK: Final = 0.02  # seconds between looks at what is still open
_HURRY: Final = 2.0  # seconds for the errors that end answers to reach their clients
_log = logging.getLogger(__name__)


class ServerProcess(Server):
    """Serves `app`. `reload` renews what else the app has from files, on SIGHUP, and raises ConfigError."""

    def __init__(
        self, app: Any, settings: Settings, certificate: Certificate | None, reload: Callable[[], object]
    ) -> None:
        super().__init__(_uvicorn_config(app, protocol_class(settings)))
        self._app = app
        self._settings = settings
        self._certificate = certificate
        self._reload = reload
        self._stop = asyncio.Event()
        self._loop_factory = _loop_factory()  # imported here, before a fork, it is in memory once

    def serve_listeners(
        self, listeners: Sequence[Listener], announce: Callable[[], object], lifeline: int | None = None
    ) -> int:
        """Serve until a signal; the exit status. Raises ResourceUnavailable when it cannot start.

        `announce` is called once it listens. The end of the file `lifeline` is as good as a SIGTERM.
        """
        self._announce = announce
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        with asyncio.Runner(loop_factory=self._loop_factory) as runner, suppress(asyncio.CancelledError):
            runner.run(self._live(listeners, lifeline))
        return 130 if self.force_exit else 0

    async def _live(self, listeners: Sequence[Listener], lifeline: int | None) -> None:
        how: dict[str, Any] = {}
        if self._certificate is not None:
            how = {"ssl": self._certificate.context, "ssl_handshake_timeout": self._settings.receive_deadline}
        self._acceptor = Acceptor(listeners, self._connection, how)
        if lifeline is not None:
            asyncio.get_running_loop().add_reader(lifeline, self._orphaned, lifeline)
        try:
            await self.serve()
        except asyncio.CancelledError:
            self._acceptor.close_now()
            await self._cut_off()
            raise
        finally:
            self._acceptor.close_now()

    def _connection(self) -> asyncio.Protocol:
        kind: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    # it starts

    async def startup(self, sockets: Any = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ResourceUnavailable("the engine did not start; the log says why")
        self._acceptor.open()
        self.started = True
        log_event("started", version=version())
        self._announce()
        gc.collect()
        gc.freeze()  # what is there now stays: no collection, each of which holds the loop, need ever walk it again

    # it is told something

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        cancel = asyncio.current_task().cancel  # type: ignore[union-attr]  # a coroutine runs in a task
        # Never restored: a signal that comes while the process is ending must not end it differently.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._told_to_end(loop, cancel, number))
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.renew))
        yield

    def _told_to_end(self, loop: asyncio.AbstractEventLoop, cancel: Callable[[], object], number: int) -> None:
        """The first signal lets open answers end; a second SIGINT does not. Nothing is open before the start."""
        self.force_exit = self.force_exit or (self.should_exit and number == signal.SIGINT)
        self.should_exit = True
        self._app.draining = True
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(cancel if self.force_exit or not self.started else self._stop.set)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        signal.raise_signal(signal.SIGTERM)

    def renew(self) -> bool:
        """Take what the files hold now: keys, certificate. Where that cannot be, the log says why."""
        try:
            self._reload()
            if self._certificate is not None:
                self._certificate.reload()
        except Exception as exc:  # whatever it is, the service goes on
            # what was not written for operators may tell a key
            reason = str(exc) if isinstance(exc, ConfigError) else type(exc).__name__
            _log.error("not reloaded: %s", " ".join(reason.split()))
            return False
        log_event("reloaded")
        return True

    # it serves

    async def main_loop(self) -> None:
        await self._tick(self._stop, None)

    async def _tick(self, until: asyncio.Event, longest: float | None) -> None:
        """Do what is due every second until the event, and for at most so many seconds."""
        loop = asyncio.get_running_loop()
        end = None if longest is None else loop.time() + longest
        while end is None or loop.time() < end:
            await self.on_tick(0)
            self._acceptor.maintain()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK if end is None else min(_TICK, end - loop.time())):
                    await until.wait()
                    return

    # it stops

    async def shutdown(self, sockets: Any = None) -> None:
        log_event("draining", connections=len(self.server_state.connections), answers=len(self.server_state.tasks))
        await self._tick(asyncio.Event(), self._settings.drain_delay)
        await self._acceptor.close()
        for connection in self._connections():
            connection.shutdown()
        if not await self._until(self._is_idle, self._settings.drain_timeout):
            if self.server_state.tasks:
                text = "timeout graceful shutdown exceeded: %s open answers end with an error"
                _log.warning(text, len(self.server_state.tasks))
            await self._cut_off()
        await self.lifespan.shutdown()
        log_event("stopped")

    async def _cut_off(self) -> None:
        """End what is open: each answer with an error. Who does not take it is hung up on."""
        tasks = list(self.server_state.tasks)
        for connection in self._connections():
            connection.shutdown()
            connection.hurry()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_HURRY)
        await self._until(self._is_idle, _HURRY)
        for connection in self._connections():
            connection.transport.abort()

    def _connections(self) -> list[Any]:
        """Those of our own class, whatever uvicorn thinks."""
        return list(self.server_state.connections)

    def _is_idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)

    async def _until(self, condition: Callable[[], bool], longest: float) -> bool:
        """Whether it came true in so many seconds."""
        end = asyncio.get_running_loop().time() + longest
        while not condition():
            if asyncio.get_running_loop().time() >= end:
                return False
            await asyncio.sleep(_LOOK)
        return True


def _uvicorn_config(app: Any, protocol: type[asyncio.Protocol]) -> Config:
    return Config(
        app,
        http=protocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """A task that the end of the service cancels is reported by uvicorn as if the application had failed."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _loop_factory() -> Callable[[], Any] | None:
    """uvloop's when it is installed; None is asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
