"""How a response is read: two parsers behind one small interface, chosen once when this file is imported.

A parser lives for one response. It is fed what comes off the wire and calls back:

    on_head(status, headers)    once; header names in lower case, values without white space around them
    on_body(data)               any number of times, never with b""
    on_end(reusable)            once; whether another request may follow on this connection

and raises Broken when the peer breaks HTTP, TooLarge where its head does not end; then, and after `on_end`, it is of no
further use. Informational responses are skipped. Trailers are dropped. A head, with the informational ones before it,
is at most 64 KiB.

Both agree on every valid response and on where it ends; that is what tests compare. On broken ones they agree that
they are broken wherever that matters: what frames a body is judged here and not by either library, because they
differ there (h11 lets Transfer-Encoding win over Content-Length, llhttp refuses; RFC 9112 section 6.3 allows both).
h11 is the more tolerant of line ends, which is harmless.

h11 costs several times as much for each read as httptools (llhttp), which is why the latter is taken where it is.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import h11

from .errors import Broken, TooLarge

httptools: Any
try:
    httptools = import_module("httptools")
except ImportError:
    httptools = None

MAX_HEAD = 64 * 1024

ResponseHeaders = list[tuple[bytes, bytes]]
OnHead = Callable[[int, ResponseHeaders], None]
OnBody = Callable[[bytes], None]
OnEnd = Callable[[bool], None]

_PREFIX = b"HTTP/"
_STUB = h11.Request(method="GET", target="/", headers=[("host", "h")])


class Parser(Protocol):
    """Reads one response."""

    def feed(self, data: bytes) -> None:
        """Take bytes off the wire (never b""). Raises Broken."""

    def eof(self) -> None:
        """Take the end of the stream, which is the end of some bodies and breaks all others. Raises Broken."""


ParserFactory = Callable[[OnHead, OnBody, OnEnd], Parser]


class H11Parser:
    """Reads with h11, which is always installed."""

    __slots__ = ("_connection", "_fed", "_keep", "_on_body", "_on_end", "_on_head")

    def __init__(self, on_head: OnHead, on_body: OnBody, on_end: OnEnd) -> None:
        self._on_head = on_head
        self._on_body = on_body
        self._on_end = on_end
        self._fed = 0  # bytes of an unfinished head; -1 once it is done
        self._keep = False
        # h11 reads a response only to a request it wrote; any that may have a body in its answer will do.
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._connection.send(_STUB)
        self._connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        if self._fed >= 0:
            self._weigh(data)
        self._connection.receive_data(data)
        self._run()
        if self._fed > MAX_HEAD:
            raise TooLarge(f"the response head passed {MAX_HEAD} bytes")

    def eof(self) -> None:
        self._connection.receive_data(b"")
        self._run()

    def _weigh(self, data: bytes) -> None:
        # h11 would wait for a blank line before it looks at the first one.
        begin = self._fed
        if begin < len(_PREFIX) and not data.startswith(_PREFIX[begin : begin + len(data)]):
            raise Broken("the answer is not HTTP")
        self._fed += len(data)

    def _run(self) -> None:
        connection = self._connection
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as exc:
                raise Broken("the answer is not HTTP, or was cut short") from exc
            if isinstance(event, h11.Data):
                self._on_body(bytes(event.data))
            elif isinstance(event, h11.Response):
                self._fed = -1
                self._keep = _judged(event.status_code, event.http_version, list(event.headers))[1]
                self._on_head(event.status_code, list(event.headers))
            elif isinstance(event, h11.EndOfMessage):
                # A stray CRLF after a body is forgiven (RFC 9112 section 2.2), as llhttp does.
                return self._on_end(self._keep and not connection.trailing_data[0].strip(b"\r\n"))
            elif not isinstance(event, h11.InformationalResponse):
                return None


class HttptoolsParser:
    """Reads with httptools. `on_header` and the like are its callbacks, and `on_body` goes straight to the owner."""

    __slots__ = ("_fed", "_headers", "_keep", "_on_end", "_on_head", "_parser", "_phase", "_until_eof", "on_body")

    _HEAD, _BODY, _END = range(3)

    def __init__(self, on_head: OnHead, on_body: OnBody, on_end: OnEnd) -> None:
        self._on_head = on_head
        self.on_body = on_body
        self._on_end = on_end
        self._phase = self._HEAD
        self._fed = 0
        self._headers: ResponseHeaders = []
        self._until_eof = False
        self._keep = False
        self._parser: Any = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        surplus = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if isinstance(exc.__context__, Broken):
                raise exc.__context__ from None
            if self._phase != self._END:
                raise Broken("the answer is not HTTP") from exc
            surplus = True
        if self._phase == self._HEAD:
            self._fed += len(data)
            if self._fed > MAX_HEAD:
                raise TooLarge(f"the response head passed {MAX_HEAD} bytes")
        elif self._phase == self._END:
            self._finish(self._keep and not surplus)

    def eof(self) -> None:
        if self._phase != self._BODY or not self._until_eof:
            raise Broken("the answer was cut short")
        self._finish(False)

    def _finish(self, reusable: bool) -> None:
        self._parser = None  # it holds our callbacks and we hold it
        self._on_end(reusable)

    def on_message_begin(self) -> None:
        if self._phase == self._END:
            raise ValueError("another response follows")  # stops llhttp, so that its body is not taken for ours

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer comes here too; it joins a list that is no longer looked at.
        self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        headers, self._headers = self._headers, []
        self._until_eof, self._keep = _judged(status, version.encode(), headers)
        if status >= 200:
            self._phase = self._BODY
            self._on_head(status, headers)

    def on_message_complete(self) -> None:
        if self._phase == self._BODY:
            self._phase = self._END


def _judged(status: int, version: bytes, headers: ResponseHeaders) -> tuple[bool, bool]:
    """Whether the body ends with the stream (RFC 9112 section 6.3), and whether the connection stays (9.3)."""
    if version not in (b"1.1", b"1.0") or status < 100 or status == 101:
        raise Broken("the answer is not HTTP/1, or switches to what was not asked for")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
        raise TooLarge(f"the response head passed {MAX_HEAD} bytes")
    fields = dict(headers)
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or b"content-length" in fields):
        raise Broken("the answer's transfer-encoding leaves open where its body ends")
    until_eof = coding is None and b"content-length" not in fields and status not in (204, 304)
    options = b",".join(value for name, value in headers if name == b"connection").lower()
    closes = b"close" in (option.strip() for option in options.split(b","))
    return until_eof, version == b"1.1" and not closes and not until_eof


PARSERS: dict[str, ParserFactory] = {"h11": H11Parser}
if httptools is not None:
    PARSERS["httptools"] = HttptoolsParser

_DEFAULT = PARSERS.get("httptools", H11Parser)


def default_parser() -> ParserFactory:
    """httptools where it is installed, else h11."""
    return _DEFAULT
