"""How many requests of batches may run while the process is short of CPU. Pure.

A request of a batch takes CPU from the clients of the same process: it needs no slot that they need, but the event loop
runs one step at a time. A loop that is short of CPU handles its timers late. So the lateness of a timer is measured,
and the limit follows it as a sender's window follows congestion: each late timer halves it, each punctual one raises it
a little. Without clients there is nothing to protect, and the limit is that of the operator.
"""

from typing import Final

PERIOD: Final = 0.02
"""Seconds between two measurements."""
_RAISE: Final = 0.1  # requests per punctual timer: 5 in a second
_CLIENTS_LEFT: Final = 1.0  # seconds without a client after which there is nothing to protect


class Throttle:
    """Args:
        concurrency: the limit of the operator.
        lateness: seconds by which a timer may be late; 0 measures nothing.

    Attributes:
        limit: requests of batches that may run now, from 1 to `concurrency`.
    """

    __slots__ = ("_concurrency", "_lateness", "_since_client", "_window", "limit")

    def __init__(self, concurrency: int, lateness: float) -> None:
        self._concurrency = concurrency
        self._lateness = lateness
        self._window = float(concurrency)
        self._since_client = _CLIENTS_LEFT
        self.limit = concurrency

    @property
    def is_on(self) -> bool:
        return self._lateness > 0

    def measured(self, late: float, *, clients: bool) -> None:
        """A timer was handled `late` seconds after its time. `clients`: requests of clients run."""
        self._since_client = 0.0 if clients else self._since_client + PERIOD
        if self._since_client >= _CLIENTS_LEFT:
            self._window = float(self._concurrency)
        elif late > self._lateness:
            self._window = max(1.0, self._window / 2)
        else:
            self._window = min(float(self._concurrency), self._window + _RAISE)
        self.limit = int(self._window)
