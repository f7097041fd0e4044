"""One process that serves: uvicorn's server, with its own startup, signals, reload and shutdown.

start ─► listening ─► a signal ─► not ready, still serving ─► listeners closed ─► open responses end ─► stopped
                         │        (for the drain delay)                           (within the drain timeout; then
                         │                                                        they are ended with an error)
                         └─ a second SIGINT: everything ends at once
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Final, Protocol, cast

from uvicorn import Config, Server

from ..observability.logs import log_event
from ..observability.metrics import Metrics
from ..observability.prometheus import load_exposition_early
from ..observability.version import VERSION
from ..settings.options import ConfigError, ResourceUnavailable, Settings
from .acceptor import Acceptor
from .exit_deadline import exit_within
from .garbage_collector import GarbageCollector
from .heartbeats import INTERVAL
from .http_protocol import StrictProtocolMixin, protocol_class
from .listeners import Listener
from .tls import Certificate

_TICK: Final = 1.0  # seconds between renewals of the date header
_POLL: Final = 0.02  # seconds between two checks of the open connections
_ABORT_GRACE: Final = 2.0  # seconds for the errors that end responses to reach their clients
_CLEANUP: Final = 5.0  # seconds after the drain for the engine, tasks and threads to end
_DRAIN_STEPS: Final = 8.0  # seconds that a drain takes at most beside its delay and its timeout
_log = logging.getLogger(__name__)

AsgiMessage = MutableMapping[str, Any]


class Application(Protocol):
    """The ASGI application that a process serves, with what the server needs of it.

    The server sets `draining` when it begins to stop. `metrics` counts the requests that the server refuses by itself.
    """

    draining: bool
    metrics: Metrics

    async def __call__(
        self,
        scope: AsgiMessage,
        receive: Callable[[], Awaitable[AsgiMessage]],
        send: Callable[[AsgiMessage], Awaitable[None]],
    ) -> None: ...


class StartReport(Protocol):
    """Reports to the operator that the service has started, and what it serves."""

    async def started(self, addresses: Sequence[str]) -> str:
        """Log that the service listens at `addresses`. Returns a text for a terminal, which may be empty."""

    def update(self) -> None:
        """Report what has changed. It is called every second."""


class _PlainReport:
    async def started(self, addresses: Sequence[str]) -> str:
        log_event("started", version=VERSION, listening=", ".join(addresses))
        return ""

    def update(self) -> None:
        """Nothing changes."""


class ServerProcess(Server):
    """Serves `app`. On SIGHUP it calls `reload`, which re-reads the app's files or raises ConfigError.

    `banner` is the text for a terminal once it has started.
    """

    def __init__(
        self,
        app: Application,
        settings: Settings,
        certificate: Certificate | None,
        reload: Callable[[], object],
        report: StartReport | None = None,
    ) -> None:
        super().__init__(_uvicorn_config(app, protocol_class(settings, app.metrics), settings.keep_alive))
        self._app = app
        self._settings = settings
        self._certificate = certificate
        self._reload = reload
        self._report = report or _PlainReport()
        self.banner = ""
        self._stop = asyncio.Event()
        self.owns_process = False  # the process may be ended when the server does not end in time
        self._collector = GarbageCollector(app.metrics, settings.gc_growth if settings.gc == "bounded" else None)
        self.heartbeat: Callable[[], object] | None = None  # called at intervals while the event loop runs
        self.neglected: Callable[[], Collection[Listener]] = tuple  # the listeners of workers that do not accept
        self._loop_factory = _loop_factory()  # uvloop is imported before a fork, so that workers share its memory

    @property
    def longest_stop(self) -> float:
        """Seconds from the first signal after which the process has ended at the latest."""
        return self._settings.drain_delay + self._settings.drain_timeout + _DRAIN_STEPS + _CLEANUP

    @property
    def longest_forced_stop(self) -> float:
        """The same, from the second SIGINT."""
        return _ABORT_GRACE * 2 + _CLEANUP

    def serve_listeners(
        self, listeners: Sequence[Listener], announce: Callable[[], object], lifeline: int | None = None
    ) -> int:
        """Serve until a signal, and return the exit status. Raises ResourceUnavailable if it cannot start.

        `announce` is called when the process listens. `lifeline` is a file descriptor; its EOF counts as a SIGTERM.
        """
        self._announce = announce
        scheme = "http" if self._certificate is None else "https"
        self._addresses = [listener.address(scheme) for listener in listeners]
        logging.getLogger("uvicorn.error").addFilter(_is_not_cancellation)
        with asyncio.Runner(loop_factory=self._loop_factory) as runner, suppress(asyncio.CancelledError):
            runner.run(self._serve_until_stopped(listeners, lifeline))
        return 130 if self.force_exit else 0

    async def _serve_until_stopped(self, listeners: Sequence[Listener], lifeline: int | None) -> None:
        tls = None if self._certificate is None else self._certificate.context
        self._acceptor = Acceptor(listeners, self._new_connection, tls, self._settings.receive_deadline)
        if lifeline is not None:
            asyncio.get_running_loop().add_reader(lifeline, self._on_lifeline_eof, lifeline)
        try:
            await self.serve()
        except asyncio.CancelledError:
            self._acceptor.close_now()
            await self._abort_responses()
            raise
        finally:
            self._collector.stop()
            self._acceptor.close_now()

    def _new_connection(self) -> asyncio.Protocol:
        create = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return create(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    # startup

    async def startup(self, sockets: object = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ResourceUnavailable("the engine failed to start; see the log")
        self._acceptor.open()
        self._beat()
        self.started = True
        self.banner = await self._report.started(self._addresses)
        self._announce()
        # Slow to import, so it is not done before the announcement, and not while the event loop waits for it.
        with suppress(RuntimeError):  # the system has no thread left: the first request to /metrics imports it
            Thread(target=load_exposition_early, name="import of prometheus_client", daemon=True).start()
        self._collector.start()

    def _beat(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat()
            if not self.should_exit:
                self._acceptor.adopt(self.neglected())
            asyncio.get_running_loop().call_later(INTERVAL, self._beat)

    # signals

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        cancel = asyncio.current_task().cancel  # type: ignore[union-attr]  # a coroutine runs in a task
        # The handlers are never restored: a signal during the exit must not change how the process exits.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._on_stop_signal(loop, cancel, number))
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.reload))
        yield

    def _on_stop_signal(self, loop: asyncio.AbstractEventLoop, cancel: Callable[[], object], number: int) -> None:
        """The first signal starts the drain; a second SIGINT, or a signal during startup, ends everything at once."""
        self.force_exit = self.force_exit or (self.should_exit and number == signal.SIGINT)
        if self.force_exit:
            self._exit_within(self.longest_forced_stop, 130, logging.WARNING)
        elif not self.should_exit:
            self._exit_within(self.longest_stop, 1, logging.ERROR)
        self.should_exit = True
        self._app.draining = True
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(cancel if self.force_exit or not self.started else self._stop.set)

    def _exit_within(self, seconds: float, status: int, level: int) -> None:
        if self.owns_process:
            exit_within(seconds, status, level, f"the process did not end within {seconds:g} s; it exits now")

    def _on_lifeline_eof(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        signal.raise_signal(signal.SIGTERM)

    def reload(self) -> bool:
        """Re-read the API keys and the certificate from their files. False if that failed; the log has the reason."""
        try:
            self._reload()
            if self._certificate is not None:
                self._certificate.reload()
        except Exception as exc:  # no error of a reload may end the service
            # only a ConfigError is written for operators; the text of another exception may contain a key
            reason = str(exc) if isinstance(exc, ConfigError) else type(exc).__name__
            _log.error("reload failed: %s", " ".join(reason.split()))
            return False
        log_event("reloaded")
        return True

    # serving

    async def main_loop(self) -> None:
        await self._tick(self._stop, None)

    async def _tick(self, until: asyncio.Event, seconds: float | None) -> None:
        """Do the work of every second until the event is set, for at most `seconds`."""
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while end is None or loop.time() < end:
            await self.on_tick(0)
            self._acceptor.maintain()
            self._report.update()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK if end is None else min(_TICK, end - loop.time())):
                    await until.wait()
                    return

    # shutdown

    async def shutdown(self, sockets: object = None) -> None:
        log_event(
            "draining",
            connections=len(self.server_state.connections),
            requests=len(self.server_state.tasks),
            timeout=self._settings.drain_timeout,
        )
        await self._tick(asyncio.Event(), self._settings.drain_delay)
        await self._acceptor.close()
        for connection in self._connections():
            connection.shutdown()
        if not await self._wait_until(self._is_idle, self._settings.drain_timeout):
            if self.server_state.tasks:
                text = "drain timeout of %g s exceeded: ending %d open responses with an error"
                _log.warning(text, self._settings.drain_timeout, len(self.server_state.tasks))
            await self._abort_responses()
        self._exit_within(_CLEANUP, 0, logging.WARNING)  # each response has ended: this exit loses nothing
        await self.lifespan.shutdown()
        log_event("stopped")

    async def _abort_responses(self) -> None:
        """End each open response with an error, and abort the connections of clients that do not read it."""
        tasks = list(self.server_state.tasks)
        for connection in self._connections():
            connection.shutdown()
            connection.close_unless_responding()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ABORT_GRACE)
        await self._wait_until(self._is_idle, _ABORT_GRACE)
        for connection in self._connections():
            connection.transport.abort()

    def _connections(self) -> list[StrictProtocolMixin]:
        """A copy of the open connections, which are all of our class."""
        return list(cast("set[StrictProtocolMixin]", self.server_state.connections))

    def _is_idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)

    async def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition became true within `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            if asyncio.get_running_loop().time() >= end:
                return False
            await asyncio.sleep(_POLL)
        return True


def _uvicorn_config(app: Application, protocol: type[asyncio.Protocol], keep_alive: float) -> Config:
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
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # it is passed to call_later, which takes a float
    )


def _is_not_cancellation(record: logging.LogRecord) -> bool:
    """uvicorn logs a request that was cancelled at shutdown as if the application had failed."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _loop_factory() -> Callable[[], Any] | None:
    """uvloop's if it is installed; None means asyncio's own. uvloop has no type stubs, so the loop is Any."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
