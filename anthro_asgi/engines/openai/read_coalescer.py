"""How long to wait before the next read of a fast stream, so that several tokens are handled in one step. Pure.

Chunks that arrive in one read are converted and sent together, so each costs a fraction of what it costs alone. When a
stream delivers hundreds of reads per second, a delay of one millisecond is invisible to a reader, but each separate
read costs the server, the client and every other stream a cycle of the event loop. So after 16 consecutive reads at
more than 500 reads per second, each following read is delayed by one millisecond. Slower streams and short bursts are
never delayed.
"""

from collections.abc import Callable
from typing import Final

_READS: Final = 16
_FAST: Final = 0.032  # seconds; 16 reads within it are a rate above 500 per second
PAUSE: Final = 0.001  # seconds


class ReadCoalescer:
    """The delay of one stream. `clock` returns seconds."""

    __slots__ = ("_clock", "_is_fast", "_left", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._left = _READS
        self._is_fast = False

    def should_pause(self) -> bool:
        """Whether to wait for PAUSE seconds before the next read. Call it once per read."""
        self._left -= 1
        if not self._left:
            now = self._clock()
            self._is_fast = now - self._since < _FAST
            self._since = now
            self._left = _READS
        return self._is_fast
