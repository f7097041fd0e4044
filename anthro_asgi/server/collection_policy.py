"""Decides when a full garbage collection runs. Pure: the caller tells the time and the memory in use.

Theory. Reference counts free nearly all objects; the garbage collector is needed for reference cycles only. A full
collection visits every object that it tracks. An open stream has 150 of these, spread over memory, so with 8 000
streams a full collection stops all of them for hundreds of milliseconds. CPython starts one by itself whenever the
number of objects has grown by a quarter. Under this policy it does not:

    objects that exist at the start ─► frozen: no collection visits them
    young objects ───────────────────► collected as usual, in generations 0 and 1, but in small portions: YOUNG, TICK
    objects that survive that ───────► a full collection, when no request has been open for two seconds; with open
                                       requests only if memory has grown by more than a bound
    freed dicts, lists, tuples, floats ► CPython keeps some for reuse: the same full collection frees them

This service leaves no cycles behind (tests/http/test_garbage.py), but an engine in the same process may. Cycles of
objects that are still young are freed at once. The others stay in memory until the next full collection, so the bound
on growth limits how much memory they take.

CPython takes small objects from arenas of 1 MiB, and gives an arena back to the system once it is empty. The objects
that it keeps for reuse lie in any of the arenas that a large request has filled, and one is enough to keep an arena. So
memory that has grown is a reason for a full collection, too, as soon as the service is idle.
"""

from typing import Final

YOUNG: Final = (2_000, 1)
"""The thresholds of generations 0 and 1 in `gc.set_threshold`. A collection of generation 1 visits at most three times
2 000 objects. That takes 0.5 ms; 3 ms while other processes compete for the caches of the machine."""
TICK: Final = 0.25
"""Seconds between two calls of `collects_now`, and between two collections of generation 1 while requests are open.
CPython counts allocations minus deallocations. Where one stream ends for each that begins, it would not start a
collection for minutes, and then visit all objects that were created meanwhile."""
IDLE: Final = 2.0
"""Seconds without an open request after which a full collection may run."""
STREAM_MEMORY: Final = 64 * 1024
"""Bytes by which memory may grow for each open request, in addition to the bound: no garbage, but streams. Streams that
have ended give their memory back later. So the requests are counted at the moment when most were open."""
WORTHWHILE: Final = 20
"""Collections of generation 1 before a full collection is worth its cost when idle."""
GROWN: Final = 1024 * 1024
"""Bytes by which memory has grown since the last full collection before another one is worth its cost when idle."""


class CollectionPolicy:
    """The state of the policy.

    Args:
        growth: bytes by which memory may grow, beyond what open requests explain, before a full collection runs
            although requests are open.
        resident: bytes of resident memory now. Where it is unknown, 0: then memory is not bounded.
    """

    __slots__ = ("_base", "_growth", "_idle_since", "_most_open", "_survived")

    def __init__(self, growth: int, resident: int) -> None:
        self._growth = growth
        self._base = resident  # bytes of memory that are no growth: as measured after the last full collection
        self._survived = 0  # collections of generation 1 since then
        self._most_open = 0  # requests at the same time, since then or since the service was idle
        self._idle_since: float | None = None

    def young_collected(self) -> None:
        """A collection of generation 1 has run. Its survivors are not visited again before the next full collection."""
        self._survived += 1

    def collects_now(self, now: float, open_requests: int, resident: int) -> bool:
        """Whether to run a full collection now. To be called every TICK; `now` is in seconds."""
        if open_requests:
            self._idle_since = None
            self._most_open = max(self._most_open, open_requests)
            return resident > self._base + self._growth + self._most_open * STREAM_MEMORY
        if self._idle_since is None:
            self._idle_since = now
        self._base = min(self._base, resident)  # memory that was given back may grow again
        if now - self._idle_since < IDLE:
            return False
        self._most_open = 0
        return self._survived >= WORTHWHILE or resident > self._base + GROWN

    def collected(self, open_requests: int, resident: int) -> None:
        """A full collection has run. Memory may grow by the same bound again."""
        self._survived = 0
        self._most_open = open_requests
        self._base = max(0, resident - open_requests * STREAM_MEMORY)
