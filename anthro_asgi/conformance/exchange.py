"""One request to a server under test and its response, kept as they were sent and received.

The client is `http.client` of the standard library: the suite needs no other package, and it sends exactly the bytes
that a check wants.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

Json = dict[str, Any]

PATIENCE: Final = 60.0  # seconds that a check waits for the next bytes of a response
_SHOWN: Final = 2000  # characters of a body in a report
_SECRET: Final = ("authorization", "x-api-key")


class NoResponse(Exception):
    """The server did not answer with a complete HTTP response. The text says what happened."""


@dataclass(slots=True)
class Exchange:
    """A request and its response. `reads` holds seconds since the request and bytes, for each piece of the body."""

    method: str
    target: str
    sent_headers: Mapping[str, str]
    sent: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    cut: str = ""

    @property
    def content_type(self) -> str:
        """The media type of the response, without parameters and in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)

    def shown(self) -> Json:
        """The exchange for a report: texts, keys left out."""
        headers = {name: "…" if name in _SECRET else value for name, value in self.sent_headers.items()}
        return {
            "request": f"{self.method} {self.target}",
            "request_headers": headers,
            "request_body": self.sent.decode("utf-8", "replace")[:_SHOWN],
            "status": self.status,
            "response_headers": dict(self.headers),
            "response_body": self.body.decode("utf-8", "replace")[:_SHOWN],
            "cut": self.cut,
        }


def _words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message}; SSL_CERT_FILE may name the CA's certificate"
    return (exc.strerror or str(exc) or type(exc).__name__).lower()


class Client:
    """Sends requests to one server. Each request has a connection of its own unless it is given one.

    `base` is the URL of the server, with or without `/v1` at its end. `key` is sent as `x-api-key`.
    """

    def __init__(self, base: str, key: str | None) -> None:
        try:
            parts = urlsplit(base)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # an invalid port or IPv6 address
            valid = False
        if not valid:
            raise ValueError(f"not an http or https URL: {base}")
        self._parts = parts
        self.prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.key = key

    def connect(self) -> http.client.HTTPConnection:
        """A new connection. Opened by the first request."""
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=PATIENCE)

    def begin(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> Exchange:
        """Send a request. A header whose value is None is not sent; an iterator is sent as chunks.

        Raises NoResponse.
        """
        if connection.sock is None:
            self._open(connection)
        all_headers: dict[str, str | None] = {"anthropic-version": "2023-06-01", "x-api-key": self.key}
        if method == "POST":
            all_headers["content-type"] = "application/json"
        all_headers |= {name.lower(): value for name, value in (headers or {}).items()}
        sent = {name: value for name, value in all_headers.items() if value is not None}
        exchange = Exchange(method, self.prefix + path, sent, body if isinstance(body, bytes) else b"(chunks)")
        payload = body if body or method == "POST" else None
        try:
            connection.request(method, exchange.target, payload, sent, encode_chunked=not isinstance(body, bytes))
        except OSError as exc:
            raise NoResponse(f"the request could not be sent: {_words(exc)}") from exc
        return exchange

    def reach(self) -> None:
        """Raises NoResponse if no connection can be opened."""
        connection = self.connect()
        try:
            self._open(connection)
        finally:
            connection.close()

    def _open(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except OSError as exc:
            address = self._parts.netloc.rpartition("@")[2]
            raise NoResponse(f"cannot connect to {address}: {_words(exc)}") from exc

    def receive(self, connection: http.client.HTTPConnection, exchange: Exchange) -> Exchange:
        """Read the response to the end. Raises NoResponse if there is no head of a response."""
        began = monotonic()
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise NoResponse(f"no response: {type(exc).__name__}: {exc}") from exc
        exchange.status = response.status
        exchange.headers = {name.lower(): value for name, value in response.getheaders()}
        try:
            while piece := response.read1(65536):
                exchange.reads.append((monotonic() - began, piece))
        except (OSError, http.client.HTTPException) as exc:
            exchange.cut = f"{type(exc).__name__}: {exc}"
        if response.length:
            exchange.cut = exchange.cut or f"{response.length} bytes of the body are missing"
        response.close()  # or the connection could not be used again
        exchange.body = b"".join(piece for _, piece in exchange.reads)
        return exchange

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> Exchange:
        """A request on a connection of its own, and its response."""
        connection = self.connect()
        try:
            return self.receive(connection, self.begin(connection, method, path, body, headers))
        finally:
            connection.close()
