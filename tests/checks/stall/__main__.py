"""`python -m tests.checks.stall`: the same as `python -m bench hold`."""

import argparse
import sys

from anthro_asgi.bench.processes import ended_by_signals

from . import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.checks.stall", description="How long a request blocks the loop."
    )
    add_arguments(parser)
    with ended_by_signals():
        sys.exit(main(parser.parse_args()))
