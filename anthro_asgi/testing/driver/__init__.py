"""Calls an ASGI application as a server would, piece by piece, and checks that it keeps the rules of ASGI.

Most test clients collect the whole body before they return any of it, so a stream cannot be tested with them. Here the
test takes the place of the server's socket: it gets each `send` separately, can disconnect at any moment, and can stop
reading.

The driver behaves as uvicorn does. A `send` to a client that keeps up does not yield to the event loop. A `send` to a
client that has left does nothing and raises nothing. `receive` after the body waits until the client leaves or the
response is complete. In addition, a message that breaks a rule raises AsgiViolation in the application's `send`, and
again in the test if the application swallows it. Each wait has a timeout: Stuck shows where the application stood.
"""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from .call import App, AsgiViolation, Message, Receive, Send, Stuck
from .exchange import DROP_CONNECTION, Body, ConnectionDropped, Exchange, only
from .lifespan import Lifespan, LifespanFailed

__all__ = [
    "DROP_CONNECTION",
    "App",
    "AsgiViolation",
    "ConnectionDropped",
    "Driver",
    "Exchange",
    "LifespanFailed",
    "Message",
    "Receive",
    "Response",
    "Send",
    "Stuck",
]

Pairs = Iterable[tuple[str | bytes, str | bytes]]
Address = tuple[str, int]


@dataclass
class Response:
    """A whole response."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header, None without it. Raises AssertionError if there are several."""
        return only(self.headers, name)

    def json(self) -> Any:
        """The body as JSON values. Raises ValueError."""
        return json.loads(self.body)


@dataclass
class Driver:
    """A server with one application.

    Attributes:
        app: the application.
        timeout: seconds that each wait takes at most; None is no limit.
        state: the lifespan state, which each request gets a copy of.
    """

    app: App
    timeout: float | None = 5.0
    state: dict[str, Any] = field(default_factory=dict)

    def open(
        self,
        method: str,
        path: str,
        *,
        headers: Pairs = (),
        body: bytes | Iterable[bytes] = b"",
        complete: bool = True,
        query: bytes = b"",
        http_version: str = "1.1",
        client: Address | None = ("127.0.0.1", 50000),
    ) -> Exchange:
        """A request, for `async with`.

        Args:
            path: as on the wire, percent-encoded.
            headers: names in any case. `host` and the framing of the body are added unless given.
            body: bytes, or pieces of which each `receive` returns one.
            complete: whether the body ends after its last piece.
            query: the query string, without `?`.
            client: host and port of the client.
        """
        pieces = [body] if isinstance(body, bytes) else list(body)
        if complete and not pieces:
            pieces = [b""]
        whole = isinstance(body, bytes) and complete
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query,
            "root_path": "",
            "headers": _framed(headers, len(pieces[0]) if whole else None),
            "client": client,
            "server": ("127.0.0.1", 8000),
            "state": self.state.copy(),
        }
        return Exchange(self.app, scope, Body(pieces, complete), self.timeout)

    async def request(self, method: str, path: str, **how: Any) -> Response:
        """A request and its whole response. Takes the arguments of `open`, and raises as `Exchange` does."""
        async with self.open(method, path, **how) as exchange:
            await exchange.started()
            body = await exchange.rest()
        return Response(exchange.status, exchange.headers, body)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the application from its startup to its shutdown. Raises LifespanFailed, AsgiViolation or Stuck."""
        scope: Message = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        life = Lifespan(self.app, scope, self.timeout)
        life.start()
        try:
            await life.ask("startup")
            try:
                yield
            finally:
                await life.ask("shutdown")
        finally:
            await life.end()


def _framed(headers: Pairs, length: int | None) -> list[tuple[bytes, bytes]]:
    """The headers as a server passes them on. `length` is that of the body in bytes; None for a chunked body."""
    pairs = [(_bytes(name).lower(), _bytes(value)) for name, value in headers]
    names = {name for name, _ in pairs}
    if b"host" not in names:
        pairs.insert(0, (b"host", b"localhost"))
    if length is None and not names & {b"content-length", b"transfer-encoding"}:
        pairs.append((b"transfer-encoding", b"chunked"))
    elif length and b"content-length" not in names:
        pairs.append((b"content-length", b"%d" % length))
    return pairs


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
