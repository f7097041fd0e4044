"""Lets an engine write deltas to the client's transport itself. Implements `wire.direct_output`."""

import asyncio
from collections.abc import Callable

from ..observability.metrics import Metrics
from ..wire.direct_output import DirectWriter, Kind
from ..wire.encoder import State, StreamEncoder
from .answer import Answer
from .ping import Pinger


class ClientOutput:
    """The client behind `transport`. It can be written to directly between `open` and `close`.

    What is written directly is counted, timed and kept apart from pings as if it had been sent.
    """

    __slots__ = ("_answer", "_encoder", "_metrics", "_pinger", "_times", "closing", "fd", "unsent", "write")

    def __init__(self, transport: asyncio.Transport, metrics: Metrics) -> None:
        self.write: Callable[[bytes], None] = transport.write
        self.unsent: Callable[[], int] = transport.get_write_buffer_size
        self.closing: Callable[[], bool] = transport.is_closing
        plain = transport.get_extra_info("sslcontext") is None
        sock = transport.get_extra_info("socket") if plain else None
        self.fd: int = -1 if sock is None else sock.fileno()
        self._metrics = metrics
        self._answer: Answer | None = None

    def open(self, answer: Answer, encoder: StreamEncoder, pinger: Pinger, times: list[float]) -> None:
        """The head is sent, and nothing but the engine's deltas follows. `times` are those of the sends."""
        if not answer.filters:
            self._answer, self._encoder, self._pinger, self._times = answer, encoder, pinger, times

    def close(self) -> None:
        """The stream ends, or has failed."""
        if self._answer is not None:
            self._answer = None
            del self._encoder, self._pinger, self._times  # they refer to the response: a cycle otherwise

    def begin(self, kind: Kind, writer: DirectWriter) -> tuple[bytes, bytes] | None:
        if self._answer is None or self._pinger.task is not None or self._encoder.state is not _BLOCK[kind]:
            return None
        self._pinger.writer = writer
        return self._encoder.frame

    def note(self, kind: Kind, deltas: int, times: list[float]) -> None:
        if self._answer is None or not times:
            return
        self._answer.counted += deltas
        if kind == "thinking":
            self._answer.thinking_counted += deltas
        self._pinger.last = max(self._pinger.last, times[-1])
        self._times += times
        self._metrics.observe_gaps(self._times)

    def end(self) -> None:
        if self._answer is not None:
            self._pinger.writer = None


_BLOCK = {"text": State.TEXT, "thinking": State.THINKING, "input": State.TOOL}
