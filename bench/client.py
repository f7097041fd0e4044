"""One HTTP/1.1 connection of the load generator: sends a request and passes on the bytes of its answer, cheaply.

There is no task, future or queue per request. The receiver is called once per read with the bytes of the body and the
time of the read, and once at the end. Every framing of a body is understood: chunked, by length, or until the close.
"""

import asyncio
from time import monotonic_ns
from typing import Any, Final, Literal, Protocol

import httptools

Ending = Literal["complete", "cut", "stale", "garbled"]
"""Complete; closed during the answer; closed before the answer on a reused connection; not HTTP."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")


class Receiver(Protocol):
    """Receives one answer."""

    def headed(self, status: int, content_type: bytes) -> None:
        """The head of the answer is complete."""

    def took(self, data: bytes, now: int) -> None:
        """Bytes of the body, read at `now`, in nanoseconds of `time.monotonic_ns`."""

    def ended(self, ending: Ending, now: int) -> None:
        """The answer is over. The connection's `usable` tells whether it can be reused."""


class Connection(asyncio.Protocol):
    """Call `ask` again when an answer has ended and `usable` is true."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: Any  # uvloop's transports only have the methods of asyncio.Transport
        self._receiver: Receiver | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it for each piece
        self._parser: Any = httptools.HttpResponseParser(self)
        self._asked = 0
        self._reset()

    def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request."""
        self._receiver = receiver
        self._asked += 1
        self._reset()
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once. The receiver is not called any more."""
        self._receiver = None
        self.usable = False
        self._transport.abort()

    def _reset(self) -> None:
        self._received = self._headed = self._complete = self._keep_alive = False
        self._until_close = True
        self._type = b""

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        if self._receiver is None:
            return self.abort()  # nothing was requested
        self._received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.usable = False
            if not self._complete:
                return self._end("garbled", now)
        pieces = self._pieces
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._receiver.took(body, now)
        if self._complete:
            self._end("complete", now)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        now = monotonic_ns()
        if not self._received:
            self._end("stale" if self._asked > 1 else "cut", now)
        else:
            self._end("complete" if self._headed and self._until_close and exc is None else "cut", now)
        self._parser = None  # breaks the reference cycle between the two
        del self.on_body

    def _end(self, ending: Ending, now: int) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        self.usable = self.usable and self._keep_alive and ending == "complete"
        if not self.usable:
            self._transport.abort()
        receiver.ended(ending, now)

    # ---- called by the parser

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer")  # stops the parser, so that its body is not taken for the first one's

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            self._until_close = False
        elif name == b"content-type":
            self._type = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._complete:
            self._headed = True
            if self._receiver is not None:
                self._receiver.headed(status, self._type)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # known only now
