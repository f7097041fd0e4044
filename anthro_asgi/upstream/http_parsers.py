"""Response parsers: httptools and h11 behind one small interface. The choice is made once, on import.

A parser reads one response. It is fed the bytes that arrive, and calls:

    on_head(status, headers)    once; header names in lower case, values without surrounding white space
    on_body(data)               any number of times, never with b""
    on_end(reusable)            once; `reusable`: another request may follow on this connection

It raises Broken when the peer violates HTTP, and TooLarge when the head is larger than 64 KiB, informational responses
before it included. After either, and after `on_end`, the parser must not be used any more. Informational responses are
skipped. Trailers are dropped.

Both parsers accept and refuse the same heads; a differential fuzz compares them. The libraries differ: in line ends, in
folded lines, in repeated lengths, in white space. So `HeadCheck` checks a head before either library sees it, and
`_check_head` checks what frames the body. RFC 9112 section 6.3 allows Transfer-Encoding with Content-Length, and h11
lets the former win, but here it is refused.

httptools (llhttp) is used where it is installed, because h11 costs several times as much for each read.
"""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import h11

from .chunked import ChunkDecoder
from .errors import Broken, TooLarge

httptools: Any  # an optional extension module without type stubs
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
_HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FRAMING = re.compile(rb"^(content-length|transfer-encoding):[\t ]*+([^\r\n]*)\r\n", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"[0-9]{1,18}[\t ]*")
_WITHOUT_BODY = (204, 304)
_STUB = h11.Request(method="GET", target="/", headers=[("host", "h")])


class Parser(Protocol):
    """Reads one response.

    `between_chunks`: the next byte begins a chunk of a chunked body. Only some parsers know; for others it is False.
    """

    @property
    def between_chunks(self) -> bool: ...

    def feed(self, data: bytes) -> None:
        """Read bytes of the response (never b""). Raises Broken, TooLarge."""

    def eof(self) -> None:
        """The peer has closed its side. Some bodies end that way; for all others this raises Broken."""

    def close(self) -> None:
        """Read no more. Breaks reference cycles, which would be left to the garbage collector."""


ParserFactory = Callable[[OnHead, OnBody, OnEnd], Parser]


class HeadCheck:
    """Checks the form of response heads, informational ones included. `complete`: the last head has passed."""

    __slots__ = ("_buffer", "complete")

    def __init__(self) -> None:
        self._buffer = b""
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Check what `data` completes. Raises Broken."""
        self._buffer += data
        while not self.complete:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                if _BARE_LF.search(self._buffer):
                    raise Broken("the response head has a line that does not end with CRLF")
                return
            head = _HEAD.fullmatch(self._buffer, 0, end)
            if head is None:
                raise Broken("the response head is not valid HTTP/1")
            framing = [(name.lower(), value) for name, value in _FRAMING.findall(self._buffer, 0, end)]
            lengths = [value for name, value in framing if name == b"content-length"]
            if len(framing) > len(dict(framing)) or not all(map(_LENGTH.fullmatch, lengths)):
                raise Broken("the response has more than one length or coding, or an invalid one")
            self._buffer = self._buffer[end:]
            self.complete = int(head[1]) >= 200 or head[1] == b"101"
        self._buffer = b""


class H11Parser:
    """Parses with h11, which is always installed. A `ChunkDecoder` reads chunked bodies."""

    between_chunks = False
    __slots__ = ("_check", "_chunks", "_connection", "_fed", "_keep", "_on_body", "_on_end", "_on_head")

    def __init__(self, on_head: OnHead, on_body: OnBody, on_end: OnEnd) -> None:
        self._on_head = on_head
        self._on_body = on_body
        self._on_end = on_end
        self._check = HeadCheck()
        self._chunks: ChunkDecoder | None = None  # of a chunked body
        self._fed = 0  # bytes of an incomplete head; -1 when it is complete
        self._keep = False
        # h11 only reads the response to a request that it wrote. Any request whose response may have a body will do.
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._connection.send(_STUB)
        self._connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        if self._chunks is not None:
            self._read_chunks(self._chunks, data)
            return
        if self._fed >= 0:
            self._check_start(data)
            if not self._check.complete:
                self._check.feed(data)
        self._connection.receive_data(data)
        self._run()
        if self._fed > MAX_HEAD:
            raise TooLarge(f"the response head is larger than {MAX_HEAD} bytes")

    def close(self) -> None:
        self._chunks = None

    def eof(self) -> None:
        if self._chunks is not None:
            raise Broken("the response was cut short")
        self._connection.receive_data(b"")
        self._run()

    def _read_chunks(self, chunks: ChunkDecoder, data: bytes) -> None:
        chunks.feed(data)
        if chunks.done:
            self._on_end(self._keep and not chunks.surplus.strip(b"\r\n"))

    def _check_start(self, data: bytes) -> None:
        # h11 would wait for the blank line after the head before it checks the first line.
        begin = self._fed
        if begin < len(_PREFIX) and not data.startswith(_PREFIX[begin : begin + len(data)]):
            raise Broken("the response is not HTTP")
        self._fed += len(data)

    def _run(self) -> None:
        connection = self._connection
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as exc:
                raise Broken("the response is not HTTP, or was cut short") from exc
            if isinstance(event, h11.Data):
                self._on_body(bytes(event.data))
            elif isinstance(event, h11.Response):
                self._fed = -1
                headers = list(event.headers)
                self._keep = _check_head(event.status_code, event.http_version, headers)[1]
                self._on_head(event.status_code, headers)
                if b"transfer-encoding" in dict(headers) and event.status_code not in _WITHOUT_BODY:
                    self._chunks = ChunkDecoder(self._on_body)
                    return self._read_chunks(self._chunks, connection.trailing_data[0])
            elif isinstance(event, h11.EndOfMessage):
                # A stray CRLF after a body is accepted (RFC 9112 section 2.2), as llhttp does.
                return self._on_end(self._keep and not connection.trailing_data[0].strip(b"\r\n"))
            elif not isinstance(event, h11.InformationalResponse):
                return None


class HttptoolsParser:
    """Parses with httptools, which calls `on_header` and the like. `on_body` is the owner's own callback."""

    between_chunks = False
    __slots__ = (
        "_check",
        "_fed",
        "_headers",
        "_keep",
        "_on_end",
        "_on_head",
        "_parser",
        "_phase",
        "_until_eof",
        "on_body",
    )

    _HEAD, _BODY, _END = range(3)

    def __init__(self, on_head: OnHead, on_body: OnBody, on_end: OnEnd) -> None:
        self._on_head = on_head
        self.on_body = on_body
        self._on_end = on_end
        self._phase = self._HEAD
        self._check = HeadCheck()
        self._fed = 0
        self._headers: ResponseHeaders = []
        self._until_eof = False
        self._keep = False
        self._parser: Any = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        surplus = False
        if not self._check.complete:
            self._check.feed(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if isinstance(exc.__context__, Broken):
                raise exc.__context__ from None
            if self._phase != self._END:
                raise Broken("the response is not HTTP") from exc
            surplus = True
        if self._phase == self._HEAD:
            self._fed += len(data)
            if self._fed > MAX_HEAD:
                raise TooLarge(f"the response head is larger than {MAX_HEAD} bytes")
        elif self._phase == self._END:
            self._finish(self._keep and not surplus)

    def eof(self) -> None:
        if self._phase != self._BODY or not self._until_eof:
            raise Broken("the response was cut short")
        self._finish(False)

    def close(self) -> None:
        self._parser = None  # it holds our callbacks

    def _finish(self, reusable: bool) -> None:
        self._parser = None  # as in `close`
        self._on_end(reusable)

    def on_message_begin(self) -> None:
        if self._phase == self._END:
            raise ValueError("another response follows")  # stops llhttp, which would go on to call `on_body` for it

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, but the list is not read any more then.
        self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        headers, self._headers = self._headers, []
        self._until_eof, self._keep = _check_head(status, version.encode(), headers)
        if status >= 200:
            self._phase = self._BODY
            self._on_head(status, headers)

    def on_message_complete(self) -> None:
        if self._phase == self._BODY:
            self._phase = self._END


class ChunkTrackingParser(HttptoolsParser):
    """The same, and knows where chunks begin. It costs two more calls for each chunk."""

    __slots__ = ("_in_chunk", "_last")

    def __init__(self, on_head: OnHead, on_body: OnBody, on_end: OnEnd) -> None:
        super().__init__(on_head, on_body, on_end)
        self._in_chunk = True
        self._last = b""

    def feed(self, data: bytes) -> None:
        self._last = data[-2:]
        super().feed(data)

    @property
    def between_chunks(self) -> bool:  # type: ignore[override]  # a constant in the base class
        """A chunk has ended, and no byte of the line with the next chunk's size has arrived."""
        return self._phase == self._BODY and not self._in_chunk and self._last == b"\r\n"

    def on_chunk_header(self) -> None:
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        self._in_chunk = False


def _check_head(status: int, version: bytes, headers: ResponseHeaders) -> tuple[bool, bool]:
    """Whether the body ends with the stream (RFC 9112 section 6.3), and whether the connection persists (9.3).

    Raises Broken, TooLarge.
    """
    if version not in (b"1.1", b"1.0") or status < 100 or status == 101:
        raise Broken("the response is not HTTP/1, or switches to another protocol")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
        raise TooLarge(f"the response head is larger than {MAX_HEAD} bytes")
    fields = dict(headers)
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or b"content-length" in fields):
        raise Broken("the transfer-encoding of the response does not say where its body ends")
    until_eof = coding is None and b"content-length" not in fields and status not in _WITHOUT_BODY
    options = b",".join(value for name, value in headers if name == b"connection").lower()
    closes = b"close" in (option.strip() for option in options.split(b","))
    return until_eof, version == b"1.1" and not closes and not until_eof


PARSERS: dict[str, ParserFactory] = {"h11": H11Parser}
if httptools is not None:
    PARSERS["httptools"] = HttptoolsParser

_DEFAULT = PARSERS.get("httptools", H11Parser)


def chunk_tracking_parser() -> ParserFactory:
    """The default parser, in a form that knows where chunks begin if that is httptools."""
    return _DEFAULT if httptools is None else ChunkTrackingParser


def default_parser() -> ParserFactory:
    """httptools if it is installed, else h11."""
    return _DEFAULT
