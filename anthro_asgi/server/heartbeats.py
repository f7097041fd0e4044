"""When each worker's event loop last ran, in memory that the supervisor and its workers share."""

import time
from typing import Final

from ..observability.shared_counters import CounterLayout, SharedCounters

INTERVAL: Final = 0.5  # seconds between two heartbeats
NEGLECTED: Final = 1.5  # seconds without a heartbeat after which other workers accept the connections of a worker


class Heartbeats:
    """The last heartbeat of each of `workers`. Create it before the fork. Times are of the monotonic clock."""

    def __init__(self, workers: int) -> None:
        layout = CounterLayout("")
        self._place = layout.add("gauge", "heartbeat", "Time of the last heartbeat").place
        self._counters = SharedCounters(layout, workers)

    def beat(self, worker: int) -> None:
        """The event loop of `worker` runs now."""
        self._counters.slots[worker][self._place] = time.monotonic()

    def last(self, worker: int, default: float) -> float:
        """The time of the last heartbeat, in seconds; `default` before the first."""
        return self._counters.slots[worker][self._place] or default

    def neglected(self, worker: int) -> list[int]:
        """The other workers whose event loop has not run lately, or which have no process."""
        latest = time.monotonic() - NEGLECTED
        others = range(len(self._counters.slots))
        return [other for other in others if other != worker and self.last(other, 0.0) < latest]

    def clear(self, worker: int) -> None:
        """The process of `worker` has ended."""
        self._counters.clear_gauges(worker)
