"""Distributions of times and lengths. Pure: the caller passes the source of randomness."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp, inf, log, sqrt
from typing import Final, Literal, Protocol

Shape = Literal["constant", "uniform", "normal", "log-normal", "gamma"]
SHAPES: Final[tuple[Shape, ...]] = ("constant", "uniform", "normal", "log-normal", "gamma")


class RandomSource(Protocol):
    """The methods of `random.Random` that are used here."""

    def uniform(self, a: float, b: float) -> float: ...
    def gauss(self, mu: float, sigma: float) -> float: ...
    def gammavariate(self, alpha: float, beta: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of values that are never negative.

    `first` and `second` are the mean and the standard deviation; for `uniform`, the lower and the upper end. Negative
    values of a normal distribution become 0. Raises ValueError for invalid numbers.
    """

    shape: Shape
    first: float
    second: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"{self.shape!r} is not one of {', '.join(SHAPES)}")
        if not (0 <= self.first < inf and 0 <= self.second < inf):
            raise ValueError(f"{self.first} and {self.second} must be 0 or more")
        if self.shape == "uniform" and self.first > self.second:
            raise ValueError(f"{self.first} to {self.second} is not a range")

    @classmethod
    def of(cls, value: "Distribution | tuple[Shape, float, float] | float") -> "Distribution":
        """A distribution from its short form: a number is a constant."""
        if isinstance(value, Distribution):
            return value
        return cls(*value) if isinstance(value, tuple) else cls("constant", value)

    def __str__(self) -> str:
        constant = self.shape == "constant"
        return f"{self.first:g}" if constant else f"{self.shape}({self.first:g}, {self.second:g})"

    @property
    def zero(self) -> bool:
        """Whether every draw is 0."""
        return self.first == 0 and (self.second == 0 or self.shape in ("constant", "log-normal", "gamma"))

    def sampler(self, draws: RandomSource) -> Callable[[], float]:
        """RandomSource one value each time it is called."""
        first, second = self.first, self.second
        if self.shape == "uniform":
            return partial(draws.uniform, first, second)
        if self.zero or self.shape == "constant" or not second:
            return lambda: first
        if self.shape == "normal":
            return lambda: max(0.0, draws.gauss(first, second))
        if self.shape == "gamma":
            return partial(draws.gammavariate, (first / second) ** 2, second**2 / first)
        square = log(1 + (second / first) ** 2)  # the variance of the logarithm
        middle, sigma = log(first) - square / 2, sqrt(square)
        return lambda: exp(draws.gauss(middle, sigma))

    def draw(self, draws: RandomSource) -> float:
        """One value."""
        return self.sampler(draws)()

    def whole(self, draws: RandomSource) -> int:
        """One value as a length: a whole number, at least 1."""
        return max(1, round(self.draw(draws)))
