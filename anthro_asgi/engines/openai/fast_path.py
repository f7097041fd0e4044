"""The body of a chat-completions stream → deltas: reads in, what they say out, and no parsing of what goes on. Pure.

Two ways lead through `read`. The slow one takes everything: `SSEParser`, then `ChunkReader`, which parses every chunk.
The short one takes events of the stream's `ChunkTemplate`: it cuts the text out, parses that alone, and hands it over.
On what is unexpected the slow way is taken, from the first event that does not fit, and the template is learned anew.

Learning costs as much as reading a few chunks, so a stream whose frames never fit is not learned for ever: each attempt
takes of a small credit, which is restored when a frame has served.

Editors: this runs for every token of every stream. One event a read is the case that counts. `bytes.removeprefix` and
`partition` cost half of what `startswith` and `find` do, as they take one argument. `python -m bench micro` shows the
price; the tests hold both ways against each other on every recording and on random streams.
"""

from operator import is_
from typing import Final

import orjson

from ...upstream.sse import SSEParser
from ...wire.answer_limits import DEFAULT_LIMITS
from ...wire.deltas import Batch, Delta, EncodedTexts
from ...wire.repairs import Repairs
from .chunk_reader import ChunkReader
from .chunk_template import DIGIT_SHAPE, ChunkTemplate, learn_template, parse_counts

_CREDIT: Final = 6
_BLANK: Final = b"\n\n"
_STRINGS: Final = {str}
_NEVER: Final = b"\n"  # no read that begins with a blank line is an event of a frame

loads = orjson.loads


class FastChunkReader:
    """Reads one body, chunk by chunk, for `reader`. Raises what that raises, and EventTooLarge.

    `max_event` in bytes, as the parser of events has it: where it might be passed, that is asked.
    """

    __slots__ = (
        "_after",
        "_before",
        "_counts",
        "_credit",
        "_longest",
        "_make",
        "_max_event",
        "_plain",
        "_reader",
        "_shapes",
        "_spliced",
        "_sse",
        "_template",
    )

    def __init__(self, reader: ChunkReader, max_event: int = DEFAULT_LIMITS.max_event) -> None:
        self._reader = reader
        self._max_event = max_event
        self._sse = SSEParser(max_event)
        self._credit = _CREDIT
        self._spliced = 0  # chunks since the reader was last told of them
        self._counts = b""  # the newest of these
        self._adopt(None)

    def _adopt(self, template: ChunkTemplate | None) -> None:
        """Sets the short way to this frame; to none while an event is open, which ends first."""
        self._template = template
        if template is None or not self._sse.at_boundary:
            self._before, self._after, self._shapes = _NEVER, _NEVER, None
            self._longest, self._make, self._plain = 0, None, False
            return
        self._before, self._after, self._shapes = template.before, template.after, template.shapes
        # where there is a second event there is this much more at the least; a text may be as long, which is no harm
        self._longest = min(2 * len(template.after) + len(template.before), self._max_event - len(template.before))
        self._make = self._reader.continuation(template.delta, template.key)
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
            if counts.translate(DIGIT_SHAPE) not in shapes:
                return self._read_on(data)
        try:
            text = loads(literal)
        except ValueError:
            return self._read_on(data)
        if type(text) is not str or not text:
            return self._read_on(data)
        self._counts = counts
        if self._make is None:
            return self._say(text)
        self._spliced += 1
        return text if self._plain else self._make(text)

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

    @property
    def repairs(self) -> Repairs:
        return self._reader.repairs

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
        if len(data) > self._max_event:
            out: list[Delta] = []
            self._parse(data, out)
            return out
        if self._plain and data.endswith(_BLANK):
            events = data.split(self._before)
            texts = None if events.pop(0) else self._texts(events)
            if texts is not None:
                self._spliced += len(texts)
                return texts  # type: ignore[return-value]  # a list of texts is one of deltas, as long as it is not added to
        out = []
        if self._template is not None and not self._sse.at_boundary:
            head, blank, data = data.partition(_BLANK)
            self._parse(head + blank, out)
        if self._before is not _NEVER and self._reader.failed is None:
            data = self._splice(data, out)
        if data and not (out and self._reader.failed):  # which comes behind what was said before it
            self._parse(data, out)
        return out

    def _splice(self, data: bytes, out: list[Delta]) -> bytes:
        """Takes the events of the frame that `data` begins with; what follows them."""
        before = self._before
        events = data.split(before)
        if events.pop(0) or not events:
            return data
        number = len(events) - 1  # the last one may be cut off, or have something else behind it
        if not self._take(events[:-1], out):
            number = 0
        while self._take(events[number : number + 1], out):
            number += 1
        return before + before.join(events[number:]) if number < len(events) else b""

    def _take(self, events: list[bytes], out: list[Delta]) -> bool:
        """Takes these events, if there are any and all of them are of the frame."""
        texts = self._texts(events)
        if texts is None:
            return False
        if self._make is None:
            for text in texts:
                out += self._say(text)
        else:
            self._spliced += len(texts)
            out += texts if self._plain else map(self._make, texts)
        return True

    def _texts(self, events: list[bytes]) -> list[str] | None:
        """The texts of these events, less what they begin with, if there are any and all are of the frame."""
        literals, counts = self._cut(events)
        said = b",\n".join(literals)
        try:
            # No string of JSON holds a line end, so none reaches from one literal to the next: as many strings as there
            # are literals, and nothing else, are one string in each.
            texts: list[str] = loads(b"[" + said + b"]")
        except ValueError:
            return None
        if len(texts) != len(events) or set(map(type, texts)) != _STRINGS or "" in texts:
            return None
        self._counts = counts
        # There are two more ways to write some characters, and white space beside a string.
        ours = b"\\u" not in said and b"\\/" not in said and said.count(b'",\n"') + 1 == len(literals)
        return EncodedTexts(texts, literals) if ours else texts

    def _cut(self, events: list[bytes]) -> tuple[list[bytes], bytes]:
        """What each has in the text's place, and the last counts; nothing when one ends otherwise than the frame."""
        if self._shapes is None:
            literals = [event.removesuffix(self._after) for event in events]
            return ([] if any(map(is_, literals, events)) else literals), b""
        literals = []
        counts = b""
        for event in events:
            literal, _, counts = event.partition(self._after)
            if counts.translate(DIGIT_SHAPE) not in self._shapes and not self._is_new_shape(counts):
                return [], b""
            literals.append(literal)
        return literals, counts

    def _is_new_shape(self, counts: bytes) -> bool:
        return self._template is not None and self._template.accepts(counts)

    def _say(self, text: str) -> list[Delta]:
        """What a chunk says that has this text in the frame's place."""
        template = self._template
        assert template is not None  # noqa: S101 - for the type checker
        self._credit = _CREDIT
        template.place[template.key] = text
        return self._reader.read_delta(template.delta)

    def _parse(self, data: bytes, out: list[Delta]) -> None:
        """The slow way, and what can be learned from it."""
        self._settle()
        payloads = self._sse.feed(data)
        self._reader.feed(payloads, out)
        template = self._learn(payloads[-1]) if payloads and self._credit else None
        ended = self._reader.failed is not None or self._reader.finished or self._reader.done
        self._adopt(None if ended else template or self._template)

    def _learn(self, payload: bytes) -> ChunkTemplate | None:
        read, chunk = self._reader.last
        if read is not payload or self._reader.failed is not None or self._reader.finished:
            return None
        self._credit -= 1
        return learn_template(payload, chunk)

    def _settle(self) -> None:
        """Tells the reader of the chunks it has not seen."""
        if self._spliced or self._counts:
            self._reader.skip(self._spliced, parse_counts(self._counts) if self._counts else None)
            self._credit = _CREDIT
            self._spliced = 0
            self._counts = b""
