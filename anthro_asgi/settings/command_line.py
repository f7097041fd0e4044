"""The parser of commands whose options are not settings: a misspelt option is named, with the most similar one."""

from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from typing import Final, NoReturn

_UNKNOWN: Final = "unrecognized arguments: "  # how argparse begins its error


class Parser(ArgumentParser):
    """An ArgumentParser that asks `did you mean …?` about an unknown option. Its subparsers are of the same class."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and end the process with status 2."""
        found, unknown, words = message.partition(_UNKNOWN)
        option = next((word.partition("=")[0] for word in words.split() if word.startswith("--")), None)
        if unknown and not found and option is not None:
            from .loader import did_you_mean  # only needed for an error

            message = f"unknown option {option!r:.80}{did_you_mean(option, _options(self))}"
        super().error(message)


def _options(parser: ArgumentParser) -> Iterator[str]:
    """The long options of a parser and of its subparsers."""
    for action in parser._actions:  # argparse has no public list of what it parses
        yield from (name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, _SubParsersAction):
            for one in action.choices.values():
                yield from _options(one)
