"""The command: see the package."""

import argparse
import logging
import sys
from typing import Final

from tests.checks.faults.cells import Cell
from tests.checks.hold import (
    ATTACKS,
    HANDSHAKES,
    LATE,
    LOOPS,
    MANY,
    PARSERS,
    TINY_RECORDS,
    Held,
    bodies,
    longest_hold,
    matrix,
)
from tests.checks.hold.application import MIB, Hold, scale
from tests.checks.hold.fuzz import search
from tests.checks.hold.matrix import is_within_bounds
from tests.checks.hold.shapes import IN_ANSWER, IN_REQUEST, PLACES
from tests.checks.memory import SHAPES

_PARTS: Final = {"requests": IN_REQUEST, "answers": IN_ANSWER, "both": PLACES}


def main() -> int:
    """The exit status is 1 if the event loop was held for too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.hold", description="How long the loop is held.")
    parser.add_argument("--fuzz", type=float, metavar="SECONDS", help="search for the worst bodies and answers instead")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (default 0)")
    parser.add_argument("--part", choices=_PARTS, default="both", help="what to search (default both)")
    parser.add_argument("--bodies", type=float, metavar="MIB", help="bodies of hostile shapes of this size instead")
    parser.add_argument("--many", action="store_true", help="each attack from many connections at the same moment")
    parser.add_argument("--matrix", action="store_true", help="play the clients of the fault matrix instead")
    options = parser.parse_args()
    if options.matrix:
        return _matrix()
    logging.disable()
    if options.bodies is not None:
        return _bodies(int(options.bodies * MIB))
    return (
        _attacks(MANY if options.many else 1)
        if options.fuzz is None
        else _search(options.fuzz, options.seed, _PARTS[options.part])
    )


def _attacks(connections: int) -> int:
    missed = 0
    print(f"{'attack':<34} {'parser':<10} {'loop':<8} {'hold, ms of CPU':>16} {'gap of a 20 ms stream, ms':>26}")
    for attack in [*ATTACKS, TINY_RECORDS if connections == 1 else HANDSHAKES]:
        for parser in PARSERS:
            for loop in LOOPS:
                held = longest_hold(parser, loop, attack, scale(), connections)
                is_missed = not held.is_within_bounds(scale())
                missed += is_missed
                row = f"{attack:<34} {parser:<10} {loop:<8} {held.hold * 1e3:>16.2f} {held.gap * 1e3:>26.1f}"
                print(row + "   missed" * is_missed, flush=True)
    return 1 if missed else 0


def _matrix() -> int:
    print(f"{'client':<60} {'parser':<10} {'hold, ms of CPU':>16} {'gap of a 20 ms stream, ms':>26}")

    def show(parser: str, cell: Cell, held: Held) -> None:
        row = f"{cell!s:<60} {parser:<10} {held.hold * 1e3:>16.2f} {held.gap * 1e3:>26.1f}"
        print(row + "   missed" * (not is_within_bounds(held)), flush=True)

    found = matrix.holds(matrix.CLIENTS, show).values()
    missed = sum(not is_within_bounds(held) for held in found)
    print(f"{missed} of {len(found)} held the loop for too long, or delayed a token beyond {LATE * 1e3:g} ms")
    return 1 if missed else 0


def _bodies(size: int) -> int:
    missed = 0
    print(f"{'body':<32} {'bytes':>12} {'status':>6} {'hold, ms of CPU':>16}")

    def show(shape: str, bytes_: int, held: Hold) -> None:
        nonlocal missed
        is_missed = not bodies.is_within_bounds(held, bytes_)
        missed += is_missed
        row = f"{shape:<32} {bytes_:>12,} {held.status:>6} {held.seconds * 1e3:>16.2f}"
        print(row + "   missed" * is_missed, flush=True)

    bodies.holds(SHAPES, size, show)
    return 1 if missed else 0


def _search(seconds: float, seed: int, places: tuple[str, ...]) -> int:
    finds = search(seconds, seed, lambda find: print(find, file=sys.stderr, flush=True), places)
    missed = [find for find in finds if not find.is_within_bounds]
    for find in finds:
        print(find, "" if find.is_within_bounds else "  missed")
    print(f"{len(missed)} of the worst {len(finds)} are too long")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
