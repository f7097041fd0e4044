"""Server-sent events: bytes in, payloads out.

    feed(b'data: {"a":1}\\n\\ndata: {"b"')  ->  [b'{"a":1}']

This follows the WHATWG HTML standard, section 9.2.6, with three differences that engines need:

- A line ends at LF or CRLF only. The standard also accepts a lone CR, but a careless JSON encoder may let a CR of the
  model's text through, and no engine ends its lines with CR. U+2028 is content, as in the standard.
- An event with empty data yields nothing, so a lone `data:` serves as a heartbeat.
- `end()` returns the payload of a last event that lacks its blank line. The standard drops that event; engines crash
  in the middle of a write.

`event:`, `id:`, `retry:`, comments and unknown fields are ignored. All data are bytes, so UTF-8 that is split over two
reads needs no care.

`feed` has a short path and a general path. The short path handles the read that every engine sends while it streams:
whole `data: …` events and nothing else, usually one. The general path handles everything, line by line. Neither scans a
byte twice: a line that arrives in small pieces is examined only when its LF is there. Who edits one path must edit the
other. Tests compare both with a slow, obvious parser.
"""

from .errors import TooLarge

_BOM = b"\xef\xbb\xbf"
_SPACE = 32  # a line whose last byte is at most this may end in CR or have no data
_SLACK = len(_BOM) + 1  # bytes of an incomplete line that may not belong to the event: a BOM and a CR


class EventTooLarge(TooLarge):
    """One event is larger than the limit. The parser must not be used any more."""


class SSEParser:
    """Parses one stream. `max_event` limits the bytes in the lines of one event, comments included."""

    __slots__ = ("_at_boundary", "_data", "_first", "_max_event", "_size", "_tail", "largest")

    def __init__(self, max_event: int = 16 * 1024 * 1024) -> None:
        self._max_event = max_event
        self._tail = bytearray()  # a line whose LF has not arrived
        self._data: list[bytes] = []  # the data lines of the current event
        self._size = 0  # bytes in the complete lines of the current event
        self._first = True  # no line is complete yet, so the next may begin with a BOM
        self._at_boundary = False  # the next byte begins a line and an event
        self.largest = 0
        """Bytes of the largest event that arrived in several reads. The owner may set it back to 0."""

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins an event."""
        return self._at_boundary

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the events that `data` completes, in order. Raises EventTooLarge."""
        lines = data.split(b"\n")
        if self._first and not self._tail and data[:6] == b"data: ":  # no BOM
            self._first, self._at_boundary = False, True
        if self._at_boundary and len(data) <= self._max_event:
            if len(lines) == 3:
                line, blank, rest = lines
                if line[:6] == b"data: " and line[-1] > _SPACE and not blank and not rest:
                    return [line[6:]]
            elif not lines[-1] and not any(lines[1::2]):
                events = [line[6:] for line in lines if line[:6] == b"data: " and line[-1] > _SPACE]
                if len(events) * 2 + 1 == len(lines):
                    return events
        return self._feed_lines(lines)

    def end(self) -> list[bytes]:
        """The payload of a last event that lacks its blank line, if any. Raises EventTooLarge."""
        if self._at_boundary:
            return []
        return self._feed_lines([b"", b"", b""] if self._tail else [b"", b""])

    def _feed_lines(self, lines: list[bytes]) -> list[bytes]:
        rest = lines.pop()
        if lines:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        self._tail += rest
        events = self._end_lines(lines)
        if self._size + len(self._tail) > self._max_event + _SLACK:
            raise EventTooLarge(f"an event is larger than {self._max_event} bytes")
        self._at_boundary = not self._tail and not self._size
        return events

    def _end_lines(self, lines: list[bytes]) -> list[bytes]:
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
            self.largest = max(self.largest, self._size)
            if self._size > self._max_event:
                raise EventTooLarge(f"an event is larger than {self._max_event} bytes")
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
        return events
