"""One request and its response, from taking a connection out of the pool to giving it back."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self

from .connection import Connection
from .errors import Stale, TooLarge
from .http_parsers import ResponseHeaders

_PIECES_PER_YIELD: Final = 8  # pieces of a sent body that are freed before other tasks run


class ConnectionSource(Protocol):
    """Lends connections; the pool is one. Each lease ends with exactly one `release`."""

    async def lease(self) -> Connection:
        """An idle connection, or a new one. Raises PoolExhausted, ConnectFailed, Timeout."""

    async def renew(self, connection: Connection) -> Connection:
        """Close a leased connection and lend a new one in its slot. Raises as `lease`; the slot is then free."""

    def release(self, connection: Connection, *, drain: bool) -> None:
        """Take back a leased connection. `drain`: read an incomplete response to its end, to keep the connection."""

    def drop(self, connection: Connection) -> None:
        """Take back a leased connection, and close it."""


class Exchange:
    """Use it as `async with pool.exchange(…) as response:`, once. It empties the list `body` as the request is sent.

    `status` and `headers` (names in lower case) are set when the block is entered. When the block is left, in whatever
    way, the connection goes back to the pool at once, without waiting. If the response is complete, the connection is
    used again. After `drain_on_exit()` the pool reads the rest first. Otherwise the connection is closed, which tells
    the engine to stop generating.

    A connection that was used before is also closed after `distrust()`, and if the block raises an Exception. Then the
    response was a refusal, or no answer to this request. It may be the surplus of an earlier response, and each client
    that got this connection later would receive the answer to the request of the one before.
    """

    __slots__ = ("_body", "_connection", "_distrusted", "_drain", "_head", "_source", "headers", "read", "status")

    def __init__(self, source: ConnectionSource, head: bytes, body: list[bytes]) -> None:
        self._source = source
        self._head = head
        self._body = body
        self._connection: Connection | None = None
        self._drain = self._distrusted = False
        # `await read()` returns all body bytes that have arrived since the last read; b"" is the end. Raises Broken
        # and Timeout. It is the connection's own method: a wrapper here would be one more call for each token.
        self.read: Callable[[], Coroutine[Any, Any, bytes]] = _not_entered
        self.status = 0
        self.headers: ResponseHeaders = []

    async def __aenter__(self) -> Self:
        """Send the request and wait for the response head. Raises ConnectFailed, Timeout, Broken, PoolExhausted."""
        try:
            connection = self._connection = await self._source.lease()
            try:
                await self._send(connection)
            except Stale:
                self._connection = None  # while it is renewed, the pool owns it
                connection = self._connection = await self._source.renew(connection)
                await self._send(connection)
        except BaseException:
            self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release(failed=self._distrusted or (kind is not None and issubclass(kind, Exception)))

    async def _send(self, connection: Connection) -> None:
        connection.send_request(self._head, self._body)
        await connection.wait_for_head()
        self.read = connection.read
        self.status, self.headers = connection.status, connection.headers
        await self._free_body()

    async def _free_body(self) -> None:
        # The body will not be sent again. Freeing many megabytes takes milliseconds, so other tasks run in between.
        del self._body[-_PIECES_PER_YIELD:]
        while self._body:
            await asyncio.sleep(0)
            del self._body[-_PIECES_PER_YIELD:]

    def _release(self, *, failed: bool = True) -> None:
        connection, self._connection = self._connection, None
        self.read = _not_entered
        if connection is not None and failed and connection.is_reused:
            self._source.drop(connection)
        elif connection is not None:
            self._source.release(connection, drain=self._drain)

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name`, which is in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body. Raises TooLarge if it has more than `limit` bytes, and what `read` raises."""
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the response body is larger than {limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def pause_reading(self) -> None:
        """Leave further bytes in the kernel until the next `read`."""
        if self._connection is not None:
            self._connection.pause_reading()

    def await_output(self) -> None:
        """Allow a longer silence until `output_began`: the engine may still read the prompt."""
        if self._connection is not None:
            self._connection.await_output()

    def output_began(self) -> None:
        """The first output is there."""
        if self._connection is not None:
            self._connection.output_began()

    @property
    def connection(self) -> Connection:
        """The connection inside the block, for a reader of the body that takes its transport (`hand_over`)."""
        if self._connection is None:
            raise RuntimeError("the exchange has no connection")
        return self._connection

    def drain_on_exit(self) -> None:
        """When the block is left before the response has ended, read and drop the rest in the background."""
        self._drain = True

    def distrust(self) -> None:
        """The response is no answer to the request, so a connection that was used before is not used again."""
        self._distrusted = True


def _not_entered() -> Coroutine[Any, Any, bytes]:
    raise RuntimeError("a response can only be read inside its `async with` block")
