"""Option types of the bench's commands, and the words for files that cannot be used.

Each type raises argparse.ArgumentTypeError with a text for the operator.
"""

import argparse
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from ..settings.values import KEY, duration

Number = TypeVar("Number", int, float)

_TIME: Final = duration("0", "8760h")


class Condition(NamedTuple):
    """Options that have an effect only where `is_met` is true of all options.

    `otherwise` says why they have none, in words that follow "has no effect".
    """

    options: tuple[str, ...]
    otherwise: str
    is_met: Callable[[argparse.Namespace], bool]


def unused_option(
    given: argparse.Namespace,
    conditions: tuple[Condition, ...],
    add_arguments: Callable[[argparse.ArgumentParser], None],
) -> str | None:
    """What is wrong with an option that has no effect; None if there is none. One that has its default does not count.

    `add_arguments` adds the options of the command to a parser.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for names, otherwise, is_met in conditions:
        for name in names:
            attribute = name.replace("-", "_")
            if getattr(given, attribute) != parser.get_default(attribute) and not is_met(given):
                return f"--{name} has no effect {otherwise}"
    return None


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a whole number of {least} or more")
    return number


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = _finite(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a number above 0")
    return value


def time(text: str) -> float:
    """Seconds from 0 on: `10`, `10s`, `500ms`, `2m`."""
    value = _finite(text)
    if value < 0:
        try:
            value = float(_TIME.parse(text))
        except ValueError as exc:
            wrong = f"{text!r:.80} is not a number of seconds, or a time such as 10s, 500ms or 2m"
            raise argparse.ArgumentTypeError(wrong) from exc
    return value


def time_above_zero(text: str) -> float:
    """Seconds above 0, as `time` reads them."""
    value = time(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not above 0")
    return value


def _finite(text: str) -> float:
    """The number; -1 if the text is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        return -1
    return value if -inf < value < inf else -1


def several(of: Callable[[str], Number]) -> Callable[[str], list[Number]]:
    """One value, or several with commas between them."""

    def parse(text: str) -> list[Number]:
        return [of(part) for part in text.split(",")]

    return parse


def name(text: str) -> str:
    """Text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def file(text: str) -> Path:
    """The path of a file."""
    return Path(name(text))


def key(text: str) -> str:
    """An API key, which is not repeated in the error."""
    try:
        return str(KEY.parse(text))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def has_content(path: Path) -> bool:
    """Whether there is such a file, and it is not empty: results that must not be replaced. Raises OSError."""
    return path.is_file() and path.stat().st_size > 0


def unusable(path: Path | str, exc: OSError) -> str:
    """Why a file cannot be read or written, in words."""
    return f"{path}: {(exc.strerror or str(exc)).lower()}"
