"""The connections to one origin: a stack of idle connections, and a count of slots.

A slot is the right to have one connection. It is in exactly one of four places, so that at any time

    idle + leased + connecting + draining == slots_used <= limit

    connecting   a connection is being opened for an exchange
    leased       an exchange owns the connection
    draining     the exchange has left; the pool reads the response to its end, for one second at most
    idle         a stack: the connection used last is used next, so that the others grow old and are closed

When all slots are taken, exchanges wait in a first-in first-out queue. A slot that becomes free goes to the head of the
queue and to no newcomer: with its connection, or without one as the right to open one. A waiter that is cancelled after
it was handed a slot hands it to the next.

Each move between the places happens in one step, without an await. To editors: an await between a count and its place
leaks a slot on cancellation (httpcore issue 1093).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from .connect import Dialer
from .connection import ENDED, IDLE, PAUSED, STREAMING, Connection
from .errors import ConnectFailed, PoolExhausted, Timeout
from .exchange import Exchange
from .http_parsers import ParserFactory, default_parser
from .origin import Deadlines, Origin
from .request import Body, RequestHeaders, request_head

__all__ = ["Body", "Deadlines", "Exchange", "Pool"]

_LAST_LOOK = 0.1  # seconds after the deadline for a connection
_DRAIN = 1.0  # seconds: after the last event of interest only a usage chunk and a [DONE] follow


class Pool:
    """At most `limit` connections to `origin`. `clock` returns seconds; the default is the event loop's clock.

    Without `reuse` each connection serves one request. HTTP/1.1 cannot tell a late surplus of one response from the
    beginning of the next, so this is the only safe choice for a server that may send such a surplus.

    A pool belongs to one event loop from its first exchange on.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        limit: int = 1024,
        deadlines: Deadlines | None = None,
        reuse: bool = True,
        parser: ParserFactory | None = None,
        user_agent: str = "anthro-asgi",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.origin = origin
        self.limit = limit
        self.slots_used = 0
        self._dialer = Dialer(origin)
        self._deadlines = deadlines or Deadlines()
        self._parser = parser or default_parser()
        self._clock = clock
        self._headers: RequestHeaders = (
            (b"host", origin.authority.encode()),
            (b"user-agent", user_agent.encode("ascii")),
            (b"accept-encoding", b"identity"),
            *(() if reuse else ((b"connection", b"close"),)),
        )
        self._reuse = reuse
        self._idle: dict[Connection, float] = {}  # a stack, with the time from which on each is too old
        self._leased: set[Connection] = set()
        self._connecting = 0
        self._draining: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        counts = " ".join(f"{place}={count}" for place, count in self.counts().items())
        return f"<Pool {self.origin} {counts} limit={self.limit}>"

    def counts(self) -> dict[str, int]:
        """The number of slots in each of the four places, and the number of waiting exchanges."""
        return {
            "idle": len(self._idle),
            "leased": len(self._leased),
            "connecting": self._connecting,
            "draining": len(self._draining),
            "waiting": len(self._waiters),
        }

    def exchange(self, method: str, target: str, headers: RequestHeaders = (), body: Body = b"") -> Exchange:
        """A request that is sent when it is entered. `target` is a path (see `Origin.target`).

        The pool adds host, content-length, user-agent and accept-encoding. If `body` is a list of pieces, the exchange
        empties it. Raises ValueError at once for headers that frame the message or cannot be written.
        """
        pieces = [body] if isinstance(body, bytes) else body
        return Exchange(self, request_head(method, target, self._headers, headers, sum(map(len, pieces))), pieces)

    async def aclose(self) -> None:
        """Close every connection, also those in use, and refuse new exchanges. May be called again.

        An exchange that is still connecting fails as soon as it is connected.
        """
        self._closed = True
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(self._closed_error())
        open_ones = [*self._idle, *self._leased, *self._draining]
        for connection in open_ones:
            connection.abort()
            self._on_settled(connection)
        for connection in open_ones:
            await connection.wait_closed()

    def _closed_error(self) -> ConnectFailed:
        return ConnectFailed(f"{self.origin}: the pool is closed")

    # ---- ConnectionSource, which Exchange calls

    async def lease(self) -> Connection:
        """An idle connection, or a new one. Raises PoolExhausted, ConnectFailed, Timeout."""
        if self._closed:
            raise self._closed_error()
        connection = self._pop_idle()
        if connection is None and self.slots_used < self.limit:
            self.slots_used += 1
            self._connecting += 1
        elif connection is None:
            connection = await self._wait_for_slot()
        return await self._connect() if connection is None else connection

    async def renew(self, connection: Connection) -> Connection:
        """Close a leased connection and open a new one in its slot. Raises ConnectFailed, Timeout."""
        connection.discard()
        self._leased.remove(connection)
        self._connecting += 1
        return await self._connect()

    def release(self, connection: Connection, *, drain: bool) -> None:
        """Take back a leased connection. `drain`: read an incomplete response to its end, to keep the connection."""
        self._leased.remove(connection)
        if drain and (connection.state is STREAMING or connection.state is PAUSED):
            self._draining.add(connection)
            connection.drain(_DRAIN)
        else:
            self._recycle(connection)

    def drop(self, connection: Connection) -> None:
        """Take back a leased connection, and close it."""
        self._leased.remove(connection)
        self._drop(connection)

    # ---- moves between the places

    def _pop_idle(self) -> Connection | None:
        now = self._now()
        while self._idle:
            connection, expires = self._idle.popitem()
            if now < expires and not connection.has_unread():
                self._leased.add(connection)
                return connection
            self._drop(connection)
        return None

    def _recycle(self, connection: Connection) -> None:
        """Give a connection that has no owner to the next waiter or to the idle stack, or close it."""
        seconds = connection.keep_alive.max_idle
        reusable = connection.state is ENDED or connection.state is IDLE
        if not (reusable and self._reuse) or seconds <= 0:
            return self._drop(connection)
        connection.recycle()
        waiter = self._next_waiter()
        if waiter is None:
            self._idle[connection] = self._now() + seconds
        else:
            self._leased.add(connection)
            waiter.set_result(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        connection.discard()
        self._free_slot()

    def _free_slot(self) -> None:
        waiter = self._next_waiter()
        if waiter is None:
            self.slots_used -= 1
        else:
            self._connecting += 1
            waiter.set_result(None)

    def _on_settled(self, connection: Connection) -> None:
        # Called by a connection without an owner that was drained or closed. If it was leased in the meantime, its
        # owner finds out by itself.
        if connection in self._draining:
            self._draining.remove(connection)
            self._recycle(connection)
        elif self._idle.pop(connection, None) is not None:
            self._drop(connection)

    # ---- the queue

    async def _wait_for_slot(self) -> Connection | None:
        """Wait for a connection, which is then leased, or for None: a slot, which is then connecting."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with _timeout(self._deadlines.connect):
                return await waiter
        except BaseException as exc:
            self._give_up(waiter)
            if isinstance(exc, TimeoutError):
                seconds = self._deadlines.connect
                raise PoolExhausted(f"{self.origin}: all {self.limit} slots busy for {seconds:g} s") from exc
            raise

    def _give_up(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """Remove a waiter from the queue; if it was handed a slot already, hand that to the next."""
        if not waiter.done() or waiter.cancelled():
            with suppress(ValueError):  # `_next_waiter` has removed a cancelled one
                self._waiters.remove(waiter)
        elif waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._connecting -= 1
                self._free_slot()
            else:
                self._leased.remove(connection)
                self._recycle(connection)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    # ---- opening connections

    async def _connect(self) -> Connection:
        """Open a connection in a connecting slot: the slot is then leased, or free if this raises."""
        connection = Connection(str(self.origin), self._deadlines, self._parser, self._on_settled)
        try:
            async with _timeout(self._deadlines.connect):
                await self._dialer.dial(connection)
            if self._closed:
                raise self._closed_error()
        except BaseException as exc:
            connection.discard()
            self._connecting -= 1
            self._free_slot()
            if isinstance(exc, TimeoutError):
                raise Timeout("connect", str(self.origin), self._deadlines.connect) from exc
            raise
        self._connecting -= 1
        self._leased.add(connection)
        return connection

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()


@asynccontextmanager
async def _timeout(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, with a last look: after a stop of the process, timers fire before sockets are looked at."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds, lambda: limit.reschedule(loop.time() + _LAST_LOOK))
        try:
            yield
        finally:
            timer.cancel()
