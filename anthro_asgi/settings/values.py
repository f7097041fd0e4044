"""Types of option values: how each is read from text, and the error texts for wrong values.

Every command reads the defaults of all options. So the types that have defaults use no regular expressions: Python
would compile each of them in each process, which took longer than `anthro-asgi health` itself.
"""

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
    def parse(text: str) -> str:
        if not text or "\0" in text:
            raise ValueError("is empty or contains a NUL character")
        return text

    return ValueType(metavar, parse)


def matching(metavar: str, pattern: str, complaint: str, *, shown: bool = True) -> ValueType:
    """Text that matches the whole `pattern`; `complaint` is the error text."""

    def parse(text: str) -> str:
        if re.fullmatch(pattern, text, re.DOTALL) is None:
            raise ValueError(complaint)
        return text

    return ValueType(metavar, parse, shown)


def choice(*names: str, metavar: str | None = None) -> ValueType:
    """One of `names`. `metavar` stands for them where there are too many to list."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"is not one of {', '.join(names)}")
        return text

    return ValueType(metavar or "|".join(names), parse, choices=names)


def _number(
    metavar: str, units: Mapping[str, float], example: str, *, decimal: bool = False
) -> Callable[[str, str], ValueType]:
    """A type of number with units: a function that takes the lowest and the highest value and returns a ValueType.

    A number is written in decimal digits, with a point if it is `decimal`, and at most one space before the unit.
    Where "" is not among the units, only 0 may be written without one: it is the same in every unit.
    """

    letters = "".join(units)

    def read(text: str) -> float:
        text = text.strip()
        figure = text.rstrip(letters)
        unit = text[len(figure) :]
        figure = figure.removesuffix(" ")
        digits = figure.replace(".", "", 1) if decimal else figure
        if not (digits.isascii() and digits.isdigit()) or not (unit in units or not unit):
            raise ValueError(f"is not {example}")
        factor = units.get(unit)
        if factor is None and float(figure):
            raise ValueError(f"has no unit; write for example {figure}s or {figure}ms")
        return float(figure) * (factor or 0)

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
            return round(value, 9) if decimal else int(value)

        return ValueType(metavar, parse, write=write)

    return bounded


SHAPES: Final = ("uniform", "normal", "log-normal", "gamma")
# in the order of their size, as `write` tries them from the end
_BINARY: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIME: Final = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
integer = _number("N", {"": 1}, "a whole number")
size = _number("SIZE", {"": 1} | _BINARY, "a size such as 32MiB, 32M or 33554432")
duration = _number("DURATION", _TIME, "a duration such as 10s, 500ms or 2m", decimal=True)
number = _number("NUMBER", {"": 1}, "a number such as 0.05", decimal=True)
rate: Final = number("0", "1")._replace(metavar="RATE")


def distribution(of: ValueType) -> ValueType:
    """A value, or a distribution of values: (shape, first parameter, second). The shape of one value is `constant`."""

    def parse(text: str) -> tuple[str, float, float]:
        shape, _, parameters = text.strip().partition("(")
        one, comma, other = parameters.rpartition(",")
        if not comma or not other.endswith(")"):
            return "constant", of.parse(text), 0.0
        if shape not in SHAPES:
            raise ValueError(f"does not begin with one of {', '.join(SHAPES)}")
        try:
            first, second = of.parse(one), of.parse(other.removesuffix(")"))
        except ValueError as exc:
            raise ValueError(f"has a parameter that {exc}") from exc
        if shape == "uniform" and first > second:
            raise ValueError("has a lower bound above its upper bound")
        return shape, first, second

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


def _parse_url(text: str) -> str:
    scheme = next((scheme for scheme in ("http://", "https://", "unix:/") if text.startswith(scheme)), None)
    if scheme is None or text == scheme or any(map(str.isspace, text)):
        raise ValueError("must be http://…, https://… or unix:/path.sock")
    return text


SWITCH: Final = ValueType("", _parse_switch)
ALIAS: Final = ValueType("NAME=MODEL", _parse_alias)
KEY: Final = matching("KEY", "[!-~]+", "a key must be one word of printable ASCII", shown=False)
# not shown, because a URL may contain a password
URL: Final = ValueType("URL", _parse_url, shown=False)
ENGINE_NAME: Final = matching(
    "NAME", "[a-z0-9][a-z0-9_-]{0,31}", "must be at most 32 lower-case letters, digits, - and _"
)


def _parse_upstream(text: str) -> tuple[str, str]:
    """The name of the engine, empty if there is none, and its URL."""
    name, equals, url = text.partition("=")
    if not equals or name.startswith(("http:", "https:", "unix:")):
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
    if "=" not in text:
        return [text]
    return re.split(r",(?=\s*[a-z0-9][a-z0-9_-]{0,31}\s*=)", text) if re.match(r"\s*[\w-]+\s*=", text) else [text]


UPSTREAM: Final = ValueType("[NAME=]URL", _parse_upstream, shown=False, split=_split_upstreams)
ORIGIN: Final = matching(
    "ORIGIN", r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@*,]+", "is not an origin such as https://app.example, or *"
)
FILE: Final = any_text("FILE")
