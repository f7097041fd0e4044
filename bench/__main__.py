"""`python -m bench COMMAND`: what each command measures is in its module's docstring."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final

from anthro_asgi.bench.processes import ended_by_signals

COMMANDS: Final = {  # name → (module with `add_arguments` and `main`, summary)
    "micro": ("bench.micro", "nanoseconds per operation, and ratios to a floor"),
    "ceiling": ("bench.ceiling", "the highest rate of the load generator"),
    "peers": ("bench.peers", "this service, a byte relay and other proxies, side by side"),
    "report": ("bench.report", "a page with plots, and Markdown tables, from result files"),
    "hold": ("tests.checks.stall", "how long one request blocks the event loop"),
    "request": ("bench.per_request", "what one whole request costs"),
    "pauses": ("bench.pauses", "how long streams stand still while thousands of them are open"),
    "clock": ("bench.clock", "how exactly the simulated engine keeps its schedule"),
    "transit": ("bench.transit", "how long a token is on its way through the native thread, and through a relay"),
    "metered": ("bench.metered", "what metrics add to the cost of a token"),
    "batches": ("bench.batches", "throughput of message batches, and the latency of clients beside them"),
    "guard": ("bench.guard", "fail when a ratio exceeds its bar, or what is reached today, by half"),
    "soak": ("tests.checks.soak", "a thousand streams with faults and disconnects: nothing may grow or be left over"),
    "start": ("bench.start", "seconds from process start to listening, and idle memory"),
    "all": ("bench.every", "peers, pauses, hold and micro, then the report of them"),
    "crosscheck": ("tests.checks.crosscheck.command", "whether AIPerf, guidellm and our load generator agree"),
}


EXTRA: Final = ("httptools", "matplotlib", "msgspec", "numpy", "uvloop")
"""The packages of the extra `bench`. A few commands need others, which are in the extra `test`."""


def main() -> int:
    """Run the command that the command line names, or print the usage. Only that command's module is imported."""
    words = sys.argv[1:]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures what the service costs. To measure any server: anthro-asgi bench load.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if words[:1] == [name]:
            with missing_packages():
                loaded = import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.main)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(words)
    with ended_by_signals(), missing_packages():
        status: int = options.run(options)
    return status


@contextmanager
def missing_packages() -> Iterator[None]:
    """Ends the process with one line that says what to install, if a package is missing. Some are imported late."""
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package == "tests":
            sys.exit("this command needs a checkout of the repository: run it in the folder that has tests/")
        if package in ("", "anthro_asgi", "bench"):
            raise
        extra = "bench" if package in EXTRA else "test"
        sys.exit(f"this command needs {package}: pip install 'anthro-asgi[{extra}]'")


if __name__ == "__main__":
    sys.exit(main())
