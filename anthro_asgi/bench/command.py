"""`anthro-asgi bench load|record|report`. Each is a module with `add_arguments` and `main`, imported when it runs."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from ..settings.command_line import Parser
from .processes import ended_by_signals

COMMANDS: Final = {  # name → (module, summary)
    "load": (".load.command", "send load to a server of the Messages API or of chat completions, and measure it"),
    "report": (".report.command", "make an HTML page from the results of load"),
    "record": (".record", "record a server's answers, with times, for the simulated engine to replay"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = parser(arguments).parse_args(arguments)
    with ended_by_signals():
        status: int = options.run(options)
    return status


def parser(arguments: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The command line of `anthro-asgi bench`, with the options of the commands that `arguments` names."""
    whole = Parser("anthro-asgi bench", description="Measure a server.")
    actions = whole.add_subparsers(dest="action", metavar="|".join(COMMANDS), required=True)
    for name, (module, summary) in COMMANDS.items():
        one = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in arguments:
            loaded = import_module(module, __package__)
            loaded.add_arguments(one)
            one.set_defaults(run=loaded.main)
    return whole
