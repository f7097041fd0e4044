"""When requests come, in the open loop: moments drawn beforehand, whatever becomes of the requests before.

Offsets are in seconds from the start, and never end; the same seed gives the same.
"""

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

Offsets = Iterator[float]


def constant(rate: float, burst: int, seed: int) -> Offsets:
    """Evenly spread."""
    return (number / rate for number in count())


def poisson(rate: float, burst: int, seed: int) -> Offsets:
    """Each independent of the others, as from a great many clients."""
    draw = random.Random(seed)  # noqa: S311 (nothing secret)
    now = 0.0
    while True:
        now += draw.expovariate(rate)
        yield now


def bursts(rate: float, burst: int, seed: int) -> Offsets:
    """`burst` at a time, as far apart as makes `rate` in the mean."""
    return (number // burst * burst / rate for number in count())


ARRIVALS: Final[dict[str, Callable[[float, int, int], Offsets]]] = {
    "poisson": poisson,
    "constant": constant,
    "bursts": bursts,
}
