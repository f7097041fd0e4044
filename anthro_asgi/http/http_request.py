"""One HTTP request and its response, over an ASGI scope, `receive` and `send`."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

from .._native import CLIENT_TRANSPORT
from ..observability.logs import IGNORED_HEADER, SCOPE_REFUSAL, RequestRecord, log_failure
from ..observability.trace_context import NO_TRACE, Trace
from ..wire.errors import ApiError, InternalError, SimulatedDisconnect
from ..wire.response_channel import CHANNEL, ResponseChannel

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
ResponseHeaders = Iterable[tuple[str, str]]

JSON: Final = "application/json"
_RELAYED: Final = frozenset({b"anthropic-beta", b"anthropic-version"})
_TOKEN: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_MAX_BETAS: Final = 64
_SCHEMES: Final = frozenset({b"http", b"https"})
_HOST: Final = re.compile(rb"[A-Za-z0-9._~-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")


class ClientDisconnected(Exception):
    """The client has disconnected. No response can be sent any more."""


def _never() -> bool:
    return False


def _first(values: bytes | None) -> bytes:
    """The first of the values that a header lists."""
    return (values or b"").partition(b",")[0].strip()


class HttpRequest:
    """One request and its response.

    Args:
        closes_connection: tells, when a response starts, whether the connection closes after it. HTTP/1 clients are
            then told by a `connection: close` header; HTTP/2 has no such header.
        debug: log the traceback of an unexpected exception.

    Attributes:
        path: the path below the mount point (`root_path`).
        headers: names in lower case.
        record: becomes the log line of the request, and the labels of its metrics.
        trace: the trace that the request belongs to.
        started: whether the head of the response has been sent.
        cors_headers: headers that every response to this request needs (see `cors`).
        channel: what our own server offers beside ASGI; None on any other server.
    """

    __slots__ = (
        "_closes_connection",
        "_debug",
        "_first_values",
        "_scope",
        "channel",
        "cors_headers",
        "headers",
        "held",
        "method",
        "path",
        "query",
        "receive",
        "record",
        "request_id",
        "send",
        "started",
        "trace",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        closes_connection: Callable[[], bool] = _never,
        *,
        debug: bool = False,
    ) -> None:
        self._scope = scope
        self.channel: ResponseChannel | None = scope.get(CHANNEL)
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self.query: bytes = scope.get("query_string", b"")
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self._first_values = dict(reversed(self.headers))
        self.receive = receive
        self.send = send
        self.request_id = request_id
        self.record = RequestRecord(self.method, self.path, request_id)
        self.trace: Trace = NO_TRACE
        self.started = False
        self.held: list[Any] | None = None  # values that are freed in steps at the end
        self.cors_headers: tuple[tuple[str, str], ...] = ()
        self._debug = debug
        self._closes_connection = closes_connection if scope.get("http_version", "1.1")[:1] == "1" else _never

    def hold(self, value: object) -> None:
        """Free a value that takes much memory in steps, at the end of the request."""
        if self.held is None:
            self.held = []
        self.held.append(value)

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header with this name (lower case), or None."""
        return self._first_values.get(name)

    def relay_headers(self) -> tuple[tuple[str, str], ...]:
        """The client's `anthropic-beta` and `anthropic-version`, without values that are not safe to send on."""
        if _RELAYED.isdisjoint(self._first_values):
            return ()
        found = [(name, value) for name, value in self.headers if name in _RELAYED]
        betas = [beta.strip() for name, value in found if name == b"anthropic-beta" for beta in value.split(b",")]
        betas = [beta for beta in betas if _TOKEN.fullmatch(beta)][:_MAX_BETAS]
        version = next((value for name, value in found if name == b"anthropic-version"), b"")
        relayed = [("anthropic-beta", b",".join(betas).decode())] if betas else []
        if _TOKEN.fullmatch(version):
            relayed.append(("anthropic-version", version.decode()))
        return tuple(relayed)

    def base_url(self) -> str:
        """The address that the client uses: scheme, host, port and mount point, without a slash at the end.

        A proxy tells in `x-forwarded-proto` and `x-forwarded-host` what it was asked for.
        """
        scheme = _first(self.header(b"x-forwarded-proto")).lower()
        named = map(_first, (self.header(b"x-forwarded-host"), self.header(b"host")))
        host = next((host for host in named if _HOST.fullmatch(host)), None)
        if host is None:
            name, port = self._scope.get("server") or ("localhost", None)
            host = name.encode() if port is None else f"{name}:{port}".encode()
        if scheme not in _SCHEMES:
            scheme = str(self._scope.get("scheme", "http")).encode()
        return f"{scheme.decode('latin-1')}://{host.decode('latin-1')}{self._scope.get('root_path', '')}"

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """The transport of the client, if our own server allows an engine to write to it directly."""
        transport: asyncio.Transport | None = self._scope.get(CLIENT_TRANSPORT)
        return transport

    # the response

    async def start_response(self, status: int, content_type: str, headers: ResponseHeaders = ()) -> None:
        """Send the head. Every response carries the `request-id`."""
        self.started = True
        self.record.status = status
        fields = [("content-type", content_type), ("request-id", self.request_id), *headers, *self.cors_headers]
        if self._closes_connection():
            fields.append(("connection", "close"))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def respond(
        self, status: int, body: bytes | list[bytes], content_type: str = JSON, headers: ResponseHeaders = ()
    ) -> None:
        """Send a whole response, whose body may be in pieces. A HEAD request gets the same head and no body."""
        pieces = body if isinstance(body, list) else [body]
        await self.start_response(status, content_type, [("content-length", str(sum(map(len, pieces)))), *headers])
        *first, last = [b""] if self.method == "HEAD" else pieces
        for piece in first:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await self.send({"type": "http.response.body", "body": last})

    async def respond_empty(self, status: int) -> None:
        """Send a response without a body and without a content type."""
        self.started = True
        self.record.status = status
        fields = [("request-id", self.request_id), *self.cors_headers]
        fields += [("content-length", "0")] if status != 204 else []
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": b""})

    async def respond_error(self, exc: Exception) -> None:
        """Send the error as JSON, with its own status."""
        error = self.record_error(exc)
        await self.respond(error.status, error.body(self.request_id), JSON, error.headers)

    def report_ignored(self, paths: Sequence[str]) -> ResponseHeaders:
        """The header that names the request fields without effect, which is also written into the record."""
        if not paths:
            return ()
        self.record.ignored = ", ".join(paths)
        return ((IGNORED_HEADER, self.record.ignored),)

    async def drop_connection(self) -> None:
        """Leave the response incomplete, so that the server closes the connection.

        When no head has been sent, it is sent now: it announces two bytes of body, and none follow.
        """
        self.record.error = SimulatedDisconnect.__name__
        if not self.started:
            await self.start_response(200, JSON, [("content-length", "2")])

    # the record

    def record_error(self, exc: Exception) -> ApiError:
        """Record how the request failed, and return the error that the client gets.

        An exception that is no ApiError is a bug: it is logged, and the client gets an InternalError without details.
        This is the only place that writes a failure of the application into the record.
        """
        if isinstance(exc, ApiError):
            error = exc
        else:
            log_failure(self.request_id, exc, debug=self._debug)
            error = InternalError("internal error", reason=type(exc).__name__)
            error.__cause__ = exc
        self.record.error_type = error.type
        self.record.error = type(error).__name__
        self.record.reason = error.reason or None
        return error

    def record_server_refusal(self) -> None:
        """Record a refusal that the server itself has sent, for example because the body did not arrive in time."""
        refusal = self._scope.get(SCOPE_REFUSAL)
        if refusal is not None:
            record = self.record
            record.request_id, record.status, record.client_left = refusal.request_id, refusal.status, False
            record.error_type, record.error = refusal.error_type, refusal.error
