"""`python -m bench micro`: what each step of a token's way costs, and of a request's, in nanoseconds.

Beside every time stands the time of a floor, named and taken in the same round (see `timing`): what nobody who does
this with a JSON library can go below. The ratio is what to trust on a machine that is busy with other things. Before
anything is timed, every subject is held against a slow, obvious oracle (see `oracles`), and one that says something
else raises AssertionError: a number for a wrong answer is worth nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from ..options import positive
from . import conversion, encoder, message, reader, request, sse, stops
from .case import Case, Result

_SUBJECTS: Final[tuple[Callable[[], list[Case]], ...]] = (
    encoder.cases,
    stops.cases,
    sse.cases,
    reader.cases,
    conversion.cases,
    request.cases,
    message.cases,
)
_ROUNDS: Final = 41


@cache
def cases() -> tuple[Case, ...]:
    """All rows of the table, in order."""
    return tuple(case for subject in _SUBJECTS for case in subject())


def measure(rounds: int, only: str | None = None, *, barred: bool = False) -> dict[str, Result]:
    """By key (`group: name`), what the cases cost whose key has `only` in it; `barred` leaves out those without a bar.

    Raises AssertionError, before anything is timed, when one of them does not say what its oracle says.
    """
    chosen = [case for case in cases() if _is_chosen(case, only, barred)]
    for case in chosen:
        case.check()
    return {case.key: case.measure(rounds) for case in chosen}


def _is_chosen(case: Case, only: str | None, barred: bool) -> bool:
    return (only is None or only in case.key) and not (barred and case.bar is None)


def report(rounds: int, only: str | None = None) -> dict[str, Result]:
    """Measure, and print the table."""
    results = measure(rounds, only)
    group = ""
    for result in results.values():
        if result.case.group != group:
            group = result.case.group
            print(
                f"\n{group:<44} {'ns':>10} {'floor ns':>10} {'ratio':>7} {'bar':>6}   floor: {result.case.floor_name}"
            )
        print(_row(result))
    return results


def _row(result: Result) -> str:
    cost, bar = result.cost, result.case.bar
    numbers = f"{cost.subject_ns:>10.0f} {cost.floor_ns:>10.0f} {cost.ratio:>7.2f}"
    if bar is None:
        return f"  {result.case.name:<42} {numbers}"
    return f"  {result.case.name:<42} {numbers} {bar:>6.1f}{'' if cost.ratio <= bar else '   missed'}"


# from the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--rounds", type=positive, default=_ROUNDS, help=f"pairs of measurements (default {_ROUNDS})")
    parser.add_argument("--only", metavar="SUBSTRING", help="only what has this in its `group: name`")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there too, a JSON line each")


def main(options: argparse.Namespace) -> int:
    """Measure, print, write. The exit status is 2 when nothing was chosen; a bar that is missed is for the guard."""
    results = report(options.rounds, options.only)
    if not results:
        print(f"nothing has {options.only!r} in its name", file=sys.stderr)
        return 2
    if options.json is not None:
        lines = [json.dumps(result.record(), ensure_ascii=False) + "\n" for result in results.values()]
        options.json.write_text("".join(lines), encoding="utf-8")
    return 0
