"""`python -m bench micro`: what each step of a token's way, and of a request's, costs in nanoseconds.

Beside each time is the time of a floor from the same round: the work that any server with a JSON library has to do. On
a busy machine only the ratio of the two is reliable. Before anything is timed, the result of every operation is checked
against a slow, obvious way to compute it; a wrong one raises AssertionError.
"""

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Final

from anthro_asgi.bench.options import positive

from ..records import Micro, json_line
from . import conversion, native, parts, request
from .case import Case

_ROUNDS: Final = 41


@cache
def cases() -> tuple[Case, ...]:
    """All rows of the table, in order."""
    first = (parts.encoder(), parts.stop_matcher(), parts.sse_parser(), parts.chunk_reader())
    groups = (*first, conversion.cases(), native.cases(), request.cases(), parts.message())
    return tuple(case for group in groups for case in group)


def measure(rounds: int, only: str | None = None, *, barred: bool = False) -> dict[str, Micro]:
    """By key (`group: name`), the cost of the cases whose key contains `only`; `barred` selects those with a bar.

    Raises AssertionError, before anything is timed, when a result is wrong.
    """
    chosen = [case for case in cases() if (only is None or only in case.key) and not (barred and case.bar is None)]
    for case in chosen:
        case.check()
    return {case.key: case.measure(rounds) for case in chosen}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--rounds", type=positive, default=_ROUNDS, help=f"pairs of measurements (default {_ROUNDS})")
    parser.add_argument("--only", metavar="SUBSTRING", help="only rows whose `group: name` contains this")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results to FILE too, as JSON lines")


def main(options: argparse.Namespace) -> int:
    """The exit status is 2 when no row was chosen. A bar that is exceeded is the guard's business."""
    results = measure(options.rounds, options.only)
    if not results:
        print(f"no row contains {options.only!r}", file=sys.stderr)
        return 2
    group = ""
    for one in results.values():
        if one.group != group:
            group = one.group
            print(f"\n{group:<44} {'ns':>10} {'floor ns':>10} {'ratio':>7} {'bar':>6}   floor: {one.floor}")
        bar = "" if one.bar is None else f" {one.bar:>6.1f}{'' if one.ratio <= one.bar else '   missed'}"
        print(f"  {one.name:<42} {one.ns:>10.0f} {one.floor_ns:>10.0f} {one.ratio:>7.2f}{bar}")
    if options.json is not None:
        options.json.write_bytes(b"".join(map(json_line, results.values())))
    return 0
