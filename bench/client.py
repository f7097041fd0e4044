"""One HTTP/1.1 connection of the load generator: a request out, the bytes of its answer in, as cheaply as they come.

There are no tasks, futures or queues per request: whoever asks is called back, with each read's worth of body and when
it was read, and once at the end. Any framing of the body is understood: chunked, counted, or ended by the close of the
connection.
"""

import asyncio
from time import monotonic_ns
from typing import Any, Final, Literal, Protocol

import httptools

Ending = Literal["complete", "cut", "stale", "garbled"]
"""Complete; closed in mid-answer; closed before an answer on a connection that was used before; not HTTP."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")


class Asker(Protocol):
    """Who waits for an answer."""

    def headed(self, status: int, content_type: bytes) -> None:
        """The head of the answer is complete."""

    def took(self, data: bytes, now: int) -> None:
        """Bytes of the body, read at `now`, in the nanoseconds of `time.monotonic_ns`."""

    def ended(self, ending: Ending, now: int) -> None:
        """The answer is over; the connection's `usable` tells whether it can be used again."""


class Connection(asyncio.Protocol):
    """`ask` again when an answer has ended and `usable` is true."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: Any  # uvloop's have the methods of asyncio.Transport, and are none
        self._asker: Asker | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it for each piece
        self._parser: Any = httptools.HttpResponseParser(self)
        self._asked = 0
        self._forget()

    def ask(self, request: bytes, asker: Asker) -> None:
        """Send a whole request."""
        self._asker = asker
        self._asked += 1
        self._forget()
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once. The asker is not called any more."""
        self._asker = None
        self.usable = False
        self._transport.abort()

    def _forget(self) -> None:
        self._heard = self._headed = self._complete = self._stays = False
        self._until_close = True
        self._type = b""

    # ---- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        if self._asker is None:
            return self.abort()  # nobody asked
        self._heard = True
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
            self._asker.took(body, now)
        if self._complete:
            self._end("complete", now)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        now = monotonic_ns()
        if not self._heard:
            self._end("stale" if self._asked > 1 else "cut", now)
        else:
            self._end("complete" if self._headed and self._until_close and exc is None else "cut", now)
        self._parser = None  # it holds this protocol, and this protocol holds it
        del self.on_body

    def _end(self, ending: Ending, now: int) -> None:
        asker, self._asker = self._asker, None
        if asker is None:
            return
        self.usable = self.usable and self._stays and ending == "complete"
        if not self.usable:
            self._transport.abort()
        asker.ended(ending, now)

    # ---- what the parser calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("another answer, to nothing")  # stops the parser, so that its body is not taken for ours

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
            if self._asker is not None:
                self._asker.headed(status, self._type)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = True
            self._stays = self._parser.should_keep_alive()  # the parser knows only now
