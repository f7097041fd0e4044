"""One HTTP/1.1 connection of the load generator: sends a request and passes on the bytes of its answer, cheaply.

There is no task, future or queue per request. The receiver is called once per read with the bytes of the body and the
time of the read, and once at the end. `upstream.http_parsers` reads every framing of a body: with httptools where it is
installed (extra `fast`), else with h11.
"""

import asyncio
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Literal, Protocol

from ..upstream.errors import Broken, TooLarge
from ..upstream.http_parsers import Parser, ResponseHeaders, default_parser

Ending = Literal["complete", "cut", "stale", "garbled"]
"""Complete; closed during the answer; closed before the answer on a reused connection; not HTTP."""


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
        self._parser: Parser | None = None
        self._pieces: list[bytes] = []
        self._create = default_parser()
        self._asked = 0
        self._received = self._complete = self._keep_alive = False

    def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request."""
        self._receiver = receiver
        self._asked += 1
        self._received = self._complete = self._keep_alive = False
        self._parser = self._create(self._on_head, self._pieces.append, self._on_end)
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once. The receiver is not called any more."""
        self._receiver = None
        self.usable = False
        self._transport.abort()

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        receiver, parser = self._receiver, self._parser
        if receiver is None or parser is None:
            return self.abort()  # nothing was requested
        self._received = True
        try:
            parser.feed(data)
        except (Broken, TooLarge):
            self.usable = False
            return self._end("garbled", now)
        pieces = self._pieces
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            receiver.took(body, now)
        if self._complete:
            self._end("complete", now)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        now = monotonic_ns()
        if not self._received:
            self._end("stale" if self._asked > 1 else "cut", now)
            return
        if exc is None and self._parser is not None and not self._complete:
            with suppress(Broken):
                self._parser.eof()  # the body may end with the connection
        self._end("complete" if self._complete else "cut", now)

    def _end(self, ending: Ending, now: int) -> None:
        if self._parser is not None:
            self._parser.close()
            self._parser = None
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        self.usable = self.usable and self._keep_alive and ending == "complete"
        if not self.usable:
            self._transport.abort()
        receiver.ended(ending, now)

    # ---- called by the parser

    def _on_head(self, status: int, headers: ResponseHeaders) -> None:
        if self._receiver is not None:
            self._receiver.headed(status, dict(headers).get(b"content-type", b""))

    def _on_end(self, reusable: bool) -> None:
        self._complete = True
        self._keep_alive = reusable
