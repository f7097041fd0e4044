"""What goes wrong on purpose, how often, and where in an answer. Pure.

429, 529, 500   refused before anything is said, with that status
error           breaks off within the answer, with an error event
stall           falls silent within the answer for a while, and goes on
cut             the connection is closed within the answer, without a word
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Protocol

from ..wire.errors import InternalError, Overloaded, RateLimited, SimulatedDisconnect

Kind = Literal["429", "529", "500", "error", "stall", "cut"]
KINDS: Final[tuple[Kind, ...]] = ("429", "529", "500", "error", "stall", "cut")
_RETRY_AFTER: Final = (("retry-after", "1"),)


class Chance(Protocol):
    """What is needed of a `random.Random`."""

    def random(self) -> float: ...
    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One of an answer. `place` is the number of tokens said before; none for one that is refused."""

    kind: Kind
    place: int = 0

    def strike(self) -> NoReturn:
        """Raises what the kind says; not for `stall`."""
        if self.kind == "429":
            raise RateLimited("a simulated rate limit", headers=_RETRY_AFTER)
        if self.kind == "529":
            raise Overloaded("a simulated overload")
        if self.kind == "cut":
            raise SimulatedDisconnect
        raise InternalError("a simulated failure")


class Faults:
    """How often each kind befalls a request, as a part of 1. Raises ValueError for what cannot be."""

    __slots__ = ("_rates",)

    def __init__(self, rates: Iterable[tuple[str, float]] = ()) -> None:
        self._rates: dict[Kind, float] = {}
        for name, rate in rates:
            kind = next((kind for kind in KINDS if kind == name), None)
            if kind is None or not 0 <= rate <= 1 or kind in self._rates:
                raise ValueError(f"{name}={rate:g}: one of {', '.join(KINDS)}, each once, with a rate from 0 to 1")
            self._rates[kind] = rate
        if sum(self._rates.values()) > 1.000001:
            raise ValueError("the rates of all failures are more than 1 together")

    def __bool__(self) -> bool:
        return any(self._rates.values())

    def __repr__(self) -> str:
        return " ".join(f"{kind}={rate:g}" for kind, rate in self._rates.items())

    def draw(self, chance: Chance) -> Kind | None:
        """What befalls one request."""
        left = chance.random()
        for kind, rate in self._rates.items():
            left -= rate
            if left < 0:
                return kind
        return None


def placed(kind: Kind, tokens: int, chance: Chance) -> Fault:
    """Where in an answer of so many tokens it happens: after the first, and before the last if there is one."""
    return Fault(kind, 1 + chance.randrange(max(1, tokens - 1)))


def refuses(kind: Kind | None) -> bool:
    """Whether nothing is said at all."""
    return kind in ("429", "529", "500")
