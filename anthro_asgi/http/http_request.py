"""One HTTP request as the floor's rooms see it: its head, its body (bounded), and one way to answer it whole."""

import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from time import perf_counter
from typing import Any, Final

from ..observability.logs import SCOPE_REFUSAL, RequestRecord, log_failure
from ..observability.trace_context import NO_TRACE, Trace
from ..wire.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    RequestTooLarge,
    SimulatedDisconnect,
    UnsupportedEncoding,
)
from ..wire.large.cooperative import Steps, run_with_yields

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
ResponseHeaders = Iterable[tuple[str, str]]

JSON: Final = "application/json"
_MEMBERS: Final = 64  # of a compressed body
_FED: Final = 64 * 1024  # bytes of it that are decompressed in a step, and at the most to so many:
_INFLATED: Final = 256 * 1024
_INFLATE_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class ClientDisconnected(Exception):
    """The client is gone: nothing is left to answer."""


def _never() -> bool:
    return False


class HttpRequest:
    """A request and its answer. `record` becomes its log line; `started` says that the answer's status is out.

    `closes` tells whether an answer that begins now is the last one on its connection, where HTTP lets that be said.
    """

    __slots__ = (
        *(
            "_closes_connection",
            "_scope",
            "headers",
            "method",
            "path",
            "query",
            "receive",
            "record",
            "request_id",
            "send",
            "started",
        ),
        *("started", "trace"),
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, closes: Callable[[], bool] = _never
    ) -> None:
        self._scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self.query: bytes = scope.get("query_string", b"")
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.receive = receive
        self.send = send
        self.request_id = request_id
        self.record = RequestRecord(self.method, self.path, request_id)
        self.trace: Trace = NO_TRACE
        self.started = False
        self._closes_connection = closes if scope.get("http_version", "1.1")[:1] == "1" else _never

    def header(self, name: bytes) -> bytes | None:
        """The first header of this (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def record_server_refusal(self) -> None:
        """Where the server has refused the rest of the request by itself, that is how it went."""
        refused = self._scope.get(SCOPE_REFUSAL)
        if refused is not None:
            record = self.record
            record.request_id, record.status, record.client_left = refused.request_id, refused.status, False
            record.error_type, record.error = refused.error_type, refused.error

    # the body

    async def read_body(self, limit: int, decompressed: int) -> list[bytes]:
        """The whole body in pieces, decoded: at most `limit` bytes on the wire, and `decompressed` once it is that.

        Raises RequestTooLarge as soon as that is known, UnsupportedEncoding, InvalidRequest and ClientDisconnected.
        """
        told = self.header(b"content-length")
        if told is not None and told.isdigit() and int(told) > limit:
            raise _too_large(limit)
        encoding = (self.header(b"content-encoding") or b"identity").strip().lower()
        if encoding != b"identity" and encoding not in _INFLATE_BITS:
            raise UnsupportedEncoding(f"content-encoding: {encoding.decode('latin-1')!r:.60} is not known; use gzip")
        pieces = []
        size = 0
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
            more = message.get("more_body", False)
        if encoding == b"identity":
            return pieces
        return await run_with_yields(_inflate(pieces, _INFLATE_BITS[encoding], decompressed), perf_counter)

    # the answer

    async def start_response(self, status: int, content_type: str, headers: ResponseHeaders = ()) -> None:
        """Send the head. The `request-id` is on every answer."""
        self.started = True
        self.record.status = status
        fields = [("content-type", content_type), ("request-id", self.request_id), *headers]
        if self._closes_connection():
            fields.append(("connection", "close"))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def respond(self, status: int, body: bytes, content_type: str = JSON, headers: ResponseHeaders = ()) -> None:
        """Send a whole answer. To HEAD it goes without its body."""
        await self.start_response(status, content_type, [("content-length", str(len(body))), *headers])
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def respond_error(self, exc: Exception) -> None:
        """Send the error envelope, with the error's own status."""
        error = self.record_error(exc)
        await self.respond(error.status, error.body(self.request_id), JSON, error.headers)

    async def drop_connection(self) -> None:
        """Leave the answer without its end, at which a server cuts the connection; one that has not begun, with it."""
        self.record.error = SimulatedDisconnect.__name__
        if not self.started:
            await self.start_response(200, JSON, [("content-length", "2")])

    def record_error(self, exc: Exception) -> ApiError:
        """The error that the client receives for `exc`, written to the record. Logs `exc` if it is not an ApiError."""
        if isinstance(exc, ApiError):
            error = exc
        else:
            log_failure(self.request_id, exc)
            error = InternalError("internal error", reason=type(exc).__name__)
            error.__cause__ = exc
        self.record.error_type = error.type
        self.record.error = type(error).__name__
        self.record.reason = error.reason or None
        return error


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"body: larger than {limit} bytes")


def _inflate(pieces: Sequence[bytes], bits: int, limit: int) -> Steps[list[bytes]]:
    """The body decompressed, never more than `limit` of it: a small bomb must not fill the memory."""
    try:
        return (yield from _Inflating(bits, limit).all_of(pieces))
    except zlib.error:
        if bits != 15:
            raise InvalidRequest("body: not what its content-encoding says") from None
    return (yield from _inflate(pieces, -15, limit))  # deflate without its wrapper, which many a client sends


class _Inflating:
    """Decompresses a body. It may have several members, one behind the other (RFC 1952, section 2.2)."""

    def __init__(self, bits: int, limit: int) -> None:
        self._bits = bits
        self._limit = limit
        self._inflater = zlib.decompressobj(bits)
        self._members = 1
        self._plain: list[bytes] = []
        self._size = 0

    def all_of(self, pieces: Sequence[bytes]) -> Steps[list[bytes]]:
        """Raises InvalidRequest, RequestTooLarge and zlib.error."""
        for piece in pieces:
            for start in range(0, len(piece), _FED):  # what is not consumed is copied
                yield from self._feed(piece[start : start + _FED])
        if not self._inflater.eof:
            raise InvalidRequest("body: compressed data that ends too early")
        return self._plain

    def _feed(self, data: bytes) -> Steps[None]:
        more = True
        while data or more:
            if self._inflater.eof:
                if not data:
                    return
                self._next_member()
            plain = self._inflater.decompress(data, _INFLATED)
            self._plain.append(plain)
            self._size += len(plain)
            if self._size > self._limit:
                raise _too_large(self._limit)
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            more = len(plain) == _INFLATED  # of which the inflater may hold something back
            yield

    def _next_member(self) -> None:
        if self._members == _MEMBERS:
            raise InvalidRequest(f"body: compressed in more than {_MEMBERS} members")
        self._members += 1
        self._inflater = zlib.decompressobj(self._bits)
