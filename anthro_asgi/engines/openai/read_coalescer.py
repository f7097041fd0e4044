"""How long to wait before the next read of a stream, so that one that races takes no more turns than it needs. Pure.

What arrives together leaves together, and a token costs a fraction where many do. A stream that brings hundreds of
reads a second gains nothing by each being passed on at once: nobody sees a millisecond of it, but each costs the
server, the client and every other stream a turn. So after sixteen reads in a row at such a rate, the next ones wait for
what comes within a millisecond. At the rates at which most models speak nothing ever waits, nor does a burst.
"""

from collections.abc import Callable
from typing import Final

_READS: Final = 16
_RACING: Final = 0.032  # seconds in which so many reads come, at the most: 500 a second
PAUSE: Final = 0.001  # seconds


class ReadCoalescer:
    """One stream's. `clock` gives seconds."""

    __slots__ = ("_clock", "_left", "_racing", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._left = _READS
        self._racing = False

    def should_pause(self) -> bool:
        """Whether to wait for PAUSE before the next read. To be asked once a read."""
        self._left -= 1
        if not self._left:
            now = self._clock()
            self._racing = now - self._since < _RACING
            self._since = now
            self._left = _READS
        return self._racing
