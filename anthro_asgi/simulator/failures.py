"""Simulated failures: which kind, how often, and where in an answer. Pure.

429, 529, 500   the request is refused with that status
error           the answer ends in the middle with an error event
stall           the answer pauses in the middle, then goes on
cut             the connection is closed in the middle of the answer
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Protocol, assert_never

from ..wire.errors import EngineFailed, Overloaded, RateLimited, SimulatedDisconnect

Kind = Literal["429", "529", "500", "error", "stall", "cut"]
FAILURE_KINDS: Final[tuple[Kind, ...]] = ("429", "529", "500", "error", "stall", "cut")
_RETRY_AFTER: Final = (("retry-after", "1"),)


class RandomSource(Protocol):
    """The methods of `random.Random` that are used here."""

    def random(self) -> float: ...
    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class PlannedFailure:
    """One failure of one answer. `place` is the number of tokens sent before it; 0 for a refusal."""

    kind: Kind
    place: int = 0

    def raise_error(self) -> NoReturn:
        """Raises the error of this kind. A `stall` raises nothing, so it must not be called for one."""
        match self.kind:
            case "429":
                raise RateLimited("a simulated rate limit", reason="simulated", headers=_RETRY_AFTER)
            case "529":
                raise Overloaded("a simulated overload", reason="simulated")
            case "cut":
                raise SimulatedDisconnect
            case "500" | "error":
                raise EngineFailed("a simulated failure", reason="simulated")
            case "stall":
                raise AssertionError("a stall raises no error")
            case _:
                assert_never(self.kind)


class FailureRates:
    """The rate of each kind, from 0 to 1. Raises ValueError for an unknown kind or rates that exceed 1 together."""

    __slots__ = ("_rates",)

    def __init__(self, rates: Iterable[tuple[str, float]] = ()) -> None:
        self._rates: dict[Kind, float] = {}
        for name, rate in rates:
            kind = next((kind for kind in FAILURE_KINDS if kind == name), None)
            if kind is None or not 0 <= rate <= 1 or kind in self._rates:
                raise ValueError(
                    f"{name}={rate:g}: one of {', '.join(FAILURE_KINDS)}, each once, with a rate from 0 to 1"
                )
            self._rates[kind] = rate
        if sum(self._rates.values()) > 1.000001:
            raise ValueError("the failure rates add up to more than 1")

    def __bool__(self) -> bool:
        return any(self._rates.values())

    def __repr__(self) -> str:
        return " ".join(f"{kind}={rate:g}" for kind, rate in self._rates.items())

    def draw(self, chance: RandomSource) -> Kind | None:
        """The failure of one request, drawn at random; None for most."""
        left = chance.random()
        for kind, rate in self._rates.items():
            left -= rate
            if left < 0:
                return kind
        return None


def place_failure(kind: Kind, tokens: int, chance: RandomSource) -> PlannedFailure:
    """A failure at a random place of an answer of `tokens` tokens: after the first and before the last."""
    return PlannedFailure(kind, 1 + chance.randrange(max(1, tokens - 1)))


def is_refusal(kind: Kind | None) -> bool:
    """Whether the request is refused before its answer begins."""
    return kind in ("429", "529", "500")
