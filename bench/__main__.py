"""`python -m bench COMMAND`: what each command measures is in its module's docstring."""

import argparse
import sys
from importlib import import_module
from typing import Any, Final

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
    "metered": ("bench.metered", "what metrics add to the cost of a token"),
    "batches": ("bench.batches", "throughput of message batches, and the latency of clients beside them"),
    "guard": ("bench.guard", "fail when a ratio exceeds its bar, or what is reached today, by half"),
    "soak": ("tests.checks.soak", "a thousand streams with faults and disconnects: nothing may grow or be left over"),
    "start": ("bench.start", "seconds from process start to listening, and idle memory"),
    "all": ("bench.every", "peers, pauses, hold and micro, then the report of them"),
    "crosscheck": ("tests.checks.crosscheck.command", "whether AIPerf, guidellm and our load generator agree"),
}


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
            loaded = _load(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.main)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(words)
    with ended_by_signals():
        status: int = options.run(options)
    return status


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name in ("httptools", "uvloop"):
            sys.exit(f"python -m bench needs {exc.name}: pip install 'anthro-asgi[bench]'")
        if exc.name in ("tests", "tests.checks"):
            sys.exit("this command needs a checkout of the repository: run it in the folder that has tests/")
        raise


if __name__ == "__main__":
    sys.exit(main())
