"""`python -m tests.checks.soak`: one soak run; exit status 0 when every invariant holds."""

import argparse
import sys

from anthro_asgi.bench.processes import ended_by_signals

from . import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.checks.soak", description="A long run under faults.")
    add_arguments(parser)
    with ended_by_signals():
        sys.exit(main(parser.parse_args()))
