"""Lets a pump read the body of a stream while it only continues an open block (see `_native`).

    Python reads a batch ─► read() ─► the next events may continue the open block: a pump takes the transport
                              ▲                                          │
                              └── anything else: the transport is taken back, and Python reads it

With a `PumpThread`, the pump leaves both sockets to its thread where it can: where both are plain sockets, nothing
waits for the client, and the event loop's clock is CLOCK_MONOTONIC. Otherwise the pump is the transport's protocol.

Everything that is known about the stream stays where it is: the reader has the template and the token counts, the
client's side the state of the open block, the pings and the metrics. `sync` tells both what the pump has done, and the
reader the arguments of a call, which must be one JSON object in the end.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from ..._native import NewPump, Pump
from ..._native.pump_thread import PumpThread
from ...upstream.exchange import Exchange
from ...wire.direct_output import DirectOutput, Kind
from .fast_path import FastChunkReader
from .read_coalescer import PAUSE

_FUTILE: Final = 8  # pumps in a row that read next to nothing, after which none is tried for this stream
_WORTH_IT: Final = 4  # deltas
_KINDS: Final[dict[str, Kind]] = {"content": "text", "arguments": "input"}  # by the template's key; others: thinking
_MAX_BACKLOG: Final = 16 * 1024  # bytes that wait for the client; with more, a pump would hand everything back


class TokenRelay:
    """Reads the body of `response` for `reader`. Call `read` in place of the response's own."""

    __slots__ = (
        "_connection",
        "_futile",
        "_kind",
        "_max_event",
        "_new_pump",
        "_output",
        "_pump",
        "_pumped",
        "_reader",
        "_resume",
        "_thread",
        "_time",
    )

    def __init__(
        self,
        response: Exchange,
        reader: FastChunkReader,
        output: DirectOutput,
        new_pump: NewPump,
        max_event: int,
        thread: PumpThread | None = None,
    ) -> None:
        self._connection = response.connection
        self._reader = reader
        self._output = output
        self._new_pump = new_pump
        self._max_event = max_event
        self._thread = thread
        self._time = _clock(asyncio.get_running_loop())
        self._kind: Kind = "text"
        self._pump: Pump | None = None
        self._pumped = 0  # deltas of this pump
        self._futile = _FUTILE
        self._resume: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """The next bytes of the body that a pump does not read. Raises as `Connection.read`."""
        if self._futile:
            self._start()
        try:
            return await self._connection.read()
        finally:
            self.stop()

    def _start(self) -> None:
        """Let a pump read, if the stream is in a state for that."""
        template = self._reader.continuing()
        if template is None or self._output.unsent() > _MAX_BACKLOG:
            return
        kind = _KINDS.get(template.key, "thinking")
        place = self._reader.place() if kind == "input" else b""
        if kind == "input" and not self._new_pump.may_begin(place):
            return
        frame = self._output.begin(kind, self)
        if frame is None:
            return
        output = self._output
        pump = self._new_pump(self, self._time, output.write, output.unsent, output.closing, output.fd)
        try:
            pump.arm(template.before, template.after, template.numberless, *frame, self._max_event, place)
        except ValueError:  # the template is too large for a pump, for example
            self._futile -= 1
            output.end()
            return
        if not self._leave_to_thread(pump) and not self._connection.hand_over(pump):
            pump.disarm()
            output.end()
            return
        self._kind, self._pump, self._pumped = kind, pump, 0

    def _leave_to_thread(self, pump: Pump) -> bool:
        output = self._output
        if self._thread is None or self._time is not None or output.fd < 0 or output.unsent() or output.closing():
            return False
        socket = self._connection.lend(pump)
        if socket < 0:
            return False
        if self._thread.take(pump, socket):
            return True
        self._connection.take_back()
        return False

    def stop(self) -> None:
        """Take the transport back, if a pump has it, and read the bytes that it has not converted."""
        if self._pump is None:
            return
        rest = self._pump.disarm()
        self.sync()
        self._speed_up()
        self._connection.take_back()
        self._output.end()
        self._pump = None
        self._futile = _FUTILE if self._pumped >= _WORTH_IT else self._futile - 1
        if rest:
            self._connection.data_received(rest)

    # what the pump calls (`_native.Owner`), and the client's side (`DirectWriter`)

    def sync(self) -> None:
        """Tell the reader and the client's side what the pump has done since the last time."""
        assert self._pump is not None  # noqa: S101 - for the type checker
        deltas, counts, times = self._pump.take()
        arguments, silent = self._pump.take_input() if self._kind == "input" else ("", 0)
        if deltas:
            self._pumped += deltas
            self._reader.note_pumped(deltas, counts, arguments)
            self._output.note(self._kind, deltas - silent, times)

    def hand_back(self, data: bytes) -> None:
        self.stop()
        if data:
            self._connection.data_received(data)

    def slow_down(self) -> None:
        self._resume = self._connection.slow_down(PAUSE)

    def _speed_up(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
            self._connection.speed_up()

    def connection_lost(self, error: Exception | None) -> None:
        self.stop()
        self._connection.connection_lost(error)

    def eof_received(self) -> None:
        self.stop()
        self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float] | None:
    """The clock of `loop`; None if it is CLOCK_MONOTONIC, as that of asyncio and of uvloop is."""
    kind = type(loop)
    ours = kind.__module__ == "uvloop" or getattr(kind, "time", None) is asyncio.BaseEventLoop.time
    return None if ours else loop.time
