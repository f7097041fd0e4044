"""Prints what each shape takes at each size. The exit status is 1 if one is beyond the bounds."""

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.checks.memory import MIB, SHAPES, SHORT, Result, measure, running_service

_SIZES: Final = (0.5, 3, 12.5, 32)  # MiB
_SHORT_SIZE: Final = 2
_JOBS: Final = 3  # services at the same time, in the short form


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.memory", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=float, metavar="MIB", help="default 0.5, 3, 12.5 and 32")
    parser.add_argument("--only", default="", metavar="WORDS", help="only shapes whose name contains this")
    parser.add_argument("--option", action="append", default=[], help="a further option of the service")
    parser.add_argument("--short", action="store_true", help="some shapes of each kind, with 2 MiB each")
    given = parser.parse_args()
    shapes = [name for name in (SHORT if given.short else SHAPES) if given.only in name]
    sizes = given.sizes or ((_SHORT_SIZE,) if given.short else _SIZES)
    bad = run(((shape, size) for shape in shapes for size in sizes), given.option, _JOBS if given.short else 1)
    print(f"{bad} beyond the bounds" if bad else "all within the bounds")
    return 1 if bad else 0


def run(cases: Iterable[tuple[str, float]], options: list[str], jobs: int) -> int:
    """Measure the cases and print them; returns how many are beyond the bounds."""

    def measured(case: tuple[str, float]) -> Result:
        shape, size = case
        with running_service(shape, *options) as service:
            result = measure(service, SHAPES[shape](int(size * MIB)))
        print(f"{shape:30}{result}{'' if result.is_within_bounds() else '  BEYOND THE BOUND'}", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not result.is_within_bounds() for result in pool.map(measured, cases))


if __name__ == "__main__":
    sys.exit(main())
