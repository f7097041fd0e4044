"""How times and lengths are spread. Pure: the randomness is handed in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp, inf, log, sqrt
from typing import Final, Literal, Protocol

Shape = Literal["constant", "uniform", "normal", "log-normal", "gamma"]
SHAPES: Final[tuple[Shape, ...]] = ("constant", "uniform", "normal", "log-normal", "gamma")


class Draws(Protocol):
    """What is needed of a `random.Random`."""

    def uniform(self, a: float, b: float) -> float: ...
    def gauss(self, mu: float, sigma: float) -> float: ...
    def gammavariate(self, alpha: float, beta: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of what is never negative.

    `first` and `second` are the mean and the standard deviation, and of `uniform` its two ends. What a normal
    distribution has below zero is zero. Raises ValueError for numbers that make none.
    """

    shape: Shape
    first: float
    second: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"{self.shape!r} is none of {', '.join(SHAPES)}")
        if not (0 <= self.first < inf and 0 <= self.second < inf):
            raise ValueError(f"{self.first} and {self.second} must be 0 or more")
        if self.shape == "uniform" and self.first > self.second:
            raise ValueError(f"{self.first} to {self.second} is no range")

    @classmethod
    def of(cls, value: "Spread | tuple[Shape, float, float] | float") -> "Spread":
        """A spread written in short: a number is a constant."""
        if isinstance(value, Spread):
            return value
        return cls(*value) if isinstance(value, tuple) else cls("constant", value)

    def __str__(self) -> str:
        constant = self.shape == "constant"
        return f"{self.first:g}" if constant else f"{self.shape}({self.first:g}, {self.second:g})"

    @property
    def zero(self) -> bool:
        """Whether every draw is 0."""
        return self.first == 0 and (self.second == 0 or self.shape in ("constant", "log-normal", "gamma"))

    def drawn_by(self, draws: Draws) -> Callable[[], float]:
        """Draws one value each time it is called."""
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

    def draw(self, draws: Draws) -> float:
        """One value."""
        return self.drawn_by(draws)()

    def whole(self, draws: Draws) -> int:
        """One value as a length: a whole number, at least 1."""
        return max(1, round(self.draw(draws)))
