"""Server-sent events: bytes in, payloads out.

    feed(b'data: {"a":1}\\n\\ndata: {"b"')  ->  [b'{"a":1}']

After the WHATWG HTML standard, section 9.2.6, with what engines need otherwise:

- a line ends at LF or CRLF and at nothing else. The standard also takes a lone CR; JSON text from a model may pass
  one through a careless encoder, and no engine ends its lines so. U+2028 is content, as in the standard;
- an event whose data is empty gives nothing, so `data:` alone serves as a heartbeat;
- what a last event without its blank line left is given by `end()`. The standard drops it; engines die mid-write.

`event:`, `id:`, `retry:`, comments and unknown fields mean nothing in this dialect. All data are bytes: UTF-8 that is
split over two reads never shows.

Two ways lead through `feed`. The short one takes the read that every engine sends while it streams: whole `data: …`
events and nothing else, most often one. The other takes everything, line by line. Neither scans a byte twice: a line
that trickles in is only looked at when its LF is there. Whoever edits one way edits the other; tests hold both
against a slow, obvious parser.
"""

from .errors import TooLarge

_BOM = b"\xef\xbb\xbf"
_SPACE = 32  # a line that ends in this or less may end in CR or hold no data
_SLACK = len(_BOM) + 1  # bytes of an unfinished line that may turn out to be no part of the event: a BOM, a CR


class EventTooLarge(TooLarge):
    """One event passed the bound. The parser is of no further use."""


class SSEParser:
    """One stream's parser. `max_event` bounds the bytes of one event's lines, comments too."""

    __slots__ = ("_at_boundary", "_data", "_first", "_max_event", "_size", "_tail")

    def __init__(self, max_event: int = 16 * 1024 * 1024) -> None:
        self._max_event = max_event
        self._tail = bytearray()  # a line whose LF has not come
        self._data: list[bytes] = []  # data lines of the event that is open
        self._size = 0  # bytes of that event's complete lines
        self._first = True  # no line was complete yet, so the next may begin with a BOM
        self._at_boundary = False  # nothing is open: the next byte begins a line and an event

    @property
    def at_boundary(self) -> bool:
        """Whether no event is open: what comes next begins one."""
        return self._at_boundary

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the events that `data` completes, oldest first. Raises EventTooLarge."""
        lines = data.split(b"\n")
        if self._at_boundary and len(data) <= self._max_event:
            if len(lines) == 3:
                line, blank, rest = lines
                if line[:6] == b"data: " and line[-1] > _SPACE and not blank and not rest:
                    return [line[6:]]
            elif not lines[-1] and not any(lines[1::2]):
                events = [line[6:] for line in lines if line[:6] == b"data: " and line[-1] > _SPACE]
                if len(events) * 2 + 1 == len(lines):
                    return events
        return self._take(lines)

    def end(self) -> list[bytes]:
        """The payload that a last event without its blank line left, if any. Raises EventTooLarge."""
        return self._take([b"", b"", b""] if self._tail else [b"", b""])

    def _take(self, lines: list[bytes]) -> list[bytes]:
        rest = lines.pop()
        if lines:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        self._tail += rest
        events = self._complete(lines)
        if self._size + len(self._tail) > self._max_event + _SLACK:
            raise EventTooLarge(f"an event passed {self._max_event} bytes")
        self._at_boundary = not self._tail and not self._size
        return events

    def _complete(self, lines: list[bytes]) -> list[bytes]:
        if self._first and lines:
            lines[0] = lines[0].removeprefix(_BOM)
            self._first = False
        events = []
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if not line:
                payload = b"\n".join(self._data)
                if payload:
                    events.append(payload)
                self._data.clear()
                self._size = 0
                continue
            self._size += len(line)
            if self._size > self._max_event:
                raise EventTooLarge(f"an event passed {self._max_event} bytes")
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
        return events
