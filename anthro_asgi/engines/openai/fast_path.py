"""The body of a chat-completions stream → deltas, without parsing chunks that only continue a text. Pure.

`read` has two paths. The general path reads every event: `SSEParser`, then `ChunkReader`, which parses each chunk. The
fast path reads events that match the stream's `ChunkTemplate`: it cuts the text out of the event and parses the text
alone. From the first event that does not match, the general path takes over, and a new template is learned.

Learning costs as much as reading a few chunks. So that a stream whose templates never match does not pay for it with
every chunk, each attempt uses up one of a few credits; they are restored when a template has matched.

Editors: this runs for every token of every stream. The case that matters most is one event per read.
`bytes.removeprefix` and `partition` cost half as much as `startswith` and `find`, because they take one argument.
`python -m bench micro` shows the cost. The tests compare the two paths on every recording and on random streams.
"""

from operator import is_
from typing import Final

import orjson

from ...upstream.sse import SSEParser
from ...wire.answer_limits import DEFAULT_LIMITS
from ...wire.deltas import Batch, Delta, EncodedTexts, deltas_of
from ...wire.repairs import Repairs
from ..shared.event_pieces import LARGE, PIECE, end_of_piece
from .chunk_reader import ChunkReader
from .chunk_template import DIGIT_SHAPE, ChunkTemplate, learn_template, parse_counts

_CREDIT: Final = 6
_ATTEMPTS: Final = 4  # chunks of a new template after which it is no longer tried to read them without the reader
_BLANK: Final = b"\n\n"
_STRINGS: Final = {str}
_NEVER: Final = b"\n"  # a prefix that no event of a template begins with
_FIRST_PIECE: Final = 1024  # bytes: a template is learned from a few chunks; all others are read faster with it

loads = orjson.loads


class FastChunkReader:
    """Reads one response body on behalf of `reader`. Raises what `reader` raises, and EventTooLarge.

    `max_event` is the largest event in bytes. Reads that might exceed it go to the SSE parser, which checks it.
    With `paced`, `read` leaves parts of a large read for `read_on`, unless all of it is text (see `paced_reading`).
    """

    __slots__ = (
        "_after",
        "_attempts",
        "_before",
        "_counts",
        "_credit",
        "_longest",
        "_make",
        "_max_event",
        "_payloads",
        "_pieces",
        "_plain",
        "_reader",
        "_shapes",
        "_skipped",
        "_sse",
        "_template",
        "paced",
    )

    def __init__(self, reader: ChunkReader, max_event: int = DEFAULT_LIMITS.max_event, *, paced: bool = False) -> None:
        self._reader = reader
        self.paced = paced
        self._pieces: list[bytes] = []  # not read yet, in reverse order; each is divided further
        self._payloads: list[bytes] = []  # of events that are parsed and not read yet, among them a large one
        self._max_event = max_event
        self._sse = SSEParser(max_event)
        self._attempts = 0
        self._credit = _CREDIT
        self._skipped = 0  # chunks that the fast path has read and `reader` has not been told of
        self._counts = b""  # the newest counts of these chunks
        self._adopt(None)

    def _adopt(self, template: ChunkTemplate | None) -> None:
        """Use `template` on the fast path. Without one, or inside an event, the fast path is off."""
        self._template = template
        if template is None or not self._sse.at_boundary:
            self._before, self._after, self._shapes = _NEVER, _NEVER, None
            self._longest, self._make, self._plain = 0, None, False
            return
        self._before, self._after, self._shapes = template.before, template.after, template.shapes
        # A read with a second event is at least this long. A single text may be longer: then the general path reads it.
        self._longest = min(2 * len(template.after) + len(template.before), self._max_event - len(template.before))
        self._make = self._reader.continuation(template.delta, template.key)
        self._plain = self._make is str
        self._attempts = _ATTEMPTS

    def read(self, data: bytes) -> Batch:
        """The deltas of one read of the body. Raises ApiError, EventTooLarge."""
        # `is`: removeprefix and removesuffix return the same object if there is nothing to remove
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
            return self._read_delta(text)
        self._skipped += 1
        return text if self._plain else self._make(text)

    @property
    def unread(self) -> bool:
        """Whether parts of the latest read are left for `read_on`."""
        return bool(self._pieces or self._payloads)

    @property
    def is_heavy(self) -> bool:
        """Whether `read_on`, `rest` or `end` may take long."""
        return bool(self._payloads) or self._reader.held > LARGE or self._sse.largest > LARGE

    def read_on(self) -> list[Delta]:
        """The deltas of the next part. Raises as `read`."""
        if not self._payloads:
            return self._read_next()
        payloads, self._payloads = self._payloads, []
        out: list[Delta] = []
        self._take(payloads, out)
        return out

    # chunks that a pump reads instead (see `token_relay`)

    def continuing(self) -> ChunkTemplate | None:
        """The template by which the next event only continues the open block, if it matches; None if it needs more.

        The next byte of the body begins an event then.
        """
        if self._before is _NEVER or self.unread or self._reader.failed is not None or self._make is None:
            return None
        return self._template

    def place(self) -> bytes:
        """Where the arguments go on, if `continuing` returned a template for them (see `JsonObject.place`)."""
        return self._reader.place()

    def note_pumped(self, chunks: int, counts: bytes, arguments: str = "") -> None:
        """Note `chunks` chunks that matched the template, and the latest counts in them (b"" if there are none).

        `arguments` is the joined text of these chunks if they continue a call. The client has what they release.
        """
        self._skipped += chunks
        if counts:
            self._counts = counts
        if arguments and self._make is not None:
            self._make(arguments)

    def over(self) -> bool:
        """Whether the engine has finished. Raises the ApiError that followed these deltas, if any."""
        if self._reader.failed is not None:
            self._reader.raise_failed()
        return self._reader.finished

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def done(self) -> bool:
        return self._reader.done

    @property
    def nothing_read(self) -> bool:
        """Whether the body had no chunk at all."""
        return self._reader.last == (b"", None)

    @property
    def called(self) -> bool:
        """Whether the answer has a tool call."""
        return self._reader.called

    @property
    def has_text(self) -> bool:
        """Whether the answer has text."""
        return self._reader.has_text

    @property
    def stopped_thinking(self) -> bool:
        """Whether the engine matched a stop sequence before it had given anything but thinking."""
        return self._reader.stopped_thinking

    @property
    def reasoning_key(self) -> str | None:
        """The field in which the engine sent its reasoning; None if there was none."""
        return self._reader.reasoning_key

    @property
    def unknown_finish_reason(self) -> str | None:
        return self._reader.unknown_finish_reason

    @property
    def repairs(self) -> Repairs:
        return self._reader.repairs

    def rest(self) -> list[Delta]:
        """The deltas of a last event without its blank line, at the end of the body. Raises as `read`."""
        self._settle()
        return self._reader.feed(self._sse.end())

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of a body that is one JSON document instead of a stream. Raises ApiError."""
        return self._reader.feed([body])

    def end(self) -> list[Delta]:
        """The last deltas of the answer. Raises ApiError."""
        self._settle()
        return self._reader.end()

    # reads that are not exactly one event of the template

    def _read_on(self, data: bytes) -> list[Delta]:
        if self._plain and data.endswith(_BLANK) and len(data) <= self._max_event:
            events = data.split(self._before)
            texts = None if events.pop(0) else self._texts(events)
            if texts is not None:
                self._skipped += len(texts)
                return texts  # type: ignore[return-value]  # a list of str is a list of deltas as long as only str are in it
        if self.paced and len(data) > PIECE:
            self._pieces.append(data)
            return self._read_next()
        return self._read_piece(data)

    def _read_next(self) -> list[Delta]:
        """Read the next part of a large read: as many texts as there are, or a piece of anything else."""
        data = self._pieces.pop()
        size, texts = self._leading_texts(data) if self._plain else (0, None)
        if texts is None:
            size = end_of_piece(data, _FIRST_PIECE if self._before is _NEVER else PIECE)
        if size < len(data):
            self._pieces.append(data[size:])
        return self._read_piece(data[:size]) if texts is None else texts

    def _leading_texts(self, data: bytes) -> tuple[int, list[Delta] | None]:
        """Read the texts at the head of `data` that match the template.

        Returns the number of bytes read, and the texts; None if no text matches.
        """
        events = data[: self._max_event].split(self._before)
        if events.pop(0):
            return 0, None
        last = events.pop() if events else b""  # is usually cut, or followed by the finish
        texts = self._texts(events)
        if texts is None:
            events.append(last)
            others = (number for number, event in enumerate(events) if not self._cut([event])[0])
            del events[next(others, len(events)) :]
            texts = self._texts(events)
        if texts is None:
            return 0, None
        self._skipped += len(texts)
        return sum(map(len, events)) + len(events) * len(self._before), texts  # type: ignore[return-value]  # as in `_read_on`

    def _read_piece(self, data: bytes) -> list[Delta]:
        out: list[Delta] = []
        if len(data) > self._max_event:
            self._parse(data, out)
            return out
        if self._template is not None and not self._sse.at_boundary:
            head, blank, data = data.partition(_BLANK)
            self._parse(head + blank, out)
            if self._payloads:
                if data:
                    self._pieces.append(data)
                return out
        if self._before is not _NEVER and self._reader.failed is None:
            data = self._read_matching(data, out)
        if data and not (out and self._reader.failed):  # the deltas before an error are returned before it is raised
            self._parse(data, out)
        return out

    def _read_matching(self, data: bytes, out: list[Delta]) -> bytes:
        """Read the events at the head of `data` that match the template; return the bytes that follow them."""
        before = self._before
        events = data.split(before)
        if events.pop(0) or not events:
            return data
        number = len(events) - 1  # the last event may be incomplete, or followed by other bytes
        if not self._read_all(events[:-1], out):
            number = 0
        while self._read_all(events[number : number + 1], out):
            number += 1
        return before + before.join(events[number:]) if number < len(events) else b""

    def _read_all(self, events: list[bytes], out: list[Delta]) -> bool:
        """Read `events` if there is at least one and all of them match the template. Returns whether it did."""
        texts = self._texts(events)
        if texts is None:
            return False
        if self._make is None:
            for text in texts:
                out += self._read_delta(text)
        else:
            self._skipped += len(texts)
            if self._plain:
                out += texts
            else:
                for batch in map(self._make, texts):
                    out += deltas_of(batch)
        return True

    def _texts(self, events: list[bytes]) -> list[str] | None:
        """The texts of `events`, each without the template's `before`; None unless all match, or if there are none."""
        literals, counts = self._cut(events)
        array = b",\n".join(literals)
        try:
            # A JSON string contains no line feed, so no string extends from one literal into the next. If the array has
            # as many values as there are literals and all are strings, then each literal is one string.
            texts: list[str] = loads(b"[" + array + b"]")
        except ValueError:
            return None
        if len(texts) != len(events) or set(map(type, texts)) != _STRINGS or "" in texts:
            return None
        self._counts = counts
        # orjson would write the same literals, unless one has an optional escape or white space beside the string.
        same = b"\\u" not in array and b"\\/" not in array and array.count(b'",\n"') + 1 == len(literals)
        return EncodedTexts(texts, literals) if same else texts

    def _cut(self, events: list[bytes]) -> tuple[list[bytes], bytes]:
        """The bytes in the text's position of each event, and the last counts; no bytes if one event does not match."""
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

    def _read_delta(self, text: str) -> list[Delta]:
        """The deltas of a chunk that has `text` in the template's position."""
        template = self._template
        assert template is not None  # noqa: S101 - for the type checker
        self._credit = _CREDIT
        template.place[template.key] = text
        deltas = self._reader.read_delta(template.delta)
        if self._attempts and self._reader.failed is None and not self._reader.finished:
            self._attempts -= 1  # the second piece of a call's arguments shows whether they can be released at once
            self._make = self._reader.continuation(template.delta, template.key)
            self._plain = self._make is str
        return deltas

    def _parse(self, data: bytes, out: list[Delta]) -> None:
        """Read `data` on the general path."""
        self._settle()
        payloads = self._sse.feed(data)
        if self.paced and payloads and (self._sse.largest > LARGE or self._reader.held > LARGE):
            self._sse.largest = 0
            self._payloads = payloads
        else:
            self._take(payloads, out)

    def _take(self, payloads: list[bytes], out: list[Delta]) -> None:
        """Read the events, and learn a template from the last one."""
        self._reader.feed(payloads, out)
        template = self._learn(payloads[-1]) if payloads and self._credit else None
        ended = self._reader.failed is not None or self._reader.finished or self._reader.done
        self._adopt(None if ended else template or self._template)

    def _learn(self, payload: bytes) -> ChunkTemplate | None:
        read, chunk = self._reader.last
        if read is not payload or self._reader.failed is not None or self._reader.finished or self._reader.is_split:
            return None
        self._credit -= 1
        self._reader.release_chunk()
        return learn_template(payload, chunk)

    def _settle(self) -> None:
        """Tell the reader about the chunks that the fast path has read."""
        if self._skipped or self._counts:
            self._reader.skip(self._skipped, parse_counts(self._counts) if self._counts else None)
            self._credit = _CREDIT
            self._skipped = 0
            self._counts = b""
