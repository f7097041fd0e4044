"""A pump in Python (see `_native.Pump`): relays the steady deltas of a stream where there is no native path.

    upstream's transport ──► PythonPump.data_received ──► write of the client's transport

A process that sleeps between tokens finds its caches cold when it wakes. So the cost of a token depends on how much
memory its code touches. The general way of a token leads through twelve functions and six coroutines. Here it is four
functions, which expect a read of one HTTP chunk, or a few, each of which is one event that matches the template. All
else is handed back: that is not an error, and costs what it cost before. Of a tool input it relays the strings.

Editors: `data_received`, `_read`, `_chunk` and `_send` run for every token. They follow `FastChunkReader.read` and
`StreamEncoder.text`, which say why the bytes are cut in this way; the tests compare their results.
"""

import os
from collections.abc import Callable
from time import monotonic

import orjson

from ..._native import Owner, Thread
from ..shared.tool_arguments import stays_in_string
from .chunk_template import DIGIT_SHAPE, known_shapes

_MAX_UNSENT = 16 * 1024  # bytes in the client's transport; with more, the general way waits for the client
_MAX_CHUNK = 64 * 1024  # bytes of a read
_MOST_EVENTS = 8  # of a read; the general way reads more of them at less cost
_SYNC_EVERY = 32  # writes after which `sync` of the owner is called
_FAST = 1 / 500  # seconds from one write to the next, below which reads are made less frequent
_SYNC_INPUT = 2 * 1024  # characters of a tool input after which `sync` of the owner is called
_LONGEST_INPUT = 4 * 1024  # characters of one piece; more are read in steps
_LINE_END = b"\r\n"
_NOTHING: tuple[list[str], bytes] = [], b""

loads, dumps = orjson.loads, orjson.dumps


class PythonPump:
    """See `_native.NewPump` and `_native.Pump`."""

    __slots__ = (
        "_after",
        "_before",
        "_closing",
        "_counts",
        "_deltas",
        "_fd",
        "_frame",
        "_input",
        "_is_fast",
        "_is_input",
        "_length",
        "_may_wait",
        "_measured",
        "_most",
        "_owner",
        "_shapes",
        "_time",
        "_times",
        "_unread",
        "_unsent",
        "_write",
        "last_read",
    )

    def __init__(
        self,
        owner: Owner,
        time: Callable[[], float] | None,
        write: Callable[[bytes], None],
        unsent: Callable[[], int],
        closing: Callable[[], bool],
        fd: int,
    ) -> None:
        self._owner: Owner | None = owner
        self._time = monotonic if time is None else time
        self._write = write
        self._unsent = unsent
        self._closing = closing
        self._fd = fd
        self._may_wait = True  # whether bytes may wait in the client's transport
        self._counts = b""
        self._deltas = 0
        self._times: list[float] = []  # of the writes
        self._input: list[str] = []  # pieces of a tool input that the owner does not know yet
        self._unread = 0  # characters in them
        self._is_fast = False
        self._measured = self.last_read = self._time()

    @staticmethod
    def may_begin(place: bytes, /) -> bool:
        """See `_native.NewPump`: in a string, it can."""
        return place.endswith(b'"')

    def arm(
        self,
        before: bytes,
        after: bytes,
        numberless: bytes,
        opening: bytes,
        closing: bytes,
        max_event: int,
        place: bytes = b"",
    ) -> None:
        if not before or not after or b"\\" in numberless or len(before) + len(after) > _MAX_CHUNK:
            raise ValueError("not a template that this pump can use")
        if place and not self.may_begin(place):
            raise ValueError("not a place in a string of a tool input")
        self._is_input = bool(place)
        self._before = _LINE_END + before  # behind the size of the chunk
        self._length = len(before)
        self._after = after
        self._shapes = known_shapes(numberless) if numberless else None
        self._frame = opening, closing
        self._most = min(max_event, _MAX_CHUNK)

    def data_received(self, data: bytes) -> None:
        now = self.last_read = self._time()
        texts, counts = self._read(data)
        if not texts or self._closing() or (self._may_wait and self._is_behind()):
            return self._hand_back(data)
        self._send(self._chunk(texts))
        self._counts = counts
        self._deltas += len(texts)
        self._times.append(now)
        if self._is_input:
            self._input += texts
            self._unread += sum(map(len, texts))
        if len(self._times) >= _SYNC_EVERY or self._unread >= _SYNC_INPUT:
            self._sync(now)
        if self._is_fast and self._owner is not None:
            self._owner.slow_down()
        return None

    def convert(self, data: bytes) -> tuple[int, bytes, int, bytes, bool]:
        texts, counts = self._read(data)
        return (len(data), self._chunk(texts), len(texts), counts, True) if texts else (0, b"", 0, b"", False)

    def _chunk(self, texts: list[str]) -> bytes:
        """The HTTP chunk for the client."""
        frame = self._frame
        body = dumps(texts[0]).join(frame) if len(texts) == 1 else b"".join([dumps(text).join(frame) for text in texts])
        return b"%x\r\n%b\r\n" % (len(body), body)

    def _read(self, data: bytes) -> tuple[list[str], bytes]:
        """The texts of a read, and the latest counts; no texts if the read has to be handed back."""
        size, *events = data.split(self._before)
        if not 0 < len(events) <= _MOST_EVENTS or len(data) > self._most:
            return _NOTHING
        texts: list[str] = []
        counts = b""
        for event in events:
            event, _, following = event.rpartition(_LINE_END)
            if size.lower() != b"%x" % (self._length + len(event)):
                return _NOTHING
            size = following
            # `is`: removesuffix returns the same object if there is nothing to remove
            if self._shapes is None:
                literal = event.removesuffix(self._after)
                if literal is event:
                    return _NOTHING
            else:
                literal, _, counts = event.partition(self._after)
                if counts.translate(DIGIT_SHAPE) not in self._shapes:
                    return _NOTHING
            try:
                text = loads(literal)
            except ValueError:
                return _NOTHING
            if type(text) is not str or not text:
                return _NOTHING
            if self._is_input and (len(text) > _LONGEST_INPUT or not stays_in_string(text)):
                return _NOTHING
            texts.append(text)
        return (texts, counts) if not size else _NOTHING

    def _is_behind(self) -> bool:
        """Whether the client reads so slowly that the general way has to wait for it."""
        unsent = self._unsent()
        self._may_wait = unsent > 0
        return unsent > _MAX_UNSENT

    def _sync(self, now: float) -> None:
        self._is_fast = now - self._measured < len(self._times) * _FAST
        self._measured = now
        if self._owner is not None:
            self._owner.sync()

    def _send(self, chunk: bytes) -> None:
        """Write to the client's socket while nothing waits in the transport, else to the transport."""
        if self._fd >= 0 and not self._may_wait:
            try:
                sent = os.write(self._fd, chunk)
            except OSError:  # it takes nothing, or has an error that the transport will notice
                sent = 0
            if sent == len(chunk):
                return
            chunk = chunk[sent:]
        self._may_wait = True
        self._write(chunk)

    def _hand_back(self, data: bytes) -> None:
        if self._owner is None:
            raise RuntimeError("the pump is not armed")
        self._owner.hand_back(data)

    def take(self) -> tuple[int, bytes, list[float]]:
        times, self._times = self._times, []
        counts, self._counts = self._counts, b""
        deltas, self._deltas = self._deltas, 0
        return deltas, counts, times

    def take_input(self) -> tuple[str, int]:
        pieces, self._input, self._unread = self._input, [], 0
        return "".join(pieces), 0

    def leave_to(self, thread: Thread, upstream: int) -> bool:
        return False

    def disarm(self) -> bytes:
        self._owner = None
        del self._time, self._write, self._unsent, self._closing  # they refer to the client: a cycle otherwise
        return b""

    # the other events of the transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._owner is not None:
            self._owner.connection_lost(error)

    def eof_received(self) -> None:
        if self._owner is not None:
            self._owner.eof_received()

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.pause_writing()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.resume_writing()
