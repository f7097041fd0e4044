"""The body of a chat-completions stream → deltas: reads in, what they say out, and no parsing of what goes on. Pure.

Two ways lead through `read`. The slow one takes everything: `SSEParser`, then `ChatReader`, which parses every chunk.
The short one takes events of the stream's `Frame`: it cuts the text out, parses that alone, and hands it over. On what
is unexpected the slow way is taken, from the first event that does not fit, and the frame is learned anew.

Learning costs as much as reading a few chunks, so a stream whose frames never fit is not learned for ever: each attempt
takes of a small credit, which is restored when a frame has served.

Editors: this runs for every token of every stream. One event a read is the case that counts. `bytes.removeprefix` and
`partition` cost half of what `startswith` and `find` do, as they take one argument. `python -m bench micro` shows the
price; the tests hold both ways against each other on every recording and on random streams.
"""

from typing import Final

import orjson

from ..upstream.sse import SSEParser
from ..wire.deltas import Batch, Delta, each
from .chunks import ChatReader
from .frames import SHAPE, Frame, counted, learn

_CREDIT: Final = 6
_BLANK: Final = b"\n\n"
_NEVER: Final = b"\n"  # no read that begins with a blank line is an event of a frame

loads = orjson.loads


class Splice:
    """Reads one body, chunk by chunk, for `reader`. Raises what that raises, and EventTooLarge."""

    __slots__ = (
        "_after",
        "_before",
        "_counts",
        "_credit",
        "_frame",
        "_longest",
        "_make",
        "_plain",
        "_reader",
        "_shapes",
        "_spliced",
        "_sse",
    )

    def __init__(self, reader: ChatReader) -> None:
        self._reader = reader
        self._sse = SSEParser()
        self._credit = _CREDIT
        self._spliced = 0  # chunks since the reader was last told of them
        self._counts = b""  # the newest of these
        self._adopt(None)

    def _adopt(self, frame: Frame | None) -> None:
        """Sets the short way to this frame; to none while an event is open, which ends first."""
        self._frame = frame
        if frame is None or not self._sse.between:
            self._before, self._after, self._shapes = _NEVER, _NEVER, None
            self._longest = 0
            return
        self._before, self._after, self._shapes = frame.before, frame.after, frame.shapes
        # where there is a second event there is this much more at the least; a text may be as long, which is no harm
        self._longest = 2 * len(frame.after) + len(frame.before)
        self._make = self._reader.going_on(frame.delta, frame.key)
        self._plain = self._make is str

    # what the engine says

    def read(self, data: bytes) -> Batch:
        """What one read of the body says. Raises ApiError, EventTooLarge."""
        # `is`: what has not the prefix, or not the suffix, comes back as it was
        rest = data.removeprefix(self._before)
        if rest is data or len(rest) > self._longest:
            return self._read_on(data)
        shapes = self._shapes
        counts = b""
        if shapes is None:
            literal = rest.removesuffix(self._after)
            if literal is rest:
                return self._read_on(data)
        else:
            literal, _, counts = rest.partition(self._after)
            if counts.translate(SHAPE) not in shapes:
                return self._read_on(data)
        try:
            text = loads(literal)
        except ValueError:
            return self._read_on(data)
        if type(text) is not str or not text:
            return self._read_on(data)
        self._counts = counts
        if self._plain:
            self._spliced += 1
            return text
        return self._say(text)

    def over(self) -> bool:
        """Whether the engine has finished. Raises ApiError: what came together with the last words and behind them."""
        if self._reader.failed is not None:
            raise self._reader.failed
        return self._reader.finished

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def done(self) -> bool:
        return self._reader.done

    def rest(self) -> list[Delta]:
        """What a last event that was not ended says, when the body is over. Raises as `read`."""
        self._settle()
        return self._reader.feed(self._sse.end())

    def whole(self, body: bytes) -> list[Delta]:
        """What a body says that is no stream. Raises ApiError."""
        return self._reader.feed([body])

    def end(self) -> list[Delta]:
        """What is left at last. Raises ApiError."""
        self._settle()
        return self._reader.end()

    # the same, when it is not one event of the frame

    def _read_on(self, data: bytes) -> list[Delta]:
        out: list[Delta] = []
        if self._frame is not None and not self._sse.between:
            head, blank, data = data.partition(_BLANK)
            self._parse(head + blank, out)
        if self._before is not _NEVER and self._reader.failed is None:
            data = self._splice(data, out)
        if data:
            self._parse(data, out)
        return out

    def _splice(self, data: bytes, out: list[Delta]) -> bytes:
        """Takes the events of the frame that `data` begins with; what follows them."""
        before, after, shapes = self._before, self._after, self._shapes
        events = data.split(before)
        if events.pop(0) or not events:
            return data
        for number, event in enumerate(events):
            counts = b""
            if shapes is None:
                literal = event.removesuffix(after)
                fits = literal is not event
            else:
                literal, _, counts = event.partition(after)
                fits = counts.translate(SHAPE) in shapes or self._is_new_shape(counts)
            try:
                text = loads(literal) if fits else None
            except ValueError:
                text = None
            if type(text) is not str or not text:
                return before + before.join(events[number:])
            self._counts = counts
            if self._plain:
                self._spliced += 1
                out.append(text)
            else:
                out += each(self._say(text))
        return b""

    def _is_new_shape(self, counts: bytes) -> bool:
        return self._frame is not None and self._frame.takes(counts)

    def _say(self, text: str) -> Batch:
        """What a chunk says that has this text in the frame's place."""
        if self._make is not None:
            self._spliced += 1
            return self._make(text)
        frame = self._frame
        assert frame is not None  # noqa: S101
        self._credit = _CREDIT
        frame.place[frame.key] = text
        return self._reader.say(frame.delta)

    def _parse(self, data: bytes, out: list[Delta]) -> None:
        """The slow way, and what can be learned from it."""
        self._settle()
        payloads = self._sse.feed(data)
        self._reader.feed(payloads, out)
        frame = self._learn(payloads[-1]) if payloads and self._credit else None
        self._adopt(None if self._reader.failed is not None else frame or self._frame)

    def _learn(self, payload: bytes) -> Frame | None:
        read, chunk = self._reader.last
        if read is not payload or self._reader.failed is not None or self._reader.finished:
            return None
        self._credit -= 1
        return learn(payload, chunk)

    def _settle(self) -> None:
        """Tells the reader of the chunks it has not seen."""
        if self._spliced or self._counts:
            self._reader.passed(self._spliced, counted(self._counts) if self._counts else None)
            self._credit = _CREDIT
            self._spliced = 0
            self._counts = b""
