"""`python -m bench micro|start|guard`: see each module's first lines."""

import argparse
import sys

from . import guard, micro, start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the service costs, measured.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("micro", help="nanoseconds an operation, and ratios to a floor")
    one.add_argument("--rounds", type=int, default=41, help="pairs of measurements (default 41)")
    two = commands.add_parser("start", help="seconds from process start to listening, and idle memory")
    two.add_argument("--runs", type=int, default=7, help="starts (default 7)")
    commands.add_parser("guard", help="fail when a ratio is past its bar by half")
    options = parser.parse_args()
    if options.command == "micro":
        micro.report(options.rounds)
    elif options.command == "start":
        start.report(options.runs)
    else:
        return guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
