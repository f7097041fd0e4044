"""Types of option values: how each is read from text, and the error texts for wrong values."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class ValueType(NamedTuple):
    """A type of value, called `metavar` in the help.

    `parse` raises ValueError. Its text follows the wrong value if the value is `shown` ("'x' is not …"), and stands
    alone if it is not, because the value may be a secret. `write` is the reverse of `parse`. `choices` are all values,
    where there are few. `split` divides an environment variable that holds several values.
    """

    metavar: str
    parse: Callable[[str], Any]
    shown: bool = True
    write: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()
    split: Callable[[str], list[str]] = lambda text: text.split(",")


def any_text(metavar: str) -> ValueType:
    return matching(metavar, r"[^\0]+", "is empty or contains a NUL character")


def matching(
    metavar: str, pattern: str, complaint: str, *, shown: bool = True, choices: tuple[str, ...] = ()
) -> ValueType:
    """Text that matches the whole `pattern`; `complaint` is the error text."""

    def parse(text: str) -> str:
        if re.fullmatch(pattern, text, re.DOTALL) is None:
            raise ValueError(complaint)
        return text

    return ValueType(metavar, parse, shown, choices=choices)


def choice(*names: str, metavar: str | None = None) -> ValueType:
    """One of `names`. `metavar` stands for them where there are too many to list."""
    return matching(metavar or "|".join(names), "|".join(names), f"is not one of {', '.join(names)}", choices=names)


def _number(metavar: str, pattern: str, units: Mapping[str, float], example: str) -> Callable[[str, str], ValueType]:
    """A type of number with units: a function that takes the lowest and the highest value and returns a ValueType.

    Where "" is not among the units, only 0 may be written without one: it is the same in every unit.
    """

    def read(text: str) -> float:
        match = re.fullmatch(rf"({pattern}) ?({'|'.join(units)}|)", text.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"is not {example}")
        factor = units.get(match[2])
        if factor is None and float(match[1]):
            raise ValueError(f"has no unit; write for example {match[1]}s or {match[1]}ms")
        return float(match[1]) * (factor or 0)

    def write(value: float) -> str:
        """In the largest unit that gives a whole number."""
        for unit, factor in reversed(list(units.items())):
            if value >= factor and value % factor == 0:
                return f"{int(value // factor)}{unit}"
        return f"{value:g}" if "" in units else "0s" if value == 0 else f"{value:g}s"

    def bounded(low: str, high: str) -> ValueType:
        def parse(text: str) -> float:
            value = read(text)
            if not read(low) <= value <= read(high):
                raise ValueError(f"is not between {low} and {high}")
            return int(value) if pattern == _WHOLE else round(value, 9)

        return ValueType(metavar, parse, write=write)

    return bounded


SHAPES: Final = ("uniform", "normal", "log-normal", "gamma")
_WHOLE: Final = r"\d+"
_DECIMAL: Final = r"\d+(?:\.\d*)?|\.\d+"
# in the order of their size, as `write` tries them from the end
_BINARY: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIME: Final = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
integer = _number("N", _WHOLE, {"": 1}, "a whole number")
size = _number("SIZE", _WHOLE, {"": 1} | _BINARY, "a size such as 32MiB, 32M or 33554432")
duration = _number("DURATION", _DECIMAL, _TIME, "a duration such as 10s, 500ms or 2m")
number = _number("NUMBER", _DECIMAL, {"": 1}, "a number such as 0.05")
rate: Final = number("0", "1")._replace(metavar="RATE")


def distribution(of: ValueType) -> ValueType:
    """A value, or a distribution of values: (shape, first parameter, second). The shape of one value is `constant`."""

    def parse(text: str) -> tuple[str, float, float]:
        match = re.fullmatch(r"\s*([a-z-]+)\((.+),(.+)\)\s*", text)
        if match is None:
            return "constant", of.parse(text), 0.0
        if match[1] not in SHAPES:
            raise ValueError(f"does not begin with one of {', '.join(SHAPES)}")
        try:
            first, second = of.parse(match[2]), of.parse(match[3])
        except ValueError as exc:
            raise ValueError(f"has a parameter that {exc}") from exc
        if match[1] == "uniform" and first > second:
            raise ValueError("has a lower bound above its upper bound")
        return match[1], first, second

    return ValueType("DISTRIBUTION", parse)


def rates(*names: str) -> ValueType:
    """KIND=RATE: one of `names`, and how often it happens, from 0 to 1."""

    def parse(text: str) -> tuple[str, float]:
        name, equals, share = (piece.strip() for piece in text.partition("="))
        if not equals or name not in names:
            raise ValueError(f"is not KIND=RATE with one of the kinds {', '.join(names)}")
        return name, rate.parse(share)

    return ValueType("KIND=RATE", parse)


def _parse_switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def _parse_alias(text: str) -> tuple[str, str]:
    name, equals, model = (part.strip() for part in text.partition("="))
    if not (name and equals and model):
        raise ValueError("is not NAME=MODEL")
    if "*" in model:
        raise ValueError("has a `*` in MODEL; only NAME may have one")
    return name, model


SWITCH: Final = ValueType("", _parse_switch)
ALIAS: Final = ValueType("NAME=MODEL", _parse_alias)
KEY: Final = matching("KEY", "[!-~]+", "a key must be one word of printable ASCII", shown=False)
# not shown, because a URL may contain a password
URL: Final = matching("URL", r"(https?://|unix:/)\S+", "must be http://…, https://… or unix:/path.sock", shown=False)
ENGINE_NAME: Final = matching(
    "NAME", "[a-z0-9][a-z0-9_-]{0,31}", "must be at most 32 lower-case letters, digits, - and _"
)


def _parse_upstream(text: str) -> tuple[str, str]:
    """The name of the engine, empty if there is none, and its URL."""
    name, equals, url = text.partition("=")
    if not equals or re.match(r"https?:|unix:", name):
        return "", URL.parse(text)
    try:
        ENGINE_NAME.parse(name.strip())
    except ValueError as exc:
        raise ValueError(f"NAME of NAME=URL {exc}") from exc
    try:
        return name.strip(), URL.parse(url.strip())
    except ValueError as exc:
        raise ValueError(f"URL of NAME=URL {exc}") from exc


def _split_upstreams(text: str) -> list[str]:
    """A comma may be a part of a URL, unless a further `NAME=` follows it."""
    return re.split(r",(?=\s*[a-z0-9][a-z0-9_-]{0,31}\s*=)", text) if re.match(r"\s*[\w-]+\s*=", text) else [text]


UPSTREAM: Final = ValueType("[NAME=]URL", _parse_upstream, shown=False, split=_split_upstreams)
ORIGIN: Final = matching(
    "ORIGIN", r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@*,]+", "is not an origin such as https://app.example, or *"
)
FILE: Final = any_text("FILE")
