"""How the values of options are read from text: each kind once, with the words for what is wrong with a value."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class ValueType(NamedTuple):
    """How a value is read. `parse` raises ValueError, worded to follow the value if that is `shown`: `'x' is not …`."""

    metavar: str
    parse: Callable[[str], Any]
    shown: bool = True


def any_text(metavar: str) -> ValueType:
    return matching(metavar, r"[^\0]+", "is empty or holds a NUL character")


def matching(metavar: str, pattern: str, complaint: str, *, shown: bool = True) -> ValueType:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text, re.DOTALL) is None:
            raise ValueError(complaint)
        return text

    return ValueType(metavar, parse, shown)


def choice(*names: str) -> ValueType:
    return matching("|".join(names), "|".join(names), f"is none of {', '.join(names)}")


def _number(metavar: str, pattern: str, units: Mapping[str, float], example: str) -> Callable[[str, str], ValueType]:
    """A kind of number: called with its bounds, it is a ValueType. Whole numbers come out as int."""

    def read(text: str) -> float:
        match = re.fullmatch(rf"({pattern}) ?({'|'.join(units)})", text.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"is not {example}")
        return float(match[1]) * units[match[2]]

    def bounded(low: str, high: str) -> ValueType:
        def parse(text: str) -> float:
            value = read(text)
            if not read(low) <= value <= read(high):
                raise ValueError(f"is not between {low} and {high}")
            return int(value) if pattern == _WHOLE else round(value, 9)

        return ValueType(metavar, parse)

    return bounded


SHAPES: Final = ("uniform", "normal", "log-normal", "gamma")
_WHOLE: Final = r"\d+"
_DECIMAL: Final = r"\d+(?:\.\d*)?|\.\d+"
_BINARY: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
integer = _number("N", _WHOLE, {"": 1}, "a whole number")
size = _number("SIZE", _WHOLE, {"": 1} | _BINARY, "a size such as 32MiB, 32M or 33554432")
duration = _number(
    "DURATION",
    _DECIMAL,
    {"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600},
    "a duration such as 10, 10s, 500ms or 2m",
)
part = _number("PART", _DECIMAL, {"": 1}, "a number such as 0.05")


def spread(of: ValueType) -> ValueType:
    """A value of a kind, or a distribution of such: (shape, first, second), where a value alone is `constant`."""

    def parse(text: str) -> tuple[str, float, float]:
        match = re.fullmatch(r"\s*([a-z-]+)\((.+),(.+)\)\s*", text)
        if match is None:
            return "constant", of.parse(text), 0.0
        if match[1] not in SHAPES:
            raise ValueError(f"begins with none of {', '.join(SHAPES)}")
        try:
            first, second = of.parse(match[2]), of.parse(match[3])
        except ValueError as exc:
            raise ValueError(f"has in its brackets what {exc}") from exc
        if match[1] == "uniform" and first > second:
            raise ValueError("is a range that ends before it begins")
        return match[1], first, second

    return ValueType("SPREAD", parse)


def rated(*names: str) -> ValueType:
    """How often something of these names happens: NAME=RATE, with a rate from 0 to 1."""

    def parse(text: str) -> tuple[str, float]:
        name, equals, rate = (piece.strip() for piece in text.partition("="))
        if not equals or name not in names:
            raise ValueError(f"is not KIND=RATE, of {', '.join(names)}")
        return name, part("0", "1").parse(rate)

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
        raise ValueError("has a `*` in MODEL, where only NAME may have one")
    return name, model


SWITCH: Final = ValueType("", _parse_switch)
ALIAS: Final = ValueType("NAME=MODEL", _parse_alias)
KEY: Final = matching("KEY", "[!-~]+", "a key must be one word of printable ASCII", shown=False)
# not shown, for a URL may hold a password
URL: Final = matching("URL", r"(https?://|unix:/)\S+", "must be http://…, https://… or unix:/path.sock", shown=False)
FILE: Final = any_text("FILE")
