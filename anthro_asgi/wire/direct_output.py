"""Where an engine may write deltas of an open block itself, as bytes, instead of yielding them. Pure.

The consumer of an answer offers it with the request (`MessagesRequest.direct_output`). An engine need not use it. It is
for engines whose next deltas need nothing but their text copied from one socket to another.
"""

from collections.abc import Callable
from typing import Literal, Protocol

Kind = Literal["text", "thinking", "input"]
"""Of the open block: a text, thinking, or the input of a tool call."""


class DirectWriter(Protocol):
    """What writes to a DirectOutput."""

    def sync(self) -> None:
        """Call `note` with what was written since the last time."""

    def stop(self) -> None:
        """Call `note` and `end`: something else is about to be written."""


class DirectOutput(Protocol):
    """The client of one stream.

    An engine that waits for its upstream calls `begin`, then `write` for each event or group of events, and `end`
    before it yields anything. In between nothing else writes to the client.
    """

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes to the client's connection: whole HTTP chunks (RFC 9112 section 7.1) of whole events."""

    @property
    def unsent(self) -> Callable[[], int]:
        """Bytes that wait in the client's transport. An engine that reads more than a few has to yield instead."""

    @property
    def closing(self) -> Callable[[], bool]:
        """Whether the client's connection is closed or being closed. Nothing may be written then."""

    @property
    def fd(self) -> int:
        """The socket, which may be written to while `unsent` is 0 and `closing` is False; -1 if it may not."""

    def begin(self, kind: Kind, writer: DirectWriter) -> tuple[bytes, bytes] | None:
        """The bytes before and after the JSON string of a delta of this kind.

        None if it cannot be written directly: no such block is open, or its deltas have to be changed or held back.
        """

    def note(self, kind: Kind, deltas: int, times: list[float]) -> None:
        """Note `deltas` deltas written at these `times`, on the clock of the event loop."""

    def end(self) -> None:
        """Nothing is written directly any more."""
