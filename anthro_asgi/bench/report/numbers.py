"""Numbers as text: few significant digits, and the unit beside them."""

from collections.abc import Callable
from math import floor, log10
from typing import Final

Show = Callable[[float, int], str]  # a value and its number of significant digits
Write = Callable[[float], str]

_DIGITS: Final = 3
_MOST_DIGITS: Final = 12
_MINUS: Final = "\u2212"
_THIN: Final = "\u202f"  # a narrow space between thousands, at which no line breaks
GAP: Final = "\u00a0"  # the space before a unit, at which no line breaks
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def significant(value: float, digits: int = _DIGITS) -> str:
    """`value` with this many significant digits and without exponent: `49.3`, `0.0712`, `12 300`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - floor(log10(abs(rounded))))
    return _typeset(f"{rounded:,.{decimals}f}")


def plain(value: float) -> str:
    """A chosen number, such as a bar or a tick, with no more digits than it needs."""
    text = f"{value:,.9f}".rstrip("0").rstrip(".")
    return _typeset("0" if text in ("", "-0") else text)


def _typeset(text: str) -> str:
    return text.replace(",", _THIN).replace("-", _MINUS)


def duration(seconds: float, digits: int = _DIGITS) -> str:
    """Seconds in a suitable unit: `49.3 µs`, `1.20 ms`."""
    size, unit = _unit(seconds)
    return f"{significant(seconds / size, digits)}{GAP}{unit}"


def plain_duration(seconds: float) -> str:
    """`duration` of a chosen number: `5 ms`."""
    size, unit = _unit(seconds)
    return f"{plain(round(seconds / size, 6))}{GAP}{unit}"


def _unit(seconds: float) -> tuple[float, str]:
    # the factor allows for rounding: 0.001 may be stored as 0.00099999…
    return next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size * 0.9999), _UNITS[-1])


def micros(microseconds: float, digits: int = _DIGITS) -> str:
    """Always in microseconds, so that the costs in a column can be compared at a glance."""
    return f"{significant(microseconds, digits)}{GAP}µs"


def times(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio as a factor."""
    return f"{significant(ratio, digits)}{GAP}×"


def part(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio below one as a fraction, `1/4.20`; from one on as a factor."""
    return f"1/{significant(1 / ratio, digits)}" if 0 < ratio < 1 else times(ratio, digits)


def kibibytes(size: float, digits: int = _DIGITS) -> str:
    """A size in KiB."""
    return f"{significant(size, digits)}{GAP}KiB"


def mebibytes(size: float, digits: int = _DIGITS) -> str:
    """A size in MiB."""
    return f"{significant(size, digits)}{GAP}MiB"


def growth(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio as a change in per cent: `+7.20 %`."""
    percent = (ratio - 1) * 100
    return f"{'+' if percent > 0 else ''}{significant(percent, digits)}{GAP}%"


def whole(value: float, digits: int = _DIGITS) -> str:
    """A count with all its digits; `digits` is ignored."""
    return plain(round(value))


def signed(seconds: float) -> str:
    """A time difference with its sign: `+55.2 µs`."""
    return f"{'+' if seconds > 0 else ''}{duration(seconds)}"


def span(low: str, high: str) -> str:
    """`low to high`, with the unit once if both have the same."""
    number, _, unit = low.partition(GAP)
    return f"{number if unit and high.endswith(f'{GAP}{unit}') else low} to {high}"


def distinct(show: Show, value: float, limit: float) -> str:
    """`value` with enough digits that it does not look equal to `limit` when it is not."""
    for digits in range(_DIGITS, _MOST_DIGITS):
        text = show(value, digits)
        if value == limit or text != show(limit, digits):
            return text
    return show(value, _MOST_DIGITS)
