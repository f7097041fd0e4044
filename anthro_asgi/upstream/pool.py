"""The connections to one origin: a stack of idle ones and a count of slots.

A slot is the right to have a connection. It is in exactly one of four places, so that at any time

    idle + leased + connecting + draining == slots used <= limit

    connecting   being opened by the exchange that will have it
    leased       owned by one exchange
    draining     left by its exchange after `drain_on_exit()`: read to the end of its message, for a second at most
    idle         a stack: the one used last is used next, so that the others may grow old and go

Who wants a slot when all are taken waits in line, and what becomes free goes to the head of the line and to nobody
else: a connection as it is, or the right to make one. A waiter that is cancelled with such a gift in hand passes it on.

Every move between the places is made in one step without an await. To editors: an await between a count and its place
is a leaked slot on cancellation (that is httpcore's issue 1093).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .connect import dial
from .connection import ENDED, IDLE, PAUSED, STREAMING, Connection
from .errors import ConnectFailed, PoolExhausted, Timeout
from .exchange import Exchange
from .http_parsers import ParserFactory, default_parser
from .origin import Deadlines, Origin
from .request import Body, RequestHeaders, request_head

__all__ = ["Body", "Deadlines", "Exchange", "Pool"]

_DRAIN = 1.0  # seconds: what follows the last event of interest is a usage chunk and a [DONE]


class Pool:
    """Connections to `origin`, at most `limit`. `clock` gives seconds, by default the event loop's.

    One pool belongs to one event loop from its first exchange on.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        limit: int = 1024,
        deadlines: Deadlines | None = None,
        parser: ParserFactory | None = None,
        user_agent: str = "anthro-asgi",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.origin = origin
        self.limit = limit
        self.slots_used = 0
        self._deadlines = deadlines or Deadlines()
        self._parser = parser or default_parser()
        self._clock = clock
        self._fields: RequestHeaders = (
            (b"host", origin.authority.encode()),
            (b"user-agent", user_agent.encode("ascii")),
            (b"accept-encoding", b"identity"),
        )
        self._idle: dict[Connection, float] = {}  # a stack, with the time at which each is too old
        self._leased: set[Connection] = set()
        self._connecting = 0
        self._draining: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        counts = " ".join(f"{place}={count}" for place, count in self.counts().items())
        return f"<Pool {self.origin} {counts} limit={self.limit}>"

    def counts(self) -> dict[str, int]:
        """How many connections are in each of the four places, and how many exchanges wait in line."""
        return {
            "idle": len(self._idle),
            "leased": len(self._leased),
            "connecting": self._connecting,
            "draining": len(self._draining),
            "waiting": len(self._waiters),
        }

    def exchange(self, method: str, target: str, headers: RequestHeaders = (), body: Body = b"") -> Exchange:
        """A request to be made by entering it. `target` is a path (`origin.target`).

        The pool writes host, content-length, user-agent and accept-encoding. A list of pieces, as `body`, is emptied.
        Raises ValueError, at once, for headers that frame the message or cannot be written.
        """
        pieces = [body] if isinstance(body, bytes) else body
        return Exchange(self, request_head(method, target, self._fields, headers, sum(map(len, pieces))), pieces)

    async def aclose(self) -> None:
        """Close every connection, also those in use, and refuse new exchanges. May be called again.

        An exchange that is still connecting gives up by itself as soon as it is connected.
        """
        self._closed = True
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(self._refusal())
        open_ones = [*self._idle, *self._leased, *self._draining]
        for connection in open_ones:
            connection.abort()
            self._settled(connection)
        for connection in open_ones:
            await connection.wait_closed()

    def _refusal(self) -> ConnectFailed:
        return ConnectFailed(f"{self.origin}: the pool is closed")

    # ---- the source: Exchange calls these

    async def lease(self) -> Connection:
        """A connection, resting until now or new. Raises PoolExhausted, ConnectFailed, Timeout."""
        if self._closed:
            raise self._refusal()
        connection = self._pop_idle()
        if connection is None and self.slots_used < self.limit:
            self.slots_used += 1
            self._connecting += 1
        elif connection is None:
            connection = await self._wait()
        return await self._connect() if connection is None else connection

    async def renew(self, connection: Connection) -> Connection:
        """A new connection in the slot of a leased one. Raises ConnectFailed, Timeout."""
        connection.abort()
        self._leased.remove(connection)
        self._connecting += 1
        return await self._connect()

    def release(self, connection: Connection, *, drain: bool) -> None:
        """Take back a leased connection."""
        self._leased.remove(connection)
        if drain and (connection.state is STREAMING or connection.state is PAUSED):
            self._draining.add(connection)
            connection.drain(_DRAIN)
        else:
            self._put_back(connection)

    # ---- moves between the places

    def _pop_idle(self) -> Connection | None:
        now = self._now()
        while self._idle:
            connection, expires = self._idle.popitem()
            if now < expires:
                self._leased.add(connection)
                return connection
            self._drop(connection)
        return None

    def _put_back(self, connection: Connection) -> None:
        seconds = connection.keep_alive.rest
        good = connection.state is ENDED or connection.state is IDLE
        if not good or seconds <= 0:
            return self._drop(connection)
        connection.rest()
        waiter = self._next_waiter()
        if waiter is None:
            self._idle[connection] = self._now() + seconds
        else:
            self._leased.add(connection)
            waiter.set_result(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._free()

    def _free(self) -> None:
        waiter = self._next_waiter()
        if waiter is None:
            self.slots_used -= 1
        else:
            self._connecting += 1
            waiter.set_result(None)

    def _settled(self, connection: Connection) -> None:
        # The connection calls: something became of it. If it was leased in the meantime its owner will find out.
        if connection in self._draining:
            self._draining.remove(connection)
            self._put_back(connection)
        elif self._idle.pop(connection, None) is not None:
            self._drop(connection)

    # ---- waiting in line

    async def _wait(self) -> Connection | None:
        """A connection, now leased, or None for a slot, now connecting."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._deadlines.connect):
                return await waiter
        except BaseException as exc:
            self._pass_on(waiter)
            if isinstance(exc, TimeoutError):
                seconds = self._deadlines.connect
                raise PoolExhausted(f"{self.origin}: all {self.limit} slots busy for {seconds:g} s") from exc
            raise

    def _pass_on(self, waiter: "asyncio.Future[Connection | None]") -> None:
        if not waiter.done() or waiter.cancelled():
            with suppress(ValueError):  # a cancelled one may have been skipped already
                self._waiters.remove(waiter)
        elif waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._connecting -= 1
                self._free()
            else:
                self._leased.remove(connection)
                self._put_back(connection)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    # ---- making connections

    async def _connect(self) -> Connection:
        """Turn a connecting slot into a leased one, or free it."""
        connection = Connection(str(self.origin), self._deadlines, self._parser, self._settled)
        try:
            async with asyncio.timeout(self._deadlines.connect):
                await dial(self.origin, connection)
            if self._closed:
                raise self._refusal()
        except BaseException as exc:
            connection.abort()
            self._connecting -= 1
            self._free()
            if isinstance(exc, TimeoutError):
                raise Timeout("connect", str(self.origin), self._deadlines.connect) from exc
            raise
        self._connecting -= 1
        self._leased.add(connection)
        return connection

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()
