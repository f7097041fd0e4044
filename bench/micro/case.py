"""One row of the table: a subject, the floor it is held against, and how it is known to be right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..timing import Comparison, Side, compare

_SHOWN = 300  # characters of what differs


@dataclass(frozen=True, slots=True)
class Case:
    """`subject` costs at least what `floor` costs. Each does the same `operations` (tokens, events, requests) a round.

    `check` raises AssertionError where the subject does not say what the oracle says. `bar` is the highest ratio that
    the project allows itself; None where the row is only for comparison.
    """

    group: str
    name: str
    floor_name: str
    floor: Side
    subject: Side
    operations: int
    check: Callable[[], None]
    bar: float | None = None

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    def measure(self, rounds: int) -> "Result":
        return Result(self, compare(self.floor, self.subject, self.operations, rounds))


@dataclass(frozen=True, slots=True)
class Result:
    """What a case cost."""

    case: Case
    cost: Comparison

    @property
    def ratio(self) -> float:
        return self.cost.ratio

    def record(self) -> dict[str, Any]:
        """A line of a result file. Times are nanoseconds an operation."""
        return {
            "kind": "micro",
            "group": self.case.group,
            "name": self.case.name,
            "ns": self.cost.subject_ns,
            "floor": self.case.floor_name,
            "floor_ns": self.cost.floor_ns,
            "ratio": self.cost.ratio,
            "bar": self.case.bar,
        }


def same(got: Any, wanted: Any, what: str) -> None:
    """Raises AssertionError, also under `python -O`, unless the two are equal."""
    if got != wanted:
        raise AssertionError(f"{what}: {_differing(got, wanted)}")


def _differing(got: Any, wanted: Any) -> str:
    """Both from where they begin to differ."""
    if not (isinstance(got, bytes | str) and type(got) is type(wanted)):
        got, wanted = repr(got), repr(wanted)
    at = next((at for at, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), None)
    begin = min(len(got), len(wanted)) if at is None else at
    begin = max(0, begin - _SHOWN // 3)
    return f"got …{got[begin : begin + _SHOWN]!r}, the oracle says …{wanted[begin : begin + _SHOWN]!r}"
