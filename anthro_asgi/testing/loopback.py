"""Serves an ASGI application on a port of 127.0.0.1, in a thread of the process that runs the tests."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from uvicorn import Config
from uvicorn.server import ServerState

from .app import KEY, check_sdk
from .driver import DROP_CONNECTION, App, Driver, Message, Receive, Send
from .loop_thread import LoopThread

Client = TypeVar("Client")
_TIME_TO_END: Final = 5.0  # seconds in which the application has to notice that its clients are disconnected


class LoopbackServer:
    """A server for tests. Use it as a context manager; it has a free port from entering to leaving.

    It has uvicorn's connections and a lifespan. It does not touch signals or logging. Each instance has a port of its
    own, so tests can run in parallel.

    Args:
        app: the ASGI application.

    Entering raises LifespanFailed if the application does not start.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._port: int | None = None
        self._thread = LoopThread("anthro-asgi loopback server")
        self._state = ServerState()
        self._stack = AsyncExitStack()

    @property
    def port(self) -> int:
        """The port. Raises RuntimeError if the server is not running."""
        if self._port is None:
            raise RuntimeError("the server is not running: use it in a `with` statement")
        return self._port

    @property
    def url(self) -> str:
        """The base URL for clients, without a slash at the end. Raises RuntimeError if the server is not running."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, sdk: Callable[..., Client], **options: Any) -> Client:
        """A client of an SDK, such as `anthropic.Anthropic`, that sends its requests to this server.

        Args:
            sdk: the class of the client.
            options: arguments of the class. `base_url` and `api_key` have defaults.

        Raises RuntimeError if the server is not running, TypeError if `sdk` is not a class or a function.
        """
        check_sdk(sdk)
        return sdk(**{"base_url": self.url, "api_key": KEY, **options})

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._port = self._thread.run(self._start())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._port = None
        try:
            self._thread.run(self._stop())
        finally:
            self._thread.stop()

    # in the thread of the loop

    async def _start(self) -> int:
        driver = Driver(self._app, timeout=None)
        await self._stack.enter_async_context(driver.lifespan())
        config = Config(
            self._with_extension,
            http="h11",
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        protocol: Callable[..., asyncio.Protocol] = config.http_protocol_class
        server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config=config, server_state=self._state, app_state=driver.state), "127.0.0.1", 0
        )
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        for connection in list(self._state.connections):
            _transport(connection).abort()
        if self._state.tasks:
            _, late = await asyncio.wait(self._state.tasks, timeout=_TIME_TO_END)
            for task in late:
                task.cancel()
        await self._stack.aclose()

    async def _with_extension(self, scope: Message, receive: Receive, send: Send) -> None:
        """Calls the application with a function in its scope that closes the connection of the request."""
        scope["extensions"] = {**(scope.get("extensions") or {}), DROP_CONNECTION: {"drop": lambda: self._drop(scope)}}
        await self._app(scope, receive, send)

    def _drop(self, scope: Message) -> None:
        for connection in self._state.connections:
            if _peer(connection) == scope["client"]:
                _transport(connection).close()


def _transport(connection: Any) -> asyncio.Transport:
    """The transport of one of uvicorn's connections. The attribute is not documented."""
    transport: asyncio.Transport = connection.transport
    return transport


def _peer(connection: Any) -> object:
    """The client of one of uvicorn's connections, as it stands in a scope. The attribute is not documented."""
    return connection.client
