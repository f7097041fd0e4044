"""One request and its response, from the slot it takes to the slot it gives back."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self

from .connection import Connection
from .errors import Stale, TooLarge
from .http_parsers import ResponseHeaders

_FORGOTTEN: Final = 8  # pieces in a turn


class ConnectionSource(Protocol):
    """Who lends connections: the pool. Each one is given back by exactly one `release`."""

    async def lease(self) -> Connection:
        """A connection, resting until now or new. Raises PoolExhausted, ConnectFailed, Timeout."""

    async def renew(self, connection: Connection) -> Connection:
        """A new connection in the place of a leased one, which is thereby given back. Raises as `lease`."""

    def release(self, connection: Connection, *, drain: bool) -> None:
        """Take back a leased connection; `drain` asks to save it although its response has not ended."""


class Exchange:
    """Use it as `async with pool.exchange(…) as response:`, once. `body` is in pieces, of which it empties the list.

    `status` and `headers` (names in lower case) are there from the first line of the block on. However the block is
    left, the connection is given back at once and without waiting: for another request if its response has ended, to
    be drained after `done()`, else closed, which is what tells an engine to stop.
    """

    __slots__ = ("_body", "_connection", "_drain", "_head", "_source", "headers", "read", "status")

    def __init__(self, source: ConnectionSource, head: bytes, body: list[bytes]) -> None:
        self._source = source
        self._head = head
        self._body = body
        self._connection: Connection | None = None
        self._drain = False
        # Await `read()` for all of the body that has arrived since the last time; b"" is its end. Raises Broken and
        # Timeout. It is the connection's own: a call of ours around it would be one more for every token.
        self.read: Callable[[], Coroutine[Any, Any, bytes]] = _too_late
        self.status = 0
        self.headers: ResponseHeaders = []

    async def __aenter__(self) -> Self:
        """Send the request and wait for the head. Raises ConnectFailed, Timeout, Broken, PoolExhausted."""
        try:
            connection = self._connection = await self._source.lease()
            try:
                await self._ask(connection)
            except Stale:
                self._connection = None  # while it is renewed it is the pool's
                connection = self._connection = await self._source.renew(connection)
                await self._ask(connection)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def _ask(self, connection: Connection) -> None:
        connection.begin(self._head, self._body)
        await connection.head()
        self.read = connection.read
        self.status, self.headers = connection.status, connection.headers
        await self._forget_body()

    async def _forget_body(self) -> None:
        """It will not be sent again. To give much memory back takes its time, so that others get turns meanwhile."""
        del self._body[-_FORGOTTEN:]
        while self._body:
            await asyncio.sleep(0)
            del self._body[-_FORGOTTEN:]

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        self.read = _too_late
        if connection is not None:
            self._source.release(connection, drain=self._drain)

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body. Raises TooLarge when it passes `limit` bytes, and what `read` raises."""
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the response body passed {limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def pause_reading(self) -> None:
        """Read nothing off the wire until the next `read`."""
        if self._connection is not None:
            self._connection.pause_reading()

    def drain_on_exit(self) -> None:
        """Nothing that may still come is of interest: on leaving, the end of the body is awaited in the background."""
        self._drain = True


def _too_late() -> Coroutine[Any, Any, bytes]:
    raise RuntimeError("a response is read inside its `async with`")
