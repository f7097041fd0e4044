"""`python -m tests.checks.large_batch`: prints what a large batch takes. Exit status 1 if it is more than it may be."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.checks.large_batch import MB, measure


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.large_batch", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--short", action="store_true", help="8 MB with 800 requests")
    given = parser.parse_args()
    size, requests = (8, 800) if given.short else (given.megabytes, given.requests)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), size * MB, requests)
    print(result)
    problems = result.problems(requests)
    print("\n".join(problems) or "all within the bounds")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
