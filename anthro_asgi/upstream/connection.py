"""One HTTP/1.1 connection to an engine: writes a request and returns its response as it arrives.

A connection is always in exactly one state. These are the states and all transitions:

    NEW ──► IDLE ──► SENT ──► HEAD ──► STREAMING ◄──► PAUSED          each of them ──► CLOSED
              ▲                            │
              │                            ├──► DRAINING ──┐
              └────────── ENDED ◄──────────┴───────────────┤
                           MUST_CLOSE ◄────────────────────┘

    NEW         not connected yet
    IDLE        connected, no request: a byte or an EOF from the peer closes the connection
    SENT        the request is being written or is written; no response byte has arrived
    HEAD        response bytes have arrived, the response head is not complete
    STREAMING   the head is complete, the body is arriving
    PAUSED      as STREAMING, but nothing is read from the socket: the reader is behind by more than HIGH_WATER, or it
                asked for a pause
    DRAINING    the owner has left; the body is dropped so that the connection can be used again
    ENDED       the response is complete, another request may follow
    MUST_CLOSE  the response is complete, no request may follow
    CLOSED      the connection is over; `read` returns what had arrived and then raises

A connection has one owner at a time. The owner calls `send_request`, `wait_for_head` and `read` in that order, and then
`recycle`, `drain` or `abort`. A connection without an owner (IDLE, DRAINING) calls `on_settled` when it is closed or
drained.

Body chunks are collected: a reader that was busy while ten chunks arrived gets them as one. A reader that waits, awaits
a future that only means "check again". Errors are kept in the connection and never set on that future, so no exception
can be left unretrieved.

There are two deadlines, one for the next byte and one for the whole response, and one timer that compares both with the
clock when it fires. A read therefore costs one addition; a timer or a timeout context for each read would cost as much
as the read itself. In PAUSED only the deadline of the whole response counts, because the delay is not the engine's.

A request body is written as fast as the transport accepts it. A server that refuses a body (413) and closes makes our
next write fail, perhaps before its response was read. So when a connection is lost before its response was read, the
bytes that the kernel still holds are read first.

To editors: never half-close the connection. Engines treat an EOF as a client that has disconnected.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from enum import Enum
from math import inf
from typing import Any, Protocol, cast

from .errors import Broken, Phase, Stale, Timeout, TooLarge, UpstreamError
from .http_parsers import Parser, ParserFactory, ResponseHeaders
from .keepalive import KeepAlive
from .origin import Deadlines
from .request import SLICES_PER_YIELD, UnsentBody

HIGH_WATER = 64 * 1024  # bytes received that the reader has not taken
_RECV_SIZE = 64 * 1024  # bytes
_AT_ONCE = 1.0  # seconds; a server that had closed an idle connection resets it within one round trip
_LAST_LOOK = 0.1  # seconds after a deadline for bytes that the kernel holds already

State = Enum("State", "NEW IDLE SENT HEAD STREAMING PAUSED DRAINING ENDED MUST_CLOSE CLOSED")
# module globals, because a global is cheaper to look up than an attribute of the class
NEW, IDLE, SENT, HEAD, STREAMING, PAUSED, DRAINING, ENDED, MUST_CLOSE, CLOSED = State


class Waiter(asyncio.Future[None]):
    """A future that means "check again". It carries no result.

    Code that awaits it may set `resume`. `wake` then calls `resume` instead of setting a result, so that the same
    future can be awaited again. `waits` is True while something awaits it.
    """

    __slots__ = ("resume", "waits")

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.resume: Callable[[], None] | None = None
        self.waits = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # the mark by which a task recognises a future
        self.waits = True
        try:
            yield self
        finally:
            self.waits = False

    def wake(self) -> None:
        """Wake the waiting reader, if any."""
        if self.waits:
            if self.resume is not None:
                self.resume()
            elif not self.done():
                self.set_result(None)


class BodyReader(Protocol):
    """A protocol that a connection hands its transport to. `last_read` is the time of its last read, on the loop."""

    @property
    def last_read(self) -> float: ...


class Connection(asyncio.Protocol):
    """See the module. `peer` is the address that error texts show. Create it inside a running event loop."""

    __slots__ = (
        "_awaits_output",
        "_body_reader",
        "_buffered",
        "_chunks",
        "_deadline",
        "_deadlines",
        "_doubt_at",
        "_error",
        "_is_flooded",
        "_is_lent",
        "_looked_at",
        "_loop",
        "_lost",
        "_may_have_worked",
        "_on_settled",
        "_parser",
        "_parser_factory",
        "_peer",
        "_requests",
        "_silence",
        "_time",
        "_timer",
        "_timer_due",
        "_total_deadline",
        "_transport",
        "_unsent",
        "_waiter",
        "_write_paused",
        "headers",
        "keep_alive",
        "state",
        "status",
    )

    def __init__(
        self, peer: str, deadlines: Deadlines, parser: ParserFactory, on_settled: "Callable[[Connection], None]"
    ) -> None:
        self.state = NEW
        self.status = 0  # of the response; 0 until its head is complete
        self.headers: ResponseHeaders = []
        self.keep_alive = KeepAlive()
        self._peer = peer
        self._deadlines = deadlines
        self._parser_factory = parser
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._transport: asyncio.Transport  # set from IDLE on
        self._lost = self._loop.create_future()
        self._parser: Parser | None = None
        self._requests = 0
        self._may_have_worked = False  # the engine has had the current request for `_AT_ONCE`
        self._doubt_at = inf  # when that becomes true, on the event loop's clock
        self._unsent = UnsentBody()
        self._write_paused = False
        self._is_flooded = False  # more than HIGH_WATER arrived at once: read again in the next iteration of the loop
        self._chunks: list[bytes] = []
        self._buffered = 0  # bytes received since the last read, framing included
        self._waiter = Waiter(loop=self._loop)
        self._error: UpstreamError | None = None
        self._silence = deadlines.silence  # seconds that may pass between two reads of the response
        self._awaits_output = False
        self._deadline = inf  # for what is awaited now
        self._total_deadline = inf  # for the whole response
        self._looked_at = inf  # the deadline after which the socket was looked at once more
        self._timer: asyncio.Handle | None = None
        self._timer_due = inf  # uvloop has timers that cannot say this: those that are due within half a millisecond
        self._body_reader: BodyReader | None = None  # receives the bytes instead of this connection
        self._is_lent = False  # and reads them from the socket itself

    @property
    def is_reused(self) -> bool:
        """Whether an earlier request was answered on this connection."""
        return self._requests > 1

    def __repr__(self) -> str:
        return (
            f"<Connection {self._peer} {self.state.name.lower()} requests={self._requests}"
            f" unsent={len(self._unsent)} buffered={self._buffered}>"
        )

    # ---- the owner sends and reads

    def send_request(self, head: bytes, body: bytes | list[bytes]) -> None:
        """Write a request. `head` states the length of `body`. Raises Stale or Broken if the peer has closed."""
        self._requests += 1
        if self.state is not IDLE:
            raise self._closed_error("the peer closed the connection before the request was sent")
        self.state = SENT
        self.status = 0
        self._parser = self._parser_factory(self._on_head, self._chunks.append, self._on_end)
        self._silence = self._deadlines.silence
        self._awaits_output = False
        now = self._time()
        self._may_have_worked = False
        self._doubt_at = now + _AT_ONCE if self._requests > 1 else inf
        self._total_deadline = now + self._deadlines.total
        self._set_deadline(self._deadlines.first_byte)
        self._unsent = UnsentBody(body)
        self._transport.write(head + self._unsent.take())
        self._write_body()

    async def wait_for_head(self) -> None:
        """Wait until `status` and `headers` are those of the response. Raises Stale, Broken, Timeout."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._fresh_waiter()

    async def read(self) -> bytes:
        """All body bytes that have arrived since the last read; b"" is the end. Raises Broken, Timeout."""
        while not self._chunks:
            if self.state is ENDED or self.state is MUST_CLOSE:
                return b""
            if self._error is not None:
                raise self._error
            if self.state is PAUSED:
                self._resume()
            waiter = self._waiter  # the check of `_fresh_waiter`, without a call for each read
            await (self._fresh_waiter() if waiter.done() else waiter)
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self.state is PAUSED:
            self._resume()
        return data

    def await_output(self) -> None:
        """Allow the engine the time of `first_byte` until `output_began`, if that is longer than `silence`.

        It has sent the head of its response, and perhaps more, but no output: it may still read the prompt.
        """
        self._awaits_output = True
        self._change_silence(max(self._deadlines.first_byte, self._deadlines.silence))

    def output_began(self) -> None:
        """The first output has arrived: from now on the deadline `silence` applies."""
        if self._awaits_output:
            self._awaits_output = False
            self._change_silence(self._deadlines.silence)

    def _change_silence(self, seconds: float) -> None:
        self._silence = seconds
        if self.state is HEAD or self.state is STREAMING:
            self._set_deadline(seconds)

    def pause_reading(self) -> None:
        """Leave further bytes in the kernel until the next `read`."""
        if self.state is STREAMING:
            self._pause()

    # ---- another protocol reads the body for a while

    def hand_over(self, protocol: BodyReader) -> bool:
        """Let `protocol` receive the bytes of the body from the transport, until `take_back`. Returns whether it does.

        The next byte begins an HTTP chunk. It must leave whole chunks to the connection: it calls `take_back` and then
        `data_received` with the bytes that it has not used. Deadlines go on; its `last_read` counts for them.
        """
        if not self._may_hand_over():
            return False
        self._body_reader = protocol
        self._transport.set_protocol(cast(asyncio.Protocol, protocol))  # it has the methods but not the base class
        return True

    def lend(self, reader: BodyReader) -> int:
        """Let `reader` read the body from the socket itself, until `take_back`. As `hand_over` otherwise.

        Returns the socket's descriptor; -1 if that is not possible, as with TLS. The transport is paused meanwhile, so
        it notices no end and no error either: after one the reader reads no further, and `take_back` is called.
        """
        transport = self._transport
        sock = transport.get_extra_info("socket") if transport.get_extra_info("sslcontext") is None else None
        if sock is None or not self._may_hand_over():
            return -1
        self._body_reader = reader
        self._is_lent = True
        transport.pause_reading()
        descriptor: int = sock.fileno()
        return descriptor

    def _may_hand_over(self) -> bool:
        if self.state is PAUSED and not self._chunks:
            self._resume()
        if self.state is not STREAMING or self._chunks or self._unsent or self._transport.is_closing():
            return False
        return self._parser is not None and self._parser.between_chunks

    def take_back(self) -> None:
        """Receive bytes from the transport again."""
        if self._body_reader is None:
            return
        self._note_body_reader()
        self._body_reader = None
        if not self._is_lent:
            self._transport.set_protocol(self)
        else:
            self._is_lent = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _note_body_reader(self) -> None:
        if self._body_reader is not None and self.state is STREAMING:
            self._deadline = max(self._deadline, self._body_reader.last_read + self._silence)

    def slow_down(self, seconds: float) -> asyncio.TimerHandle:
        """Read nothing for `seconds`. Cancel the handle, and call `speed_up`, to read again before that."""
        self._transport.pause_reading()
        return self._loop.call_later(seconds, self._transport.resume_reading)

    def speed_up(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def _fresh_waiter(self) -> Waiter:
        """A waiter that is not done."""
        if self._waiter.done():
            self._waiter = Waiter(loop=self._loop)
        return self._waiter

    # ---- the owner releases the connection

    def recycle(self) -> None:
        """ENDED to IDLE: ready for another request."""
        self.state = IDLE
        self._parser = None
        self._drop_chunks()

    def has_unread(self) -> bool:
        """Whether the kernel holds bytes, or an EOF, that the event loop has not read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def drain(self, seconds: float) -> None:
        """Drop the rest of the body. Calls `on_settled` when the body has ended or failed, or after `seconds`."""
        if self.state is PAUSED:
            self._is_flooded = False
            self._resume()
        self.state = DRAINING
        self._drop_chunks()
        self._set_deadline(seconds)

    def abort(self) -> None:
        """Close at once, without `on_settled`. May be called in any state, and again."""
        self._close(Broken(f"{self._peer}: the exchange is over"))
        self._drop_chunks()

    def discard(self) -> None:
        """Abort, and forget the failure. Its traceback refers to this connection: a cycle for the garbage collector."""
        self.abort()
        self._error = None

    async def wait_closed(self) -> None:
        """Wait until the socket of an aborted connection is closed."""
        await asyncio.shield(self._lost)

    def _drop_chunks(self) -> None:
        self._chunks.clear()
        self._buffered = 0

    # ---- writing the request

    def _write_body(self) -> None:
        # A response that refuses the request ends the writing of its body (RFC 9112 section 9.3).
        for _ in range(SLICES_PER_YIELD):
            if not self._unsent or self._write_paused or self.status >= 300 or self._transport.is_closing():
                return
            self._transport.write(self._unsent.take())
        # A transport may accept everything at once; without this yield no other callback would run meanwhile.
        self._loop.call_soon(self._write_body)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._write_body()

    # ---- the response arrives

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have the methods but not the base class
        if self.state is CLOSED:
            self._transport.abort()
        else:
            self.state = IDLE

    def data_received(self, data: bytes) -> None:
        before = self.state
        if before is SENT:
            self.state = HEAD
            self._set_deadline(self._silence)
        if self._parser is None or before is ENDED or before is MUST_CLOSE:
            return self._on_surplus()
        try:
            self._parser.feed(data)
        except Broken as exc:
            return self._fail(exc)
        self._buffered += len(data)
        if before is not STREAMING or self.state is not STREAMING:
            return self._after_feed(before)
        self._deadline = self._time() + self._silence  # as in `_after_feed`, without a call for each token
        if self._buffered > HIGH_WATER:
            self._on_high_water()
        return self._waiter.wake()

    def eof_received(self) -> None:
        """Returns None, so that the transport closes our side too."""
        before = self.state
        if before is IDLE or before is SENT or self._parser is None:
            return self._fail(self._closed_error("the peer closed the connection without a response"))
        if before is ENDED or before is MUST_CLOSE:
            return self._on_surplus()
        try:
            self._parser.eof()
        except Broken as exc:
            return self._fail(exc)
        return self._after_feed(before)

    def _after_feed(self, before: State) -> None:
        state = self.state
        if state is STREAMING:
            self._deadline = self._time() + self._silence
            if self._buffered > HIGH_WATER:
                self._on_high_water()
        elif before is DRAINING:
            self._drop_chunks()
            if state is not DRAINING:
                self._on_settled(self)
            return
        self._waiter.wake()

    def _on_head(self, status: int, headers: ResponseHeaders) -> None:
        self.status, self.headers = status, headers
        self.state = STREAMING
        self.keep_alive.update(headers)

    def _on_end(self, reusable: bool) -> None:
        if self.state is PAUSED:
            self._is_flooded = False
            self._resume()
        sent = not self._unsent and not self._transport.get_write_buffer_size()
        self.state = ENDED if reusable and sent else MUST_CLOSE
        self._unsent.clear()
        self._deadline = self._total_deadline = inf

    def _on_surplus(self) -> None:
        # Bytes or an EOF arrived without a request: this connection must not be used again.
        if self.state is ENDED:
            self.state = MUST_CLOSE
        elif self.state is IDLE:
            self._fail(Broken(f"{self._peer}: bytes arrived without a request"))

    def _on_high_water(self) -> None:
        if self._chunks:
            self._is_flooded = True
            self._pause()
        else:  # only chunk extensions or trailers, which a reader never takes
            self._fail(TooLarge(f"the framing of the response body is larger than {HIGH_WATER} bytes"))

    def _pause(self) -> None:
        self.state = PAUSED
        self._deadline = inf
        self._transport.pause_reading()

    def _resume(self) -> None:
        # The reader may run inside `data_received`. After a flood the transport would go on with further reads at once,
        # and the event loop would serve nothing else.
        if self._is_flooded:
            self._loop.call_soon(self._resume_after_flood)
            return
        self.state = STREAMING
        self._set_deadline(self._silence)
        self._transport.resume_reading()

    def _resume_after_flood(self) -> None:
        is_flooded, self._is_flooded = self._is_flooded, False
        if is_flooded and self.state is PAUSED and not self._chunks:
            self._resume()

    # ---- closing

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        if exc is not None and (self.state is SENT or self.state is HEAD):
            # A failed write makes the transport drop what it has not read, but the kernel still holds it.
            for data in _unread(self._transport):
                self.data_received(data)
        if self.state is ENDED or self.state is MUST_CLOSE:
            self.state = MUST_CLOSE
        else:
            error = self._closed_error("connection lost" if exc is None else f"connection lost: {exc}")
            error.__cause__ = exc
            self._fail(error)

    def _closed_error(self, what: str) -> Broken:
        # RFC 9110 section 9.2.2 forbids repeating a POST unless the server is known not to have acted on it. Clients
        # in general accept one case as known: the server closed an idle connection while our request was in flight.
        # Then the loss is noticed at once. A later one may mean that the engine has worked on the request and crashed.
        # A timer decides what is late, so that a loss counts as early if the process was stopped when it arrived.
        unsent = self.state is CLOSED
        unseen = self.state is SENT and not self._may_have_worked
        kind = Stale if self._requests > 1 and (unsent or unseen) else Broken
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
        if self._parser is not None:
            self._parser.close()
            self._parser = None
        self._unsent.clear()
        self._deadline = self._total_deadline = inf
        if self._timer is not None:
            self._timer.cancel()
        if before is not NEW:
            self._transport.abort()
        self._waiter.wake()

    # ---- deadlines

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self._time() + seconds
        due = min(self._deadline, self._total_deadline, self._doubt_at)
        if self._timer is not None and self._timer_due > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._start_timer(due)

    def _start_timer(self, due: float) -> None:
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._note_body_reader()
        due = min(self._deadline, self._total_deadline)
        if due == inf:
            return
        now = self._time()
        if now >= self._doubt_at:
            self._doubt_at = inf
            self._may_have_worked = self.state is not SENT or not self.has_unread()
        if now < due:
            self._start_timer(min(due, self._doubt_at))
            return
        if due != self._looked_at and self.has_unread():
            # The process was stopped or blocked, and the timer fires before the event loop reads what has arrived.
            self._looked_at = due
            self._start_timer(now + _LAST_LOOK)
            return
        if self._body_reader is not None:  # a thread may have read those bytes since the deadline was compared
            self._note_body_reader()
            later = min(self._deadline, self._total_deadline)
            if later > now:
                self._start_timer(later)
                return
        phase: Phase = "silence"
        seconds = self._silence
        if due == self._total_deadline:
            phase, seconds = "total", self._deadlines.total
        elif self.state is SENT:
            phase, seconds = "first byte", self._deadlines.first_byte
        elif self._awaits_output:
            phase = "first byte"
        self._fail(Timeout(phase, self._peer, seconds))


def _unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """What the peer sent and the transport has not read.

    Yields nothing for TLS. There the response survives only if the server delays its close, as gateways do.
    """
    raw = transport.get_extra_info("socket")
    if raw is None or transport.get_extra_info("sslcontext") is not None:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as peer:
        while data := peer.recv(_RECV_SIZE):
            yield data
