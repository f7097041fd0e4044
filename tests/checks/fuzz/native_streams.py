"""Mutated streams through the native conversion under AddressSanitizer and UndefinedBehaviorSanitizer, without Python.

    python -m tests.checks.fuzz.native_streams --count 1000000

Compiles `native_streams.c` with gcc and runs it: fifty thousand streams per second and core. The exit status is 1 for a
stream that breaks a rule, and that of the sanitizer for a bug that it reports.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.checks.fuzz.native_module import compile_sanitized

SOURCE = Path(__file__).with_name("native_streams.c")


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.fuzz.native_streams", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, metavar="N", help="streams (default 1000000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="same seed, same streams (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        program = Path(folder, "native_streams")
        compile_sanitized(SOURCE, program)
        return subprocess.run([program, str(options.count), str(options.seed)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
