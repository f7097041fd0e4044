"""Calls an ASGI application as a server would, piece by piece, and holds it to the rules of ASGI.

The usual test clients gather the whole body before they show any of it, so a stream cannot be tested with them.
Here the test stands where the server's socket would be: it sees each `send` on its own, may leave at any moment, and
may be too slow to read.

What the driver does as uvicorn does: a `send` to a client that can keep up gives the loop no turn; a `send` to a client
that has left does nothing and raises nothing; `receive` after the body waits until the client leaves or the response
is complete. What it does beyond: whatever breaks a rule raises `Misbehaviour`, in the application's `send` and, should
the application swallow it there, once more in the test. Every wait is bounded: one that takes too long raises `Stuck`,
which shows where the application stood.
"""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.support.driver.call import App, Message, Misbehaviour, Receive, Send, Stuck
from tests.support.driver.exchange import Body, Exchange, only
from tests.support.driver.lifespan import Lifespan, LifespanFailed

__all__ = [
    "App",
    "Driver",
    "Exchange",
    "LifespanFailed",
    "Message",
    "Misbehaviour",
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
        """The one value of a header, None without it. Fails when there are several."""
        return only(self.headers, name)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Driver:
    """A server with one application. `patience` in seconds bounds every wait; `state` is what the lifespan left."""

    app: App
    patience: float = 5.0
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
        """A request, for `async with`. `path` is as on the wire, with its percent signs.

        Several pieces of `body` arrive one by `receive`; without `complete` the last is never followed by its end.
        Header names may be in any case; `host` and the body's framing are added unless given.
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
        return Exchange(self.app, scope, Body(pieces, complete), self.patience)

    async def request(self, method: str, path: str, **how: Any) -> Response:
        """A request and its whole response. Takes what `open` takes."""
        async with self.open(method, path, **how) as exchange:
            await exchange.started()
            body = await exchange.rest()
        return Response(exchange.status, exchange.headers, body)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """The application from its startup to its shutdown. Raises LifespanFailed."""
        scope: Message = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        life = Lifespan(self.app, scope, self.patience)
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
    """The headers as a server passes them on. `length` is that of the body, None for a chunked body."""
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
