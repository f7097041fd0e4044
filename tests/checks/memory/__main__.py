"""Prints what each shape takes at each size. The exit status is 1 if one is beyond the bounds."""

import sys

from tests.checks.memory import MIB, SHAPES, measure, running_service


def main(sizes: list[float]) -> int:
    bad = 0
    for name, make in SHAPES.items():
        for size in sizes:
            with running_service() as service:
                result = measure(service, make(int(size * MIB)))
            bad += not result.is_within_bounds()
            print(f"{name:30}{result}{'' if result.is_within_bounds() else '  BEYOND THE BOUND'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main([float(size) for size in sys.argv[1:]] or [0.5, 2, 8, 31]))
