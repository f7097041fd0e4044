"""`python -m tests.checks.killed_batches --seconds N`: kills at random for N seconds, then compares.

With `--postgres`, the store is in a PostgreSQL server of the check, which is killed too.
Exit status 1 if a result is missing or wrong, or if something ran again whose result had been stored.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.checks.killed_batches import with_postgres, with_sqlite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.postgres:
            report = with_postgres(Path(folder), arguments.seconds, arguments.seed)
        else:
            report = with_sqlite(Path(folder), arguments.seconds, arguments.seed)
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
