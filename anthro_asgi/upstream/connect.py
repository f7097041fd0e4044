"""Opens connections to one origin: TCP, TLS over TCP, or a Unix socket.

A name may have several addresses, of which some do not work: the first server is down, or IPv6 has no route. So the
attempts are staggered, as in RFC 8305 (Happy Eyeballs). Addresses of both families alternate. When an attempt fails,
the next begins at once; when it takes longer than a quarter of a second, the next begins beside it. The first
connection wins. Its address is tried first for a minute, so that a dead address does not delay each connection. The
name is resolved again for each connection, because its addresses may change.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, TypeVar

from .connect_errors import connection_error
from .connection import Connection
from .errors import ConnectFailed
from .origin import Origin

_RETRY: Final = 0.005  # seconds between two attempts at a Unix socket whose accept queue is full
_STAGGER: Final = 0.25  # seconds; RFC 8305 section 8 recommends this value
_REMEMBER: Final = 60.0  # seconds
RESOLVER_THREADS: Final = 4

Address = tuple[Any, ...]  # of the socket module: a host, a port and more for IPv6
Target = tuple[int, Address]  # a socket family, and an address of that family
T = TypeVar("T")
Resolve = Callable[[str, int], Awaitable[Sequence[Target]]]


class Dialer:
    """Connects to `origin`. `resolve` finds the addresses of a name; the default asks the system."""

    def __init__(self, origin: Origin, resolve: Resolve | None = None) -> None:
        self._origin = origin
        self._resolve = resolve or resolve_name
        self._last: Target | None = None  # the address that was connected last
        self._forget_at = 0.0  # seconds of the event loop's clock

    async def dial(self, connection: Connection) -> None:
        """Connect `connection`. Raises ConnectFailed. There is no time limit; the caller sets one."""
        try:
            if self._origin.socket:
                await _dial_unix(self._origin.socket, connection)
            else:
                await self._dial_tcp(connection)
        # ssl.SSLError is an OSError; a label too long for DNS is a UnicodeError; a RuntimeError means that no thread
        # for the resolver can be started.
        except (OSError, UnicodeError, RuntimeError) as exc:
            raise ConnectFailed(f"{self._origin}: {connection_error(exc)}") from exc

    async def _dial_tcp(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        origin = self._origin
        targets = list(alternate_families(await self._resolve(origin.host, origin.port)))
        if self._last in targets and loop.time() < self._forget_at:
            targets.remove(self._last)
            targets.insert(0, self._last)
        sock, self._last = await _connect_first(targets)
        self._forget_at = loop.time() + _REMEMBER
        name = origin.host.partition("%")[0] if origin.tls else None
        try:
            await loop.create_connection(lambda: connection, sock=sock, ssl=origin.tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise


async def resolve_name(host: str, port: int) -> list[Target]:
    """The addresses of `host` in the system's order. Raises OSError, UnicodeError, RuntimeError (no thread)."""
    kind = socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)  # does not block
    except socket.gaierror:
        found = await _resolver.call(partial(socket.getaddrinfo, host, port, type=kind))
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


class _Resolver:
    """A few threads for the system's resolver, which blocks.

    `getaddrinfo` of uvloop is not used: where the system has no thread left, libuv ends the process by SIGABRT.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVER_THREADS, "anthro-asgi resolver")

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`. Raises RuntimeError if the system has no thread left, and what it raises."""
        try:
            result = asyncio.get_running_loop().run_in_executor(self._pool, function)
        except RuntimeError:
            # The pool keeps a call for which it could not start a thread. A new pool does not make these calls later.
            self._pool = ThreadPoolExecutor(RESOLVER_THREADS, "anthro-asgi resolver")
            raise
        return await result


_resolver: Final = _Resolver()


def alternate_families(targets: Sequence[Target]) -> list[Target]:
    """The same addresses, of both families in turn; the family of the first address begins."""
    first = [target for target in targets if target[0] == targets[0][0]]
    second = [target for target in targets if target[0] != targets[0][0]]
    return [target for target in chain.from_iterable(zip_longest(first, second)) if target is not None]


async def _connect_first(targets: Sequence[Target]) -> tuple[socket.socket, Target]:
    """Staggered attempts: the socket that connected first, and its address. Raises the OSError of the first attempt."""
    waiting = deque(targets)
    running: dict[asyncio.Task[socket.socket], Target] = {}
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                target = waiting.popleft()
                running[asyncio.create_task(_connect(target))] = target
            delay = _STAGGER if waiting else None
            done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    target = running.pop(task)
                    return task.result(), target
                del running[task]
                errors.append(error)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_unused)
    raise errors[0] if errors else OSError("the name has no address")


async def _connect(target: Target) -> socket.socket:
    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_unused(task: "asyncio.Task[socket.socket]") -> None:
    """Close the socket of an attempt that was successful too, but later."""
    with suppress(asyncio.CancelledError, OSError):
        task.result().close()


async def _dial_unix(path: str, connection: Connection) -> None:
    # When a TCP server's accept queue is full (llama.cpp's holds 5), the client's kernel retries by itself. A Unix
    # socket fails with EAGAIN instead: uvloop raises it, and asyncio takes it for "in progress" and then for success.
    # So this function connects the socket itself.
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(_RETRY)
        except BaseException:
            sock.close()
            raise
        else:
            await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=sock)
            return
