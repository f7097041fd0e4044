"""One connection of a client: what uvicorn's two HTTP protocols lack, given to both by one mixin.

    bytes ──► RequestFraming ──► one request at a time, beyond doubt ──► uvicorn's parser ──► its cycle, the application

    accepted ──► a request comes ──► it is answered ──► idle (uvicorn's keep-alive timeout) ──► a request comes …
        │               │                   └─ a client that takes nothing of it is cut off: WriteStallTimer
        │               └─ too slow, too large or no HTTP: 408, 431 or 400; the connection lingers, and is closed
        └─ says nothing: too slow

An answer goes uvicorn's own way: nothing here is called for a token, but where writing pauses.

Editors: the next request is held until the answer to this one is complete, so `cycle` is this request's, or None until
its head has come. uvicorn tells no other of a lost client.
"""

import asyncio
import secrets
import select
from email.utils import formatdate
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from ..observability.logs import SCOPE_REFUSAL, RequestRecord, log_request
from ..settings.options import Settings
from ..wire.errors import ApiError, InvalidRequest, RequestTimeout
from .request_framing import RequestFraming
from .write_stall import WriteStallTimer

_HELD: Final = 64 * 1024  # bytes of further requests from which on no more are read
_LINGER: Final = 2.0  # seconds for a client to read what it was told before it is hung up on
_GRACE: Final = 1.0  # seconds in which a client that was not told of our end may be about to send its next request


class StrictProtocolMixin(asyncio.Protocol):
    """The mixin. It stands before uvicorn's class. `settings` are the process's."""

    settings: Settings

    # what uvicorn's class has
    app: Any
    cycle: Any
    flow: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    timeout_keep_alive: float
    timeout_keep_alive_handler: Any
    timeout_keep_alive_task: asyncio.TimerHandle | None
    _unset_keepalive_if_required: Any

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._framing = RequestFraming(self.settings.max_head)
        self._stall = WriteStallTimer(transport, self.settings.stall_deadline, self.loop)
        self._idle_since = self.loop.time()
        self._stopping = self._lingering = False
        self._timer: asyncio.TimerHandle | None = None
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        self._stall.end()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.resumed()

    # a request comes

    def data_received(self, data: bytes) -> None:
        if not self._lingering:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        framing = self._framing
        try:
            piece = framing.feed(data)
        except ApiError as exc:
            self._refuse(exc)
            return
        if piece:
            super().data_received(piece)
        if self._lingering:
            return
        if framing.whole:
            self._relax()
            if framing.held > _HELD:
                self.flow.pause_reading()
            if piece and self.cycle.response_complete:  # it was answered before all of it was there
                self._go_on()
        elif framing.begun:
            self._unset_keepalive_if_required()
            self._await_request()
        elif self._stopping:
            self._end_if_idle()

    def _await_request(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.settings.receive_deadline, self._too_late)

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is not the client that is slow
            self._await_request()
        else:
            self._refuse(RequestTimeout(f"the request did not arrive within {self.settings.receive_deadline:g} s"))

    # a request is not for the application

    def send_400_response(self, _: str) -> None:
        """In place of uvicorn's: the parser refuses what was judged to be sound."""
        self._refuse(InvalidRequest("the request is no HTTP/1.1"))

    def _refuse(self, error: ApiError) -> None:
        """Tell the client, unless an answer has begun, and hang up. The application hears that its client is gone."""
        cycle = self.cycle
        if cycle is None or not cycle.response_started:
            self._tell(error)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._linger()

    def _tell(self, error: ApiError) -> None:
        record = RequestRecord("-", "-", f"req_{secrets.token_urlsafe(18)}", status=error.status)
        record.error_type, record.error = error.type, type(error).__name__
        body = error.body(record.request_id)
        fields = {
            "date": formatdate(usegmt=True),
            "content-type": "application/json",
            "request-id": record.request_id,
            "content-length": str(len(body)),
            "connection": "close",
            **dict(error.headers),
        }
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *map(": ".join, fields.items())]
        self.transport.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)
        if self.cycle is not None:  # the application counts and logs it
            self.cycle.scope[SCOPE_REFUSAL] = record
            return
        self.app.metrics.request_began()
        self.app.metrics.request_ended(record)
        log_request(record)

    def _linger(self) -> None:
        """Hang up once the client has. What it still sends would, if nobody read it, take back what it was told."""
        self._relax()
        self._unset_keepalive_if_required()
        self._lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)

    # a request is answered

    def on_response_complete(self) -> None:
        super().on_response_complete()  # type: ignore[misc]  # uvicorn's
        if self.transport.get_write_buffer_size():
            self._stall.begin()
        if self.transport.is_closing() or self._lingering:
            return
        if self._framing.whole:
            self._go_on()
        elif self._framing.expects:  # what comes next may be the body or, just as well, another request
            self._linger()
        else:  # the rest is read, in its time, and thrown away
            self._unset_keepalive_if_required()

    def _go_on(self) -> None:
        """To the next request, of which something may be here already."""
        self.cycle = None
        self._idle_since = self.loop.time()
        self._framing.advance()
        if self._framing.held:
            self._feed(b"")
        elif self._stopping:
            self._end_if_idle()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # the service stops

    def shutdown(self) -> None:
        """Close the connection once it has no request to answer."""
        self._stopping = True
        if not self._lingering:
            self._end_if_idle()

    def hurry(self) -> None:
        """Wait no longer for a request that has not come."""
        if self.cycle is None and not self._lingering:
            self.transport.close()

    def _end_if_idle(self) -> None:
        """Or later: who connected just now, or was just answered, may have sent a request that is not here yet."""
        if self.transport.is_closing() or self._framing.begun or self._has_sent():
            return
        left = self._idle_since + _GRACE - self.loop.time()
        if left > 0:
            self.loop.call_later(left, self._end_if_idle)
        else:
            self.transport.close()

    def _has_sent(self) -> bool:
        """Whether there is something that was not read yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


class StrictH11Protocol(StrictProtocolMixin, H11Protocol):  # type: ignore[misc]  # what the mixin names is of uvicorn's own types
    """The one that is always there."""


def protocol_class(settings: Settings) -> type[asyncio.Protocol]:
    """The class of a process's connections: on httptools where that is installed."""
    base: type[asyncio.Protocol] = StrictH11Protocol
    if find_spec("httptools"):
        base = _on_httptools()
    return type(base.__name__, (base,), {"settings": settings})


def _on_httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class StrictHttpToolsProtocol(StrictProtocolMixin, HttpToolsProtocol):  # type: ignore[misc]
        """The quick one."""

    return StrictHttpToolsProtocol
