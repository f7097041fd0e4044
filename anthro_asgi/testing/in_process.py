"""Reaches an ASGI application in this process, without sockets: transports for httpx2 and httpx, sync and async.

The transports of these packages for ASGI collect the whole body of a response before they return any of it. These
here return each piece as it is sent, tell the application when the client leaves, and keep to the client's timeouts.
"""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import cache
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar

from .app import KEY, check_sdk
from .driver import App, ConnectionDropped, Driver, Exchange
from .loop_thread import LoopThread

T = TypeVar("T")
Client = TypeVar("Client")
BASE_URL: Final = "http://in-process"
_PACKAGES: Final = ("httpx2", "httpx")


class InProcessApp:
    """Runs an application in this process for the clients of a test. Use it as a context manager, sync or async.

    With `async with`, the application runs on the loop of the test, and its clients are async ones. With `with`, it
    runs on a loop in a thread of its own; its clients may be sync or async.

    Args:
        app: the ASGI application. Its lifespan runs from entering to leaving.

    Entering raises LifespanFailed if the application does not start.
    """

    def __init__(self, app: App) -> None:
        self._driver = Driver(app, timeout=None)
        self._stack = AsyncExitStack()
        self._thread: LoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[_Call] = set()

    def client(self, sdk: Callable[..., Client], **options: Any) -> Client:
        """A client of an SDK that is built on httpx2 or httpx, such as `anthropic.Anthropic`.

        Args:
            sdk: the class of the client. One that is an async context manager gets an async HTTP client.
            options: arguments of the class. `base_url` and `api_key` have defaults.

        Raises ModuleNotFoundError if the package is not installed, RuntimeError if the application is not running,
        TypeError if `sdk` is not a class or a function.
        """
        check_sdk(sdk)
        http_client = self.http_client(_package_of(sdk), is_async=hasattr(sdk, "__aenter__"))
        return sdk(**{"base_url": BASE_URL, "api_key": KEY, "http_client": http_client, **options})

    def http_client(self, package: ModuleType | None = None, *, is_async: bool = False, **options: Any) -> Any:
        """A `Client` or `AsyncClient` of httpx2 or httpx, which sends its requests to the application.

        Args:
            package: the module `httpx2` or `httpx`; by default the first of the two that is installed.
            is_async: whether it is an `AsyncClient`.
            options: arguments of its class. `base_url` has a default.

        Raises ModuleNotFoundError if neither package is installed, RuntimeError if the application is not running.
        """
        if self._loop is None:
            raise RuntimeError("the application is not running: use it in a `with` or `async with` statement")
        if not is_async and self._thread is None:
            raise RuntimeError("a sync client needs the application in a thread: use `with` instead of `async with`")
        package = package or _installed_package()
        transport = (_AsyncTransport if is_async else _SyncTransport)(self, package)
        kind = package.AsyncClient if is_async else package.Client
        return kind(**{"base_url": BASE_URL, "transport": transport, **options})

    # its life

    def __enter__(self) -> Self:
        self._thread = LoopThread("anthro-asgi in-process application")
        self._thread.start()
        try:
            self._thread.run(self._start())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._stop())
            finally:
                thread.stop()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        await self._stack.enter_async_context(self._driver.lifespan())
        self._loop = asyncio.get_running_loop()

    async def _stop(self) -> None:
        self._loop = None
        for call in list(self._open):
            await call.close()
        await self._stack.aclose()

    # for the transports

    def new_call(self, request: Any, body: bytes) -> "_Call":
        """The call for a request of httpx2 or httpx."""
        return _Call(self._driver, request, body, self._open)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine on the application's loop, from another thread. Raises its exception."""
        if self._thread is None:
            coroutine.close()
            raise RuntimeError("the application is no longer running")
        return self._thread.run(coroutine)

    async def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine on the application's loop, from this loop or another one. Raises its exception."""
        if self._thread is None:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop))


class _Call:
    """One request of a client to the application. Its coroutines run on the application's loop."""

    def __init__(self, driver: Driver, request: Any, body: bytes, open_calls: set["_Call"]) -> None:
        path, _, query = request.url.raw_path.partition(b"?")
        self._driver = driver
        self._request = (request.method, path.decode("ascii"))
        self._arguments = {"headers": request.headers.raw, "body": body, "query": query}
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self._open_calls = open_calls
        self.exchange: Exchange

    async def start(self) -> Exchange:
        """Send the request, and wait for the head of the response. Raises TimeoutError, and as `Exchange.started`."""
        self.exchange = self._driver.open(*self._request, **self._arguments)
        await self.exchange.__aenter__()
        self._open_calls.add(self)
        try:
            return await self._in_time(self.exchange.started())
        except BaseException:
            await self.close()
            raise

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None after the last. Raises TimeoutError, and as `Exchange.chunk`."""
        return await self._in_time(self.exchange.chunk())

    async def _in_time(self, waiting: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timeout):
            return await waiting

    @property
    def is_open(self) -> bool:
        """Whether the call has begun and is not closed."""
        return self in self._open_calls

    async def close(self) -> None:
        """Leave, and wait until the application has ended. What it raises then does not concern the client."""
        if self.is_open:
            self._open_calls.discard(self)
            self.exchange.disconnect()
            with suppress(Exception):
                await self.exchange.__aexit__(None, None, None)


# transports


@contextmanager
def _translated(package: ModuleType, request: Any) -> Iterator[None]:
    """Raises what the package raises for a real connection."""
    try:
        yield
    except TimeoutError as exc:
        raise package.ReadTimeout("the application sent nothing in time", request=request) from exc
    except ConnectionDropped as exc:
        raise package.RemoteProtocolError(f"the connection was closed {exc}", request=request) from exc
    except Exception as exc:
        raise package.RemoteProtocolError(f"the application failed: {exc!r}", request=request) from exc


class _Transport:
    """The common part: `package` is the module that the requests are from."""

    def __init__(self, in_process: InProcessApp, package: ModuleType) -> None:
        self._in_process = in_process
        self._package = package

    def _response(self, exchange: Exchange, body: object) -> Any:
        return self._package.Response(
            exchange.status, headers=exchange.raw_headers, stream=body, extensions={"http_version": b"HTTP/1.1"}
        )


class _SyncTransport(_Transport):
    """What `Client(transport=…)` takes. There is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def close(self) -> None: ...

    def handle_request(self, request: Any) -> Any:
        call = self._in_process.new_call(request, b"".join(request.stream))
        with _translated(self._package, request):
            exchange = self._in_process.run(call.start())
        body = _with_base(_SyncBody, self._package.SyncByteStream)
        return self._response(exchange, body(self._in_process, self._package, request, call))


class _AsyncTransport(_Transport):
    """What `AsyncClient(transport=…)` takes. There is nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def aclose(self) -> None: ...

    async def handle_async_request(self, request: Any) -> Any:
        call = self._in_process.new_call(request, b"".join([piece async for piece in request.stream]))
        with _translated(self._package, request):
            exchange = await self._in_process.run_async(call.start())
        body = _with_base(_AsyncBody, self._package.AsyncByteStream)
        return self._response(exchange, body(self._in_process, self._package, request, call))


class _Body:
    """The body of a response. The package requires a class of its own as base; `_with_base` adds it."""

    def __init__(self, in_process: InProcessApp, package: ModuleType, request: Any, call: _Call) -> None:
        self._in_process = in_process
        self._package = package
        self._request = request
        self._call = call


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            with _translated(self._package, self._request):
                chunk = self._in_process.run(self._call.chunk())
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        if self._call.is_open:
            self._in_process.run(self._call.close())


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with _translated(self._package, self._request):
                chunk = await self._in_process.run_async(self._call.chunk())
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        if self._call.is_open:
            await self._in_process.run_async(self._call.close())


@cache
def _with_base(body: type, base: type) -> Callable[..., object]:
    return type(body.__name__, (body, base), {})


# which package


def _package_of(sdk: Callable[..., object]) -> ModuleType:
    """The HTTP package that the module of an SDK's client class has imported. Raises ModuleNotFoundError."""
    for base in getattr(sdk, "__mro__", ()):
        module = sys.modules.get(base.__module__)
        for name in _PACKAGES:
            found = getattr(module, name, None)
            if isinstance(found, ModuleType):
                return found
    return _installed_package()


def _installed_package() -> ModuleType:
    for name in _PACKAGES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name != name:
                raise
    raise ModuleNotFoundError("the in-process client needs httpx2 or httpx: pip install httpx2", name=_PACKAGES[0])
