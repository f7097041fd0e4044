"""One stream from an engine's bytes to the client's, with and without a pump. No sockets.

    relayed(reads, pumped=False) == relayed(reads, pumped=True)

`reads` are the bytes of an HTTP body in chunks (RFC 9112 section 7.1), as the kernel delivers them. The parts are the
real ones: the HTTP parser, FastChunkReader, StreamEncoder and the pump. What connects them is `engines.openai.engine`,
`engines.openai.token_relay` and `http.message_response` without their waiting.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from anthro_asgi import _native
from anthro_asgi._native import NewPump, Pump
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.upstream.errors import UpstreamError
from anthro_asgi.upstream.http_parsers import ChunkTrackingParser, ResponseHeaders
from anthro_asgi.wire.answer_limits import DEFAULT_LIMITS
from anthro_asgi.wire.deltas import DeltaOrderError, Finish, Thinking, deltas_of
from anthro_asgi.wire.encoder import State, StreamEncoder
from anthro_asgi.wire.errors import ApiError

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Relayed:
    """What the client got, without HTTP chunks; how it ended; the deltas and token counts that were noted."""

    sent: bytes
    end: str
    deltas: int
    thinking: int
    usage: str


class Relay:
    """One stream. `pumped` counts the deltas that a pump has relayed, `pumped_input` those of a tool input among them.

    `slowed` counts the calls of `slow_down`.
    """

    def __init__(
        self,
        *,
        pumped: bool,
        max_event: int = DEFAULT_LIMITS.max_event,
        new_pump: NewPump | None = _native.new_pump,
    ) -> None:
        numbers = itertools.count(1)
        self._reader = FastChunkReader(ChunkReader((), lambda: f"toolu_{next(numbers)}"), max_event)
        self._encoder = StreamEncoder("msg_1", "m", lambda: 1)
        self._parser = ChunkTrackingParser(self._on_head, self._on_body, self._on_end)
        self._bodies: list[bytes] = []
        self._is_over = False  # the body
        self._max_event = max_event
        self._make_pump = new_pump if pumped else None
        self._pump: Pump | None = None
        self._thinks = False
        self._calls = False
        self._sent = [self._encoder.start()]
        self._backlog = 0
        self._time = 0.0
        self._deltas = 0
        self._thinking = 0
        self.ended = ""
        self.pumped = 0
        self.pumped_input = 0
        self.slowed = 0

    # bytes of the engine

    def receive(self, data: bytes) -> None:
        """Bytes arrive."""
        self._time += 0.01
        if self._pump is not None:
            self._pump.data_received(data)
        else:
            self._read(data)

    def end(self) -> Relayed:
        """The engine closes the connection."""
        if self._pump is not None:
            self._pump.eof_received()  # type: ignore[attr-defined]  # the protocol of a transport
        self._finish()
        usage = repr(self._encoder.usage)
        return Relayed(b"".join(self._sent), self.ended, self._deltas, self._thinking, usage)

    def _read(self, data: bytes) -> None:
        if self.ended or self._is_over:
            return
        broken = ""
        try:
            self._parser.feed(data)
        except UpstreamError as exc:
            broken = type(exc).__name__
        body, self._bodies = b"".join(self._bodies), []
        try:
            if body:
                self._take(self._reader.read(body))
                while self._reader.unread:
                    self._take(self._reader.read_on())
        except (ApiError, UpstreamError, DeltaOrderError) as exc:
            self.ended = f"{type(exc).__name__}: {exc}"
        if broken or self._reader.finished or self._reader.done:
            self._finish(broken)
        elif not self.ended:
            self._start()

    def _take(self, batch: object) -> None:
        for delta in deltas_of(batch):  # type: ignore[arg-type]  # a batch
            if isinstance(delta, Finish):
                continue
            self._deltas += 1
            self._thinking += isinstance(delta, Thinking)
        data = self._encoder.feed(batch)  # type: ignore[arg-type]  # a batch
        if data:
            self._sent.append(data)

    def _finish(self, broken: str = "") -> None:
        if self.ended:
            return
        try:
            self._reader.over()
            self._take(self._reader.rest())
            if broken and not self._reader.finished:
                self.ended = broken
                return
            for delta in self._reader.end():
                self._take(delta)
            self.ended = "complete"
            self._sent.append(self._encoder.end(self._deltas))
        except (ApiError, UpstreamError, DeltaOrderError) as exc:
            self.ended = f"{type(exc).__name__}: {exc}"

    # for the HTTP parser

    def _on_head(self, status: int, headers: ResponseHeaders) -> None:
        pass

    def _on_body(self, data: bytes) -> None:
        self._bodies.append(data)

    def _on_end(self, reusable: bool) -> None:
        self._is_over = True

    # for the pump

    def _start(self) -> None:
        template = None if self._make_pump is None else self._reader.continuing()
        if template is None or b"\\" in template.numberless or not self._parser.between_chunks:
            return
        self._thinks = template.key not in ("content", "arguments")
        self._calls = template.key == "arguments"
        place = self._reader.place() if self._calls else b""
        block = State.TOOL if self._calls else State.THINKING if self._thinks else State.TEXT
        assert self._make_pump is not None  # else there was no template
        if self._encoder.state is not block or (self._calls and not self._make_pump.may_begin(place)):
            return
        self._pump = self._new_pump()
        frame = self._encoder.frame
        self._pump.arm(template.before, template.after, template.numberless, *frame, self._max_event, place)
        self._armed(self._pump)

    def _new_pump(self) -> Pump:
        assert self._make_pump is not None
        return self._make_pump(self, lambda: self._time, self._write, lambda: self._backlog, lambda: False, -1)

    def _armed(self, pump: Pump) -> None:
        """The pump is about to relay the next bytes."""

    def _write(self, chunk: bytes) -> None:
        self._sent += chunks(chunk)

    def sync(self) -> None:
        assert self._pump is not None
        deltas, counts, times = self._pump.take()
        arguments, silent = self._pump.take_input()
        assert (deltas > silent) is bool(times)
        assert bool(arguments) is (self._calls and deltas > 0)
        self._reader.note_pumped(deltas, counts, arguments)
        self._deltas += deltas - silent
        self._thinking += deltas if self._thinks else 0
        self.pumped += deltas
        self.pumped_input += deltas if self._calls else 0

    def _stop(self) -> None:
        assert self._pump is not None
        rest = self._pump.disarm()
        self.sync()
        self._pump = None
        if rest:
            self._read(rest)

    def hand_back(self, data: bytes) -> None:
        self._stop()
        if data:
            self._read(data)

    def slow_down(self) -> None:
        self.slowed += 1

    def eof_received(self) -> None:
        if self._pump is not None:
            self._stop()

    def connection_lost(self, error: Exception | None) -> None:
        self.eof_received()

    def pause_writing(self) -> None:
        raise AssertionError("nothing is written to the engine")

    resume_writing = pause_writing


def relayed(
    reads: Iterable[bytes],
    *,
    pumped: bool,
    max_event: int = DEFAULT_LIMITS.max_event,
    new_pump: NewPump | None = _native.new_pump,
) -> Relayed:
    """What becomes of a body in chunks that arrives in these reads."""
    relay = Relay(pumped=pumped, max_event=max_event, new_pump=new_pump)
    relay.receive(HEAD)
    for data in reads:
        if data:
            relay.receive(data)
    return relay.end()


def framed(*bodies: bytes) -> bytes:
    """Each of `bodies` as an HTTP chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body)


def chunks(data: bytes) -> list[bytes]:
    """The bodies of whole HTTP chunks. Raises ValueError if they are not in the form that the service writes."""
    found = []
    while data:
        line, _, rest = data.partition(b"\r\n")
        size = int(line, 16)
        if rest[size : size + 2] != b"\r\n" or b"%x" % size != line:
            raise ValueError("not a whole chunk")
        found.append(rest[:size])
        data = rest[size + 2 :]
    return found
