"""The body of another Messages server's stream → deltas, in parts (see `shared/paced_reading`). Pure."""

from collections import deque

from ...upstream.sse import SSEParser
from ...wire.deltas import Delta
from ..shared.event_pieces import LARGE, pieces_of
from .event_reader import EventReader


class EventStreamReader:
    """Reads one response body on behalf of `reader`. Raises what `reader` raises, and EventTooLarge.

    `max_event` is the largest event in bytes. `paced`: `read` leaves parts of a large read for `read_on`.
    """

    __slots__ = ("_payloads", "_pieces", "_reader", "_sse", "paced")

    def __init__(self, reader: EventReader, max_event: int) -> None:
        self._reader = reader
        self._sse = SSEParser(max_event)
        self._pieces: deque[bytes] = deque()  # not read yet
        self._payloads: list[bytes] = []  # of events that are parsed and not read yet, among them a large one
        self.paced = True

    @property
    def unread(self) -> bool:
        """Whether parts of the latest read are left for `read_on`."""
        return bool(self._pieces or self._payloads)

    @property
    def is_heavy(self) -> bool:
        """Whether `read_on`, `rest` or the end of `reader` may take long."""
        return bool(self._payloads) or self._reader.held > LARGE or self._sse.largest > LARGE

    @property
    def done(self) -> bool:
        """Whether the last event was read."""
        return self._reader.done

    def read(self, data: bytes) -> list[Delta]:
        """The deltas of one read of the body. Raises ApiError, EventTooLarge."""
        if not self.paced:
            return self._reader.feed(self._sse.feed(data))
        self._pieces.extend(pieces_of(data))
        return self._read_piece()

    def read_on(self) -> list[Delta]:
        """The deltas of the next part. Raises as `read`."""
        if not self._payloads:
            return self._read_piece()
        payloads, self._payloads = self._payloads, []
        return self._reader.feed(payloads)

    def _read_piece(self) -> list[Delta]:
        payloads = self._sse.feed(self._pieces.popleft())
        if payloads and (self._sse.largest > LARGE or self._reader.held > LARGE):
            self._sse.largest = 0
            self._payloads = payloads
            return []
        return self._reader.feed(payloads)

    def rest(self) -> list[Delta]:
        """The deltas of a last event without its blank line, at the end of the body. Raises as `read`."""
        return self._reader.feed(self._sse.end())
