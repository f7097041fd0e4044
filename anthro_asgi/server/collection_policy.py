"""Decides when garbage is collected, and how much of it. Pure: the caller tells the time and the memory in use.

Theory. Reference counts free nearly all objects; the garbage collector is needed for reference cycles only. A full
collection visits every object that it tracks. An open stream has more than a hundred of these, so with 8 000 streams a
full collection stops all of them for hundreds of milliseconds. CPython starts one by itself whenever the number of
objects has grown by a quarter. Under this policy it does not. Objects pass through three ages:

    young ──► CPython's own collections of the generations 0 and 1, as usual: some thousand objects, under 1 ms
      │
      │ survive two collections
      ▼
    recent ─► RECENT, after every second collection of generation 1. It visits these objects alone, so its pause is
      │       bounded. The survivors are frozen (`gc.freeze`): RECENT never visits them again.
      ▼
    frozen ─► ALL visits everything. Its pause grows with the number of open streams. So it runs when no request has
              been open for two seconds; with open requests only if memory has grown by more than a bound.

This service leaves no cycles behind (tests/http/test_garbage.py), but an engine in the same process may. Its cycles
stay in memory at most until ALL, so the bound on growth limits how much memory they take.
"""

from enum import Enum
from typing import Final

RECENT_AFTER: Final = 2
"""Collections of generation 1 after which RECENT runs. Each of them adds at most 8 000 objects to the recent ones."""
IDLE: Final = 2.0
"""Seconds without an open request after which ALL may run."""
STREAM_MEMORY: Final = 64 * 1024
"""Bytes by which memory may grow for each open request, in addition to the bound: no garbage, but streams."""
_WORTHWHILE: Final = 8
"""Runs of RECENT before ALL is worth its cost when idle: with fewer, at most 130 000 objects have been frozen."""

Collection = Enum("Collection", "NOTHING RECENT ALL")
NOTHING, RECENT, ALL = Collection


class CollectionPolicy:
    """The state of the policy.

    Args:
        growth: bytes by which memory may grow, beyond what open requests explain, before ALL runs although requests
            are open.
        resident: bytes of resident memory now. Where it is unknown, 0: then memory is not bounded.
    """

    __slots__ = ("_base", "_growth", "_idle_since", "_middle", "_recent")

    def __init__(self, growth: int, resident: int) -> None:
        self._growth = growth
        self._base = resident  # bytes of memory that no later growth explains: measured after ALL
        self._middle = 0  # collections of generation 1 since the last RECENT
        self._recent = 0  # runs of RECENT since the last ALL
        self._idle_since: float | None = None

    def after_middle(self) -> Collection:
        """What to collect after a collection of generation 1: RECENT or NOTHING."""
        self._middle += 1
        return RECENT if self._middle == RECENT_AFTER else NOTHING

    def on_tick(self, now: float, open_requests: int, resident: int) -> Collection:
        """What to collect now: ALL or NOTHING. To be called about once a second; `now` is in seconds."""
        if open_requests:
            self._idle_since = None
            allowed = self._base + self._growth + open_requests * STREAM_MEMORY
            return ALL if resident > allowed else NOTHING
        if self._idle_since is None:
            self._idle_since = now
        return ALL if self._recent >= _WORTHWHILE and now - self._idle_since >= IDLE else NOTHING

    def collected_recent(self) -> None:
        """RECENT has run."""
        self._middle = 0
        self._recent += 1

    def collected_all(self, open_requests: int, resident: int) -> None:
        """ALL has run. Memory may grow by the same bound again."""
        self._middle = self._recent = 0
        self._base = max(0, resident - open_requests * STREAM_MEMORY)
