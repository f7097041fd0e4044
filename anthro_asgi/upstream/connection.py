"""One HTTP/1.1 connection to an engine: writes a request, hands over its response as it arrives.

Its whole life is one state, and these are all its moves:

    NEW ──► IDLE ──► SENT ──► HEAD ──► STREAMING ◄──► PAUSED          any of them ──► CLOSED
              ▲                             │
              │                             ├──► DRAINING ──┐
              └────────── ENDED ◄───────────┴───────────────┤
                                MUST_CLOSE ◄─────────────────────┘

    NEW        not connected yet
    IDLE       connected, nothing asked: a byte or an EOF now closes it
    SENT      the request is being written or was; not a byte has come back
    HEAD       bytes came, the response's head is not complete
    STREAMING  the head was handed over, the body is arriving
    PAUSED     the same, but the reader is behind by the high-water mark, or holds: nothing is read off the socket
    DRAINING   nobody reads any more: the body is thrown away so that the connection can be used again
    ENDED      the message is complete and the connection is good for another
    MUST_CLOSE      the message is complete and the connection is not
    CLOSED     over; `read` gives what had arrived and then raises

Who may call: one owner. It calls `begin`, `head`, `read` in that order, then `rest`, `drain` or `abort`. A connection
without an owner (IDLE, DRAINING) tells `on_settled` when something becomes of it.

The body is gathered: a reader that was busy for ten chunks gets them as one, and a reader that waits, waits on one
future which only ever says "look again". No exception travels in a future, so none can be left unretrieved.

Deadlines are one number that the phases move, one that stands from `begin` on, and one timer that looks at both when it
goes off: for each read off the wire that is an addition, where a timer or a timeout context would cost as much as the
read. In PAUSED only the one that stands counts: the silence is ours.

A request body is written as the transport takes it. A server that refuses a body (413) and closes makes our next write
fail, perhaps before its answer was read; so a connection that is lost before its answer is heard out.

To editors: the connection never half-closes, for engines take an EOF for a client that has left.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from enum import Enum
from math import inf
from typing import Any, cast

from .errors import Broken, Phase, Stale, Timeout, TooLarge, UpstreamError
from .http_parsers import Parser, ParserFactory, ResponseHeaders
from .keepalive import KeepAlive
from .origin import Deadlines
from .request import BURST, UnsentBody

HIGH_WATER = 64 * 1024  # bytes off the wire that wait for the reader
_PIECE = 64 * 1024  # bytes of one read of what the kernel still has

State = Enum("State", "NEW IDLE SENT HEAD STREAMING PAUSED DRAINING ENDED MUST_CLOSE CLOSED")
NEW, IDLE, SENT, HEAD, STREAMING, PAUSED, DRAINING, ENDED, MUST_CLOSE, CLOSED = State  # a global is the cheapest


class Waiter(asyncio.Future[None]):
    """A future that says "look again": once, as others do, or as often as need be.

    Who awaits it may set `resume`, which is then called instead of a result being set; so it stays of use. `waits` says
    whether anybody does.
    """

    __slots__ = ("resume", "waits")

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.resume: Callable[[], None] | None = None
        self.waits = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # the sign by which a task knows a future
        self.waits = True
        try:
            yield self
        finally:
            self.waits = False

    def wake(self) -> None:
        """Say it, if anybody waits."""
        if self.waits:
            if self.resume is not None:
                self.resume()
            elif not self.done():
                self.set_result(None)


class Connection(asyncio.Protocol):
    """See the module. `peer` is the address for messages. Made inside a running event loop."""

    def __init__(
        self, peer: str, deadlines: Deadlines, parser: ParserFactory, on_settled: "Callable[[Connection], None]"
    ) -> None:
        self.state = NEW
        self.status = 0  # of the response; 0 until its head is there
        self.headers: ResponseHeaders = []
        self.keep_alive = KeepAlive()
        self._peer = peer
        self._deadlines = deadlines
        self._parser_factory = parser
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._transport: asyncio.Transport  # from IDLE on
        self._lost = self._loop.create_future()
        self._parser: Parser | None = None
        self._requests = 0
        self._unsent = UnsentBody()
        self._congested = False  # the transport wants no more of the request for now
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._waiter = Waiter(loop=self._loop)
        self._error: UpstreamError | None = None
        self._deadline = inf  # for what is waited for now
        self._until = inf  # for the whole answer
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return (
            f"<Connection {self._peer} {self.state.name.lower()} requests={self._requests}"
            f" unsent={len(self._unsent)} buffered={self._buffered}>"
        )

    # ---- the owner asks

    def begin(self, head: bytes, body: bytes | list[bytes]) -> None:
        """Write a request. `head` says the length of `body`. Raises Stale or Broken if the peer has left already."""
        self._requests += 1
        if self.state is not IDLE:
            raise self._hung_up("closed before it was asked")
        self.state = SENT
        self.status = 0
        self._parser = self._parser_factory(self._take_head, self._chunks.append, self._take_end)
        self._until = self._time() + self._deadlines.total
        self._expect(self._deadlines.first_byte)
        self._unsent = UnsentBody(body)
        self._transport.write(head + self._unsent.take())
        self._pump()

    async def head(self) -> None:
        """Wait until `status` and `headers` are the response's. Raises Stale, Broken, Timeout."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def read(self) -> bytes:
        """All of the body that has arrived since the last read; b"" is its end. Raises Broken, Timeout."""
        while not self._chunks:
            if self.state is ENDED or self.state is MUST_CLOSE:
                return b""
            if self._error is not None:
                raise self._error
            if self.state is PAUSED:
                self._resume()
            waiter = self._waiter  # as `_more`, which would be one more call a read
            await (self._more() if waiter.done() else waiter)
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self.state is PAUSED:
            self._resume()
        return data

    def pause_reading(self) -> None:
        """Leave what comes in the kernel until the next `read`."""
        if self.state is STREAMING:
            self._pause()

    def _more(self) -> Waiter:
        """Await it for a sign that it is worth another look."""
        if self._waiter.done():
            self._waiter = Waiter(loop=self._loop)
        return self._waiter

    # ---- the owner leaves

    def rest(self) -> None:
        """ENDED to IDLE: ready for another request."""
        self.state = IDLE
        self._parser = None
        self._forget()

    def drain(self, seconds: float) -> None:
        """Throw the rest of the body away; `on_settled` is told when it has ended, failed, or `seconds` are over."""
        if self.state is PAUSED:
            self._resume()
        self.state = DRAINING
        self._forget()
        self._expect(seconds)

    def abort(self) -> None:
        """Close now, without a word to anyone. May be called at any time, and again."""
        self._close(Broken(f"{self._peer}: the exchange is over"))
        self._forget()

    async def wait_closed(self) -> None:
        """Wait until the socket of an aborted connection is gone."""
        await asyncio.shield(self._lost)

    def _forget(self) -> None:
        self._chunks.clear()
        self._buffered = 0

    # ---- the request goes out

    def _pump(self) -> None:
        # An answer that refuses the request ends the writing of it (RFC 9112 section 9.3).
        for _ in range(BURST):
            if not self._unsent or self._congested or self.status >= 300 or self._transport.is_closing():
                return
            self._transport.write(self._unsent.take())
        self._loop.call_soon(self._pump)  # a transport may take it all at once, and nobody else would have a turn

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._pump()

    # ---- the response comes in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are that only by their methods
        if self.state is CLOSED:
            self._transport.abort()
        else:
            self.state = IDLE

    def data_received(self, data: bytes) -> None:
        before = self.state
        if before is SENT:
            self.state = HEAD
            self._expect(self._deadlines.silence)
        if self._parser is None or before is ENDED or before is MUST_CLOSE:
            return self._take_surplus()
        try:
            self._parser.feed(data)
        except Broken as exc:
            return self._fail(exc)
        self._buffered += len(data)
        if before is not STREAMING or self.state is not STREAMING:
            return self._took(before)
        self._deadline = self._time() + self._deadlines.silence  # as `_took`, once a token
        if self._buffered > HIGH_WATER:
            self._fill()
        return self._waiter.wake()

    def eof_received(self) -> None:
        """Returns None: the transport closes its side too."""
        before = self.state
        if before is IDLE or before is SENT or self._parser is None:
            return self._fail(self._hung_up("closed without an answer"))
        if before is ENDED or before is MUST_CLOSE:
            return self._take_surplus()
        try:
            self._parser.eof()
        except Broken as exc:
            return self._fail(exc)
        return self._took(before)

    def _took(self, before: State) -> None:
        state = self.state
        if state is STREAMING:
            self._deadline = self._time() + self._deadlines.silence
            if self._buffered > HIGH_WATER:
                self._fill()
        elif before is DRAINING:
            self._forget()
            if state is not DRAINING:
                self._on_settled(self)
            return
        self._waiter.wake()

    def _take_head(self, status: int, headers: ResponseHeaders) -> None:
        self.status, self.headers = status, headers
        self.state = STREAMING
        self.keep_alive.note(headers)

    def _take_end(self, reusable: bool) -> None:
        if self.state is PAUSED:
            self._resume()
        sent = not self._unsent and not self._transport.get_write_buffer_size()
        self.state = ENDED if reusable and sent else MUST_CLOSE
        self._unsent.clear()
        self._deadline = self._until = inf

    def _take_surplus(self) -> None:
        # Whatever comes while nobody asked, bytes or EOF: this connection has no future.
        if self.state is ENDED:
            self.state = MUST_CLOSE
        elif self.state is IDLE:
            self._fail(Broken(f"{self._peer}: bytes out of turn"))

    def _fill(self) -> None:
        if self._chunks:
            self._pause()
        else:  # chunk extensions or trailers, which nobody reads
            self._fail(TooLarge(f"the framing of the response body passed {HIGH_WATER} bytes"))

    def _pause(self) -> None:
        self.state = PAUSED
        self._deadline = inf
        self._transport.pause_reading()

    def _resume(self) -> None:
        self.state = STREAMING
        self._expect(self._deadlines.silence)
        self._transport.resume_reading()

    # ---- the end

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        if exc is not None and (self.state is SENT or self.state is HEAD):
            self._hear_out()
        if self.state is ENDED or self.state is MUST_CLOSE:
            self.state = MUST_CLOSE
        else:
            error = self._hung_up("connection lost" if exc is None else f"connection lost: {exc}")
            error.__cause__ = exc
            self._fail(error)

    def _hear_out(self) -> None:
        # A failed write makes the transport forget what it has not read, but the kernel still has it.
        for data in unread(self._transport):
            self.data_received(data)

    def _hung_up(self, what: str) -> Broken:
        # RFC 9110 section 9.2.2 forbids repeating a POST unless it is known not to have been acted on. A server that
        # closes a resting connection as our request crosses its FIN is the case that all clients take for known.
        unheard = self.state is SENT or self.state is CLOSED
        kind = Stale if unheard and self._requests > 1 else Broken
        return kind(f"{self._peer}: {what}")

    def _fail(self, error: UpstreamError) -> None:
        before = self.state
        self._close(error)
        if before is IDLE or before is DRAINING:
            self._on_settled(self)

    def _close(self, error: UpstreamError) -> None:
        before, self.state = self.state, CLOSED
        if before is CLOSED:
            return
        self._error = error
        self._parser = None
        self._unsent.clear()
        self._deadline = self._until = inf
        if self._timer is not None:
            self._timer.cancel()
        if before is not NEW:
            self._transport.abort()
        self._waiter.wake()

    # ---- deadlines

    def _expect(self, seconds: float) -> None:
        self._deadline = self._time() + seconds
        due = min(self._deadline, self._until)
        if self._timer is not None and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        due = min(self._deadline, self._until)
        if due == inf:
            return
        if self._time() < due:
            self._timer = self._loop.call_at(due, self._tick)
            return
        phase: Phase = "total" if due == self._until else "first byte" if self.state is SENT else "silence"
        self._fail(Timeout(phase, self._peer, getattr(self._deadlines, phase.replace(" ", "_"))))


def unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """What the peer said and nobody has read.

    Nothing for TLS, where only a server that lingers before it closes (as gateways do) is heard for certain.
    """
    raw = transport.get_extra_info("socket")
    if raw is None or transport.get_extra_info("sslcontext") is not None:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as peer:
        while data := peer.recv(_PIECE):
            yield data
