"""The process that serves: uvicorn, told what this service needs of it, and made to start and stop in good order."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final

from uvicorn import Config, Server

from ..options import Refused, Settings
from .listen import address_of

_BACKLOG: Final = 2048
_KEEP_ALIVE: Final = 75  # seconds: longer than load balancers keep an idle connection (60), so that they hang up first


def serve(app: Any, sockets: list[socket.socket], settings: Settings) -> int:
    """Serve `app` on `sockets` until a signal; the exit status. Raises Refused when it cannot start."""
    scheme = "http" if settings.tls_cert is None else "https"
    server = AnnouncedServer(_uvicorn_config(app, settings), [address_of(sock, scheme) for sock in sockets])
    _run(server.serve(sockets))
    return 130 if server.force_exit else 0


class AnnouncedServer(Server):
    """A uvicorn server that says when it listens and, unlike uvicorn, does not die of the signal that stopped it."""

    def __init__(self, config: Config, addresses: Sequence[str]) -> None:
        super().__init__(config)
        self._addresses = addresses

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as exc:
            raise Refused("the engine did not start; the log says why") from exc
        except OSError as exc:  # two may bind one port, and only one may then listen
            raise Refused(f"cannot listen on {self._addresses[0]}: {exc.strerror}") from exc
        gc.collect()
        gc.freeze()  # what is there now stays: no collection, each of which holds the loop, need ever walk it again
        for address in self._addresses:
            print("listening on", address, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        cancel = asyncio.current_task().cancel  # type: ignore[union-attr]  # a coroutine runs in a task
        hurry = partial(asyncio.get_running_loop().call_soon_threadsafe, cancel)
        # Never restored: a signal that comes while the process is ending must not end it differently.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, partial(self.stop, hurry))
        yield

    def stop(self, hurry: Callable[[], object], number: int, _: FrameType | None) -> None:
        """The first signal lets open answers end; a second SIGINT does not. Nothing is open before the start."""
        self.force_exit = self.force_exit or (self.should_exit and number == signal.SIGINT)
        self.should_exit = True
        if self.force_exit or not self.started:
            with suppress(RuntimeError):  # the loop is closed already
                hurry()


def _uvicorn_config(app: Any, settings: Settings) -> Config:
    return Config(
        app,
        http="httptools" if find_spec("httptools") else "h11",
        ws="none",
        interface="asgi3",
        lifespan="on",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.drain_timeout,  # type: ignore[arg-type]  # asyncio takes parts of a second
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _run(serving: Coroutine[Any, Any, None]) -> None:
    def is_news(record: logging.LogRecord) -> bool:
        # A task that the end of the service cancels is reported by uvicorn as if the application had failed.
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

    logging.getLogger("uvicorn.error").addFilter(is_news)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, suppress(asyncio.CancelledError):
        runner.run(serving)


def _loop_factory() -> Callable[[], Any] | None:
    """uvloop's when it is installed; None is asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
