"""Samples of one quantity: mean, standard deviation, percentiles. Pure."""

from array import array
from math import ceil, fsum, sqrt
from typing import Final

from ..records import Percentiles

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_SHARES: Final = tuple(number / 100 for number in range(101))


class Samples:
    """Integers, 8 bytes each: `add(value)`, or `zeros += n` for chunks that arrive together.

    Results are the values divided by `unit`: with its default, nanoseconds become seconds.
    """

    __slots__ = ("_unit", "_values", "add", "zeros")

    def __init__(self, unit: float = 1e9) -> None:
        self.zeros = 0
        self._unit = unit
        self._values = array("q")
        self.add = self._values.append

    def __len__(self) -> int:
        return self.zeros + len(self._values)

    def total(self) -> float:
        """The sum of the samples."""
        return sum(self._values) / self._unit

    def summary(self) -> Percentiles:
        """Each percentile is the smallest value that is not exceeded by that share of the samples."""
        count = len(self)
        if not count:
            return {**dict.fromkeys(("mean", "std", *PERCENTILES)), "n": 0}
        mean = sum(self._values) / count
        variance = (fsum((value - mean) ** 2 for value in self._values) + self.zeros * mean**2) / count
        found = dict(zip(PERCENTILES, self._at(tuple(PERCENTILES.values())), strict=True))
        return {"mean": mean / self._unit, "std": sqrt(variance) / self._unit, **found, "n": count}

    def quantiles(self) -> list[float]:
        """The smallest sample, each percentile from 1 to 99, and the largest; empty without samples."""
        return self._at(_SHARES) if len(self) else []

    def _at(self, shares: tuple[float, ...]) -> list[float]:
        ordered, count = sorted(self._values), len(self)
        places = (max(1, ceil(share * count)) - 1 - self.zeros for share in shares)
        return [ordered[place] / self._unit if place >= 0 else 0.0 for place in places]
