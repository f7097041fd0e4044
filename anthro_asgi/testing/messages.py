"""The two ready-made servers of the kit: a scripted Messages API on a loopback port, and one in this process."""

from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from .app import ScriptedApp
from .in_process import InProcessApp
from .loopback import LoopbackServer
from .replies import Reply

Client = TypeVar("Client")


class MessagesServer(ScriptedApp):
    """A scripted Messages API on a free port of 127.0.0.1. Use it as a context manager.

        with MessagesServer(error(429, retry_after=1), "Hello") as server:
            client = server.client(anthropic.Anthropic)

    Args: as for ScriptedApp.
    """

    def __init__(self, *replies: Reply, models: Sequence[str] = ("scripted",), **options: Any) -> None:
        super().__init__(*replies, models=models, **options)
        self._server = LoopbackServer(self)

    @property
    def url(self) -> str:
        """The base URL for clients, without a slash at the end. Raises RuntimeError if the server is not running."""
        return self._server.url

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point SDKs and Claude Code to this server.

        Raises RuntimeError if the server is not running.
        """
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": self.key}

    def client(self, sdk: Callable[..., Client], **options: Any) -> Client:
        """A client of this server, with the first of its keys; see `LoopbackServer.client`."""
        return self._server.client(sdk, **{"api_key": self.key, **options})

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, exc, traceback)


class InProcessMessages(ScriptedApp):
    """A scripted Messages API in this process, without sockets. Use it as a context manager, sync or async.

        async with InProcessMessages("Hello") as messages:
            client = messages.client(anthropic.AsyncAnthropic)

    With `async with`, the clients are async ones and run on the loop of the test. With `with`, the application runs in
    a thread, and the clients may be sync or async. Args: as for ScriptedApp.
    """

    def __init__(self, *replies: Reply, models: Sequence[str] = ("scripted",), **options: Any) -> None:
        super().__init__(*replies, models=models, **options)
        self._in_process = InProcessApp(self)

    def client(self, sdk: Callable[..., Client], **options: Any) -> Client:
        """A client of this application, with the first of its keys; see `InProcessApp.client`."""
        return self._in_process.client(sdk, **{"api_key": self.key, **options})

    def http_client(self, package: ModuleType | None = None, *, is_async: bool = False, **options: Any) -> Any:
        """A client of httpx2 or httpx; see `InProcessApp.http_client`."""
        return self._in_process.http_client(package, is_async=is_async, **options)

    def __enter__(self) -> Self:
        self._in_process.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_process.__exit__(kind, exc, traceback)

    async def __aenter__(self) -> Self:
        await self._in_process.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._in_process.__aexit__(kind, exc, traceback)
