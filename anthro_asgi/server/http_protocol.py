"""One client connection: what uvicorn's two HTTP protocol classes lack, added to both by one mixin.

    bytes ──► RequestFraming ──► one valid request at a time ──► uvicorn's parser ──► its cycle, the application

    accepted ──► receiving ──► responding ──► idle (uvicorn's keep-alive timeout) ──► receiving …
        │            │              └─ the client reads no response data: disconnected by WriteStallTimer
        │            └─ too slow, too large or not HTTP: 408, 431 or 400, then lingering, then closed
        └─ no request in time: 408 too

A response is sent by uvicorn alone, through a HeadHolder. Nothing in this file runs for a token, except when writing
pauses.

To editors: the next request is held back until the response to the current one is complete. So `cycle` belongs to the
current request, or is None until its head has arrived. uvicorn reports a lost client only to the current cycle.
"""

import asyncio
import secrets
import select
import sys
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from importlib.util import find_spec
from typing import Final, cast

from .._native import CLIENT_TRANSPORT
from ..observability.logs import SCOPE_REFUSAL, RequestRecord, log_request
from ..observability.metrics import Metrics
from ..settings.options import Settings
from ..wire.errors import ApiError, InternalError, InvalidRequest, RequestTimeout
from ..wire.response_channel import CHANNEL
from .rare_event import RareEvent
from .read_control import ReadControl, Turns
from .request_framing import RequestFraming
from .uvicorn_internals import Cycle, UvicornProtocol
from .write_stall import WriteStallTimer

_MAX_HELD: Final = 64 * 1024  # bytes of further requests; with more, reading pauses
_LINGER: Final = 2.0  # seconds for a client to read an error response before the connection is aborted
_MAX_DROPPED: Final = 16 * 1024 * 1024  # bytes of a refused request that are read and dropped
_LAST_LOOK: Final = 0.1  # seconds after a deadline for bytes that the kernel holds already
_INFORMATIONAL: Final = b"HTTP/1.1 1"  # how a `100 Continue` begins, which is followed by the head of the response
_GRACE: Final = 1.0  # seconds at shutdown for a client whose next request may be on its way


class Channel:
    """The ResponseChannel of one request. It refers to no cycle of uvicorn: the scope of that refers to this.

    A body that is written here is chunked, as uvicorn writes it for HTTP/1.1 without a content-length.
    """

    __slots__ = ("_flow", "_head", "_write", "lost", "on_lost")

    def __init__(self, transport: asyncio.Transport, flow: ReadControl, head: "HeadHolder") -> None:
        self._write = transport.write
        self._flow = flow
        self._head = head
        self.lost = False
        self.on_lost: Callable[[], None] | None = None

    def write(self, data: bytes) -> bool:
        """See ResponseChannel. Not written are an empty piece, which would end the body, and what has to wait."""
        if self._flow.write_paused or self.lost or not data or not self._head.written:
            return False
        self._write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def lose(self) -> None:
        """The client has disconnected. A second call has no effect: each call of `on_lost` cancels a task once more."""
        if not self.lost:
            self.lost = True
            if self.on_lost is not None:
                self.on_lost()


class HeadHolder:
    """Stands for the transport in one cycle of uvicorn: writes the head of a response with its first body bytes.

    uvicorn writes the head alone, which is a system call more for each response. ASGI asks servers to wait for the
    first body message, which may be empty. An application may fail before it; the head is then written before the
    connection is closed.
    """

    __slots__ = ("_held", "_transport", "written")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""  # the head
        self.written = False  # whether the head has been written

    def write(self, data: bytes) -> None:
        if not self.written:
            if not self._held and not data.startswith(_INFORMATIONAL):
                self._held = data
                return
            if self._held:
                self.written = True
                data, self._held = self._held + data, b""
        self._transport.write(data)

    def flush(self) -> None:
        """Write the head if it is held: no body follows."""
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class StrictProtocolMixin(UvicornProtocol):
    """The mixin, which precedes uvicorn's class. `settings`, `metrics` and `turns` are those of the process."""

    settings: Settings
    metrics: Metrics
    turns: Turns
    flow: ReadControl
    # With more than 30 attributes in its dictionary, each connection would have one of 1.5 KiB.
    __slots__ = (
        "_channel",
        "_deferred",
        "_dropped",
        "_framing",
        "_head",
        "_idle_since",
        "_lingering",
        "_looked",
        "_stall",
        "_stopping",
        "_timer",
    )

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(transport)
        self.flow = ReadControl(transport, self.loop)
        self.flow._is_writable_event = RareEvent(is_set=True)  # type: ignore[assignment]  # has the methods that are used
        self._framing = RequestFraming(self.settings.max_head)
        self._stall = WriteStallTimer(transport, self.settings.stall_deadline, self.loop)
        self._idle_since = self.loop.time()
        self._stopping = False
        self._lingering = False
        self._deferred = False  # bytes wait for their turn
        self._dropped = 0  # bytes
        self._timer: asyncio.TimerHandle | None = None
        self._channel: Channel | None = None  # of the current request
        self._head: HeadHolder | None = None  # as above
        self._start_receive_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose_channel()
        self._cancel_timer()
        self._stall.end()
        self.flow.end()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.resumed()

    # a request arrives

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._drop(data)
        elif self._deferred:
            self._framing.hold(data)
        else:
            self._feed_in_turn(data)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _MAX_DROPPED:
            self.transport.abort()

    def _feed_in_turn(self, data: bytes) -> None:
        if self.turns.take(self.loop):
            self._feed(data)
        else:
            self._framing.hold(data)
            self._defer()

    def _defer(self) -> None:
        """Handle the held bytes later, and read no more until then, so that other connections can go on."""
        self._deferred = True
        self.flow.hold()
        self.turns.add(self._on_turn, self.loop)

    def _on_turn(self) -> None:
        self._deferred = False
        if not self.transport.is_closing():
            self.flow.release()
            if not self._lingering:
                self._feed(b"")

    def _feed(self, data: bytes) -> None:
        framing = self._framing
        try:
            piece = framing.feed(data)
            if piece:
                super().data_received(piece)
                if self._head is None and self.cycle is not None:
                    self._open_response(self.cycle)
        except ApiError as exc:
            self._refuse(exc)
            return
        except MemoryError:
            self._refuse(_out_of_memory())
            return
        if self._lingering:
            return
        if framing.unfinished:
            self._defer()
        if framing.whole:
            self._cancel_timer()
            if framing.held > _MAX_HELD:
                self.flow.pause_reading()
            # the response may be complete before the whole request has arrived
            if piece and self.cycle is not None and self.cycle.response_complete:
                self._next_request()
        elif framing.begun:
            self._unset_keepalive_if_required()
            self._start_receive_deadline()
        elif self._stopping:
            self._close_if_idle()

    def _open_response(self, cycle: Cycle) -> None:
        """Offer a ResponseChannel to the application, which starts in the next iteration of the event loop."""
        self._head = cycle.transport = head = HeadHolder(self.transport)
        cycle.message_event = RareEvent(is_set=cycle.message_event.is_set())
        if cycle.scope["http_version"] == "1.1" and cycle.scope["method"] != "HEAD":
            self._channel = cycle.scope[CHANNEL] = Channel(self.transport, self.flow, head)

    def _lose_channel(self) -> None:
        """The client of the current request disconnects, unless the response is complete."""
        if self._channel is not None and self.cycle is not None and not self.cycle.response_complete:
            self._channel.lose()

    def _start_receive_deadline(self) -> None:
        if self._timer is None:
            self._looked = False
            self._timer = self.loop.call_later(self.settings.receive_deadline, self._on_receive_deadline)

    def timeout_keep_alive_handler(self) -> None:
        """Replaces uvicorn's. The connection stays open if a request has arrived that is not handled yet."""
        if not self.transport.is_closing():
            if self._deferred or self._has_unread():
                self.timeout_keep_alive_task = self.loop.call_later(_LAST_LOOK, self.timeout_keep_alive_handler)
            else:
                self.transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_receive_deadline(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # we do not read, so the client is not to blame
            self._start_receive_deadline()
        elif not self._looked and self._has_unread():  # the process was stopped; the event loop reads these bytes next
            self._looked = True
            self._timer = self.loop.call_later(_LAST_LOOK, self._on_receive_deadline)
        else:
            self._refuse(RequestTimeout(f"the request did not arrive within {self.settings.receive_deadline:g} s"))

    # a request is refused before it reaches the application

    def send_400_response(self, msg: str) -> None:
        """Replaces uvicorn's. The parser refused a request that RequestFraming accepted, or memory is exhausted."""
        cause = sys.exception()
        while cause is not None and not isinstance(cause, MemoryError):
            cause = cause.__context__
        self._refuse(InvalidRequest("the request is not valid HTTP/1.1") if cause is None else _out_of_memory())

    def _refuse(self, error: ApiError) -> None:
        """Send an error response unless a response has started, and close. The application sees a disconnect."""
        cycle = self.cycle
        if cycle is None or not cycle.response_started:
            self._send_error(error)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            self._lose_channel()
        self._linger()

    def _send_error(self, error: ApiError) -> None:
        record = RequestRecord("-", "-", f"req_{secrets.token_urlsafe(18)}", status=error.status)
        record.error_type, record.error = error.type, type(error).__name__
        body = error.body(record.request_id)
        headers = {
            "date": formatdate(usegmt=True),
            "content-type": "application/json",
            "request-id": record.request_id,
            "content-length": str(len(body)),
            "connection": "close",
            **dict(error.headers),
        }
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *map(": ".join, headers.items())]
        self.transport.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)
        if self.cycle is not None:  # the application counts and logs the request
            self.cycle.scope[SCOPE_REFUSAL] = record
            return
        self.metrics.request_began()
        self.metrics.request_ended(record)
        log_request(record)

    def _linger(self) -> None:
        """Read and drop what the client still sends, until it closes or _LINGER seconds are over.

        If the connection were closed with bytes unread, the kernel would send a reset, and the client might lose the
        error response.
        """
        self._cancel_timer()
        self._unset_keepalive_if_required()
        self._lingering = True
        self._flush_head()
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the client has reset the connection, which is not reported yet
                self.transport.abort()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)

    # a response is complete

    def on_response_complete(self) -> None:
        self._flush_head()
        super().on_response_complete()  # type: ignore[misc]  # a method of uvicorn's class, which follows this mixin
        if self.transport.get_write_buffer_size():
            self._stall.begin()
        if self.transport.is_closing() or self._lingering:
            return
        if self._framing.whole:
            self._next_request()
        elif self._framing.expects or self._framing.remainder > _MAX_DROPPED:
            # With `expects` the next bytes may be the body or another request. A chunked body is not parsed any more.
            self._linger()
        else:  # the rest of the request is read, within the receive deadline, and dropped
            self._unset_keepalive_if_required()

    def _flush_head(self) -> None:
        if self._head is not None:
            self._head.flush()

    def _next_request(self) -> None:
        """Go on to the next request, of which bytes may be held already."""
        self.cycle = self._channel = self._head = None
        self._idle_since = self.loop.time()
        self._framing.advance()
        if self._framing.held:
            self._feed_in_turn(b"")
        elif self._stopping:
            self._close_if_idle()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # the service stops

    def shutdown(self) -> None:
        """Close the connection as soon as it has no request."""
        self._stopping = True
        if not self._lingering:
            self._close_if_idle()

    def close_unless_responding(self) -> None:
        """Close the connection at once if the head of its next request has not arrived."""
        if self.cycle is None and not self._lingering:
            self.transport.close()

    def _close_if_idle(self) -> None:
        """Close now, or later: a client that has just connected or got a response may have sent a request already."""
        if self.transport.is_closing() or self._framing.begun or self._has_unread():
            return
        left = self._idle_since + _GRACE - self.loop.time()
        if left > 0:
            self.loop.call_later(left, self._close_if_idle)
        else:
            self.transport.close()

    def _has_unread(self) -> bool:
        """Whether the kernel holds bytes, or an EOF, that are not read yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _out_of_memory() -> ApiError:
    return InternalError("the service is out of memory", reason=MemoryError.__name__)


class _UntilClose(int):
    """The length of a response body that ends when the connection is closed: larger than any, and reached by any."""

    def __lt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __sub__(self, other: int) -> "_UntilClose":
        return self

    __hash__ = int.__hash__


def protocol_class(settings: Settings, metrics: Metrics) -> type[StrictProtocolMixin]:
    """The connection class of a process: on httptools if that is installed."""
    base = _httptools_class() if find_spec("httptools") else h11_class()
    members = {"settings": settings, "metrics": metrics, "turns": Turns()}
    return cast(type[StrictProtocolMixin], type(base.__name__, (base,), members))


# Each parser's module is imported only where it is used. For the type checker the mixin declares uvicorn's members with
# looser types than uvicorn's two classes, which differ.
def h11_class() -> type[StrictProtocolMixin]:
    """The connection class on h11, which is always installed."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class StrictH11Protocol(StrictProtocolMixin, H11Protocol):  # type: ignore[misc]
        """On h11."""

    return StrictH11Protocol


def _httptools_class() -> type[StrictProtocolMixin]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # needs httptools

    class StrictHttpToolsProtocol(StrictProtocolMixin, HttpToolsProtocol):  # type: ignore[misc]  # as above
        """On httptools, which is faster."""

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            cycle = self.cycle
            if cycle is not None and cycle.scope["http_version"] == "1.0":
                # HTTP/1.0 has no chunks (RFC 9112 section 7.1). uvicorn would use them for a response without a length.
                cycle.chunked_encoding = False  # type: ignore[attr-defined]  # of this parser's cycle
                cycle.expected_content_length = _UntilClose()  # type: ignore[attr-defined]
            elif cycle is not None:
                cycle.scope[CLIENT_TRANSPORT] = self.transport

    return StrictHttpToolsProtocol
