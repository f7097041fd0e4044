"""From values to places on an axis, linear or logarithmic, with round ticks."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final, Protocol

_MANY_DECADES: Final = 2.5  # with more, only the powers of ten and the ends are ticks


class Scale(Protocol):
    """An axis between two places."""

    def at(self, value: float) -> float:
        """The place of a value, no further out than the ends."""

    def ticks(self) -> list[float]:
        """Round values within the axis."""


@dataclass(frozen=True, slots=True)
class Linear:
    """From nothing (`start`) to `high` (`end`)."""

    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> "Linear":
        """An axis that holds the values, and ends at a tick."""
        most = max(values, default=0.0) or 1.0
        step = _step(most)
        return cls(ceil(most / step - 1e-9) * step, start, end)

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * min(1.0, max(0.0, value / self.high))

    def ticks(self) -> list[float]:
        step = _step(self.high)
        return [index * step for index in range(round(self.high / step) + 1)]


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten, so that `most` is between two and five of them."""
    size: float = 10.0 ** floor(log10(most))
    return next(size * part for part in (0.2, 0.5, 1.0, 2.0) if most / (size * part) <= 5.0001)


@dataclass(frozen=True, slots=True)
class Log:
    """From `low` (`start`) to `high` (`end`), both above nothing."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> "Log":
        """An axis that holds the values above nothing, and begins and ends at 1, 2 or 5 times a power of ten."""
        found = [value for value in values if value > 0] or [1.0]
        low, high = _below(min(found)), _above(max(found))
        return cls(low, high if high > low else low * 10, start, end)

    def at(self, value: float) -> float:
        if value <= self.low:
            return self.start
        share = log10(value / self.low) / log10(self.high / self.low)
        return self.start + (self.end - self.start) * min(1.0, share)

    def ticks(self) -> list[float]:
        wide = log10(self.high / self.low) > _MANY_DECADES
        powers = range(floor(log10(self.low)) - 1, ceil(log10(self.high)) + 1)
        inner = [10.0**power * part for power in powers for part in ((1,) if wide else (1, 2, 5))]
        return [self.low, *(value for value in inner if self.low * 1.001 < value < self.high * 0.999), self.high]


def _below(value: float) -> float:
    size: float = 10.0 ** floor(log10(value))
    return max(size * part for part in (1, 2, 5) if size * part <= value * 1.0001)


def _above(value: float) -> float:
    size: float = 10.0 ** floor(log10(value))
    return min(size * part for part in (1, 2, 5, 10) if size * part >= value * 0.9999)
