"""`python -m tests.checks.first_hour [KIND…]`: follow the pages of these kinds of user, or of all."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.checks.first_hour.fresh import Fresh, StepFailed
from tests.checks.first_hour.steps import KINDS


def main() -> int:
    """The exit status: 1 if a page does not work."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks.first_hour", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    failed = []
    for name in parser.parse_args().kinds or KINDS:
        kind, began = KINDS[name], time.monotonic()
        print(f"{name}: docs/{kind.page}", flush=True)
        with tempfile.TemporaryDirectory(prefix="first-hour-") as folder:
            try:
                kind.script(Fresh(Path(folder), kind.page))
            except StepFailed as exc:
                failed.append(name)
                print(f"  FAILED: {exc}", flush=True)
            else:
                print(f"  ok after {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
