"""`python -m bench COMMAND`: see each package's first lines. Without a command: measure everything, then report."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

try:
    from . import clock, every, guard, hold, load, metered, micro, peers, record, report, soak, start
except ModuleNotFoundError as exc:
    if exc.name not in ("httptools", "uvloop"):
        raise
    sys.exit(f"python -m bench needs {exc.name}: pip install 'anthro-asgi[bench]'")

Command = tuple[str, str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


def _nothing(_: Any) -> None:
    """A command without options."""


COMMANDS: tuple[Command, ...] = (
    ("micro", "nanoseconds an operation, and ratios to a floor", micro.add_arguments, micro.main),
    ("load", "load on any Messages server, and what it measured", load.add_arguments, load.main),
    ("peers", "this service, the floor and other fronts, side by side", peers.add_arguments, peers.main),
    ("report", "a page with plots, and a table, of what was measured", report.add_arguments, report.main),
    ("hold", "how long one request holds the event loop", hold.add_arguments, hold.main),
    ("clock", "how exactly the simulated engine keeps its moments", clock.add_arguments, clock.main),
    ("record", "what a server says, and when, for the simulated engine to replay", record.add_arguments, record.main),
    ("metered", "what it adds to a token that it is counted", metered.add_arguments, metered.main),
    ("guard", "fail when a ratio is past its bar by half", _nothing, guard.main),
    (
        "soak",
        "a thousand streams, faults and leavers: nothing grows or is left",
        soak.add_arguments,
        soak.main,
    ),
    ("start", "seconds from process start to listening, and idle memory", start.add_arguments, start.main),
    ("all", "micro and peers, then the report of both: what no command does", every.add_arguments, every.main),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the service costs, measured.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary, add_arguments, run in COMMANDS:
        command = commands.add_parser(name, help=summary, description=summary)
        add_arguments(command)
        command.set_defaults(run=run)
    options = parser.parse_args(sys.argv[1:] or ["all"])
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
