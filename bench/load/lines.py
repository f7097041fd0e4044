"""The connections of a run: those at rest, and those being made, of which there are a bounded number at once."""

import asyncio
from collections import deque
from time import monotonic_ns
from typing import Final

from ..client import Connection
from .asking import Requests, Target
from .exchange import Exchange

# A listener whose backlog is full drops what comes, and the kernel tries again after a second; asyncio's is 100 long.
_DIALLING: Final = 64


class Lines:
    """Sends exchanges over connections, the one that was used last first. Made inside a running event loop.

    A connection that is not there within `timeout` seconds is given up.
    """

    def __init__(self, target: Target, requests: Requests, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._requests = requests
        self._timeout = timeout
        self._hosts = list(target.hosts)
        self._idle: list[Connection] = []
        self._waiting: deque[Exchange] = deque()
        self._dialling: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(self, exchange: Exchange) -> None:
        """Send it now, or as soon as there is a connection. One that has no moment that it was due at gets it then."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                exchange.due = exchange.due or monotonic_ns()
                self._ask(connection, exchange)
                return
        self.send_anew(exchange)

    def send_anew(self, exchange: Exchange) -> None:
        """Send it over a new connection."""
        self._waiting.append(exchange)
        self._dial_more()

    def rest(self, connection: Connection) -> None:
        """Take back a connection whose exchange is over."""
        if connection.usable:
            self._idle.append(connection)

    async def close(self) -> None:
        """Close what is at rest and give up what is being made."""
        self._closed = True
        self._waiting.clear()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for connection in self._idle:
            if connection.usable:
                connection.abort()
        self._idle.clear()

    def _ask(self, connection: Connection, exchange: Exchange) -> None:
        exchange.connection = connection
        exchange.sent = monotonic_ns()
        connection.ask(self._requests.make(exchange.number), exchange)

    def _dial_more(self) -> None:
        while self._waiting and len(self._dialling) < _DIALLING:
            exchange = self._waiting.popleft()
            if exchange.over:
                continue
            exchange.due = exchange.due or monotonic_ns()
            task = self._loop.create_task(self._dial(exchange))
            self._dialling.add(task)
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        if not self._closed:
            self._dial_more()

    async def _dial(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connect()
        except OSError as exc:
            if not exchange.over:
                exchange.fail("timeout" if isinstance(exc, TimeoutError) else "connect")
            return
        if exchange.over:
            self.rest(connection)
        else:
            self._ask(connection, exchange)

    async def _connect(self) -> Connection:
        name = self._target.name if self._target.tls else None
        failure = OSError("no address")
        for host in tuple(self._hosts):
            try:
                _, connection = await self._loop.create_connection(
                    Connection, host, self._target.port, ssl=self._target.tls, server_hostname=name
                )
            except OSError as exc:
                failure = exc
                continue
            if self._hosts[0] != host:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
            return connection
        raise failure
