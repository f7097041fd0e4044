"""Durations in nanoseconds, kept so that percentiles can be told, in bounded memory and at next to no cost each.

Up to a million are kept as they are and the percentiles are exact. From then on each is put in a bucket, of which an
octave has 128, and a percentile is right to 0.4 %, the maximum still exact; `settle` makes the change, so that adding
never stalls. Zeros, of which there are many when tokens arrive together, are only counted.
"""

from array import array
from collections.abc import Iterator
from math import ceil
from typing import Final

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_EXACT: Final = 1 << 20
_BITS: Final = 7  # of a value that its bucket keeps, after the first


class Samples:
    """`add` one value, an int that is not negative; or `zeros += n`."""

    __slots__ = ("_buckets", "_exact", "_limit", "_most", "add", "zeros")

    def __init__(self, limit: int = _EXACT) -> None:
        self.zeros = 0
        self._limit = limit
        self._exact = array("q")
        self._buckets: dict[int, int] = {}
        self._most = 0  # of those in buckets
        self.add = self._exact.append

    def __len__(self) -> int:
        return self.zeros + len(self._exact) + sum(self._buckets.values())

    def settle(self) -> None:
        """To be called now and then: turn to buckets when there are many."""
        if len(self._exact) > self._limit:
            self.add = self._bucket

    def summary(self) -> dict[str, float | int | None]:
        """The percentiles in seconds, each the smallest value that as large a part does not exceed; `n` of them."""
        count = len(self)
        if not count:
            return {**dict.fromkeys(PERCENTILES), "n": 0}
        found = self._ranked([max(1, ceil(part * count)) for part in PERCENTILES.values()])
        found[-1] = float(max(self._most, max(self._exact, default=0)))
        return {**{name: value / 1e9 for name, value in zip(PERCENTILES, found, strict=True)}, "n": count}

    def _bucket(self, value: int) -> None:
        key = _key(value)
        self._buckets[key] = self._buckets.get(key, 0) + 1
        if value > self._most:
            self._most = value

    def _ranked(self, ranks: list[int]) -> list[float]:
        # Ranks ascend, and are counted from 1.
        found: list[float] = []
        passed = 0
        for value, count in self._ascending():
            passed += count
            while len(found) < len(ranks) and ranks[len(found)] <= passed:
                found.append(value)
        return found

    def _ascending(self) -> Iterator[tuple[float, int]]:
        if self.zeros:
            yield 0.0, self.zeros
        if not self._buckets:
            yield from ((float(value), 1) for value in sorted(self._exact))
            return
        counts = dict(self._buckets)
        for value in self._exact:
            key = _key(value)
            counts[key] = counts.get(key, 0) + 1
        yield from ((_middle(key), counts[key]) for key in sorted(counts))


def _key(value: int) -> int:
    """Buckets are numbered in order of what they hold."""
    shift = value.bit_length() - _BITS - 1
    return value if shift <= 0 else (shift << _BITS) + (value >> shift)


def _middle(key: int) -> float:
    shift = (key >> _BITS) - 1
    if shift <= 0:
        return float(key)
    low = (key - (shift << _BITS)) << shift
    return low + ((1 << shift) - 1) / 2
