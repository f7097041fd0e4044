"""Seeded texts that match a regular expression, or are of a format, as a JSON Schema's `pattern` and `format` ask."""

import re
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from random import Random
from typing import Any
from uuid import UUID

_parser: Any
try:
    _parser = import_module("re._parser")  # the parse tree of a pattern has no public door
except ImportError:
    _parser = None

LONGEST = 4_096  # characters of one string
_LONGEST_PATTERN = 1_000
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "lantern")
_PRINTABLE = "".join(map(chr, range(32, 127)))
_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "DIGIT": str.isdigit,
    "SPACE": str.isspace,
    "WORD": lambda char: char.isalnum() or char == "_",
}


def matching(pattern: str, rng: Random, least: int, most: int) -> str | None:
    """A text that `pattern` matches, `least` to `most` characters long; None where spelling it out is not enough."""
    if _parser is None or len(pattern) > _LONGEST_PATTERN:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = _parser.parse(pattern)
        for stretch in (rng.randint(1, 4), *range(min(least, 64) + 1), least):
            text = "".join(_spelled(tree, rng, stretch, [LONGEST]))
            if least <= len(text) <= most:
                return text
    except (re.error, ValueError, OverflowError, RecursionError, Warning):
        pass  # another dialect, look-around, a reference back, a repetition without end
    return None


def _spelled(tree: Iterable[Any], rng: Random, stretch: int, left: list[int]) -> Iterable[str]:
    """The pieces of a text; each open repetition goes `stretch` times over its least. Anchors are taken as given."""
    for operation, argument in tree:
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("too long")
        name = str(operation)
        if name == "LITERAL":
            yield chr(_lowest(argument))
        elif name in ("NOT_LITERAL", "IN", "ANY"):
            yield rng.choice(_characters(name, argument))
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, part = argument
            for _ in range(least + min(stretch, most - least)):
                yield from _spelled(part, rng, stretch, left)
        elif name == "SUBPATTERN":
            yield from _spelled(argument[-1], rng, stretch, left)
        elif name == "BRANCH":
            yield from _spelled(rng.choice(argument[1]), rng, stretch, left)
        elif name != "AT" or "BOUNDARY" in str(argument):
            raise ValueError(name)


def _characters(name: str, argument: Any) -> str:
    """Those printable ASCII characters that one place of a pattern allows: letters and digits if there are any."""
    items = argument if name == "IN" else [(name, argument)]
    negated = str(items[0][0]) == "NEGATE"
    items = items[negated:]
    allowed = [char for char in _PRINTABLE if any(_allows(item, char) for item in items) != negated]
    return "".join(filter(str.isalnum, allowed)) or "".join(allowed) or chr(_lowest(items[0][1]))


def _allows(item: tuple[Any, Any], char: str) -> bool:
    name, argument = str(item[0]), item[1]
    if name == "RANGE":
        return bool(argument[0] <= ord(char) <= argument[1])
    if name == "CATEGORY":
        test = _CATEGORIES[str(argument).rpartition("_")[2]]
        return test(char) != ("_NOT_" in str(argument))
    return name == "ANY" or (ord(char) == argument) == (name == "LITERAL")


def _lowest(argument: Any) -> int:
    """The code point to take from a place that allows no ASCII. Raises ValueError for one that is no character."""
    point = argument[0] if isinstance(argument, tuple) else argument
    if not isinstance(point, int) or 0xD800 <= point <= 0xDFFF:
        raise ValueError("half a surrogate pair is no text")
    return int(point)


def _date(rng: Random) -> str:
    return f"20{rng.randint(20, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}Z"


FORMATS: dict[str, Callable[[Random], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda rng: f"{_date(rng)}T{_time(rng)}",
    "duration": lambda rng: f"PT{rng.randint(1, 90)}M",
    "email": lambda rng: f"{rng.choice(WORDS)}@example.com",
    "hostname": lambda rng: f"{rng.choice(WORDS)}.example.com",
    "uri": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "url": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "uri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "uuid": lambda rng: str(UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 65_535):x}",
    "json-pointer": lambda rng: f"/{rng.choice(WORDS)}",
    "regex": lambda rng: f"^{rng.choice(WORDS)}",
}
