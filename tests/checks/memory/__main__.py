"""Prints what each shape takes at each size. The exit status is 1 if one is beyond the bounds."""

import argparse
import sys

from tests.checks.memory import MIB, SHAPES, measure, running_service


def main(sizes: list[float], only: str, options: list[str]) -> int:
    bad = 0
    for name, make in SHAPES.items():
        if only not in name:
            continue
        for size in sizes:
            with running_service(name, *options) as service:
                result = measure(service, make(int(size * MIB)))
            bad += not result.is_within_bounds()
            print(f"{name:30}{result}{'' if result.is_within_bounds() else '  BEYOND THE BOUND'}", flush=True)
    print(f"{bad} beyond the bounds" if bad else "all within the bounds")
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.checks.memory", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=float, default=[0.5, 3, 12.5, 32], metavar="MIB")
    parser.add_argument("--only", default="", help="only shapes whose name contains this")
    parser.add_argument("--option", action="append", default=[], help="a further option of the service")
    given = parser.parse_args()
    sys.exit(main(given.sizes, given.only, given.option))
