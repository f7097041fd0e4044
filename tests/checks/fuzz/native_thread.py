"""The thread of the native path under ThreadSanitizer, without Python.

    python -m tests.checks.fuzz.native_thread --seconds 60
    python -m tests.checks.fuzz.native_thread --seconds 60 --sanitizers address,undefined

Compiles `native_thread.c` with gcc and runs it. The exit status is 1 for a stream that breaks a rule, and that of the
sanitizer for a bug that it reports.
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
    parser.add_argument("--seconds", type=float, default=30, metavar="N", help="how long (default 30)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first round (default 1)")
    parser.add_argument("--sanitizers", default="thread", help="those of gcc (default thread)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        program = Path(folder, "native_thread")
        compile_sanitized(SOURCE, program, sanitizers=options.sanitizers)
        return subprocess.run([program, str(options.seconds), str(options.seed)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
