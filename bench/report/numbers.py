"""Numbers as people read them: two or three digits that say something, and the unit beside them."""

from collections.abc import Callable
from math import floor, log10
from typing import Final

Show = Callable[[float, int], str]  # a value and how many significant digits of it
Write = Callable[[float], str]  # a value, and nothing to choose

_DIGITS: Final = 3
_MOST_DIGITS: Final = 12
_MINUS: Final = "\u2212"
_THIN: Final = "\u202f"  # no line is broken inside a number,
GAP: Final = "\u00a0"  # nor before its unit
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def significant(value: float, digits: int = _DIGITS) -> str:
    """`value` to so many significant digits, without an exponent: `49.3`, `0.0712`, `12 300`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - floor(log10(abs(rounded))))
    return _typeset(f"{rounded:,.{decimals}f}")


def plain(value: float) -> str:
    """A number that somebody chose, such as a bar or a tick: no digit more than it needs."""
    text = f"{value:,.9f}".rstrip("0").rstrip(".")
    return _typeset("0" if text in ("", "-0") else text)


def _typeset(text: str) -> str:
    return text.replace(",", _THIN).replace("-", _MINUS)


def duration(seconds: float, digits: int = _DIGITS) -> str:
    """Seconds in the unit that suits them: `49.3 µs`, `1.20 ms`."""
    size, unit = _unit(seconds)
    return f"{significant(seconds / size, digits)}{GAP}{unit}"


def plain_duration(seconds: float) -> str:
    """`duration` for a number that somebody chose: `5 ms`."""
    size, unit = _unit(seconds)
    return f"{plain(round(seconds / size, 6))}{GAP}{unit}"


def _unit(seconds: float) -> tuple[float, str]:
    # a hair of slack, for 0.001 may have become 0.00099999… on its way
    return next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size * 0.9999), _UNITS[-1])


def micros(microseconds: float, digits: int = _DIGITS) -> str:
    """Microseconds, never another unit: costs a token are compared by eye down a column."""
    return f"{significant(microseconds, digits)}{GAP}µs"


def times(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio as a factor, with the sign for times."""
    return f"{significant(ratio, digits)}{GAP}×"


def part(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio below one as a part of the whole, `1/4.20`; from one on as a factor."""
    return f"1/{significant(1 / ratio, digits)}" if 0 < ratio < 1 else times(ratio, digits)


def kibibytes(size: float, digits: int = _DIGITS) -> str:
    """A size in KiB."""
    return f"{significant(size, digits)}{GAP}KiB"


def growth(ratio: float, digits: int = _DIGITS) -> str:
    """A ratio as what came on top, in per cent: `+7.20 %`."""
    percent = (ratio - 1) * 100
    return f"{'+' if percent > 0 else ''}{significant(percent, digits)}{GAP}%"


def whole(value: float, digits: int = _DIGITS) -> str:
    """A count, every digit of it; `digits` is only for the signature."""
    return plain(round(value))


def signed(seconds: float) -> str:
    """A difference of times, with its sign: `+55.2 µs`."""
    return f"{'+' if seconds > 0 else ''}{duration(seconds)}"


def reach(low: str, high: str) -> str:
    """From one to another, and their unit once if it is the same."""
    number, _, unit = low.partition(GAP)
    return f"{number if unit and high.endswith(f'{GAP}{unit}') else low} to {high}"


def honest(show: Show, value: float, limit: float) -> str:
    """`value` with as many digits as it takes not to look like `limit` when it is another number."""
    for digits in range(_DIGITS, _MOST_DIGITS):
        text = show(value, digits)
        if value == limit or text != show(limit, digits):
            return text
    return show(value, _MOST_DIGITS)
