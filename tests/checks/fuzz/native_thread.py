"""Mutated streams through the thread of the native path under sanitizers, without Python.

    python -m tests.checks.fuzz.native_thread --count 1000000
    python -m tests.checks.fuzz.native_thread --seconds 60 --sanitizers thread

Compiles `native_thread.c` with gcc and runs it: one or two thousand streams per second. It ends after so many streams
or seconds, whichever comes first. The exit status is 1 for a stream that breaks a rule, and that of the sanitizer for a
bug that it reports.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.checks.fuzz.native_module import compile_sanitized

SOURCE = Path(__file__).with_name("native_thread.c")


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.fuzz.native_thread", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, metavar="N", help="streams (default 1000000)")
    parser.add_argument("--seconds", type=float, default=86_400, metavar="N", help="how long (default 86400)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="same seed, same streams (default 1)")
    parser.add_argument("--sanitizers", default="address,undefined", help="of gcc (default address,undefined)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        program = Path(folder, "native_thread")
        compile_sanitized(SOURCE, program, sanitizers=options.sanitizers)
        command = [str(program), str(options.count), str(options.seconds), str(options.seed)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
