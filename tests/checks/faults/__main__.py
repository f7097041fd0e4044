"""`python -m tests.checks.faults`: play the matrix and print its tables.

Arguments are words: only cells whose names contain all of them are played. `--native on` plays them with the native
path.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from tests.checks.faults.cells import CELLS
from tests.checks.faults.matrix import play
from tests.checks.faults.process_faults import PROCESS_CELLS
from tests.checks.faults.table import tables
from tests.support.service import NATIVE, native


def main(words: Sequence[str]) -> int:
    """Returns the exit status: 1 when a cell is wrong. The problems of each cell are printed on standard error."""
    results = play(cell for cell in CELLS if all(word in str(cell) for word in words))
    for cell, result in results.items():
        for problem in result.problems:
            print(f"{cell}: {problem}", file=sys.stderr)
    processes = {cell: cell.play() for cell in PROCESS_CELLS if all(word in str(cell) for word in words)}
    print(tables({cell: results[cell].said for cell in CELLS if cell in results}, processes))
    wrong = sum(bool(result.problems) for result in results.values())
    wrong += sum(said != cell.expected for cell, said in processes.items())
    print(f"{len(results) + len(processes)} cells, {wrong} of them wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.checks.faults", description="Play the fault matrix.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cells whose names contain all of these")
    parser.add_argument("--native", choices=("on", "off"), default=native(), help="with the native path, or without")
    options = parser.parse_args()
    os.environ[NATIVE] = options.native  # for the services, which are started later
    sys.exit(main(options.words))
