"""Line charts as SVG, with colours from the page's style. Pure.

A server has one colour and one shape of mark; twelve servers have different pairs of them. A chart has no legend of its
own: the page shows one for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

from .html import Markup, clean

Write = Callable[[float], str]

COLOURS: Final = ("s1", "s2", "s3", "s4", "s5", "s6")
_SHAPES: Final = 4
_WIDTH, _HEIGHT = 430.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 12.0, 46.0
_CHARACTER: Final = 8.5  # the width of one in a number, about
_TICKS: Final = 7  # at most, on an axis
_FEW: Final = 3  # fewer are added to, so that values between them can be read
_STEPS: Final = (1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Line:
    """`server` chooses colour and mark. `dashed`, with hollow marks, is the second quantity of a server.
    `opacity` is less for a lesser load.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    server: int
    dashed: bool = False
    opacity: float = 1.0
    marked: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows. A logarithmic axis leaves out values that are not above 0; a linear one begins at 0."""

    title: str
    write: Write
    log: bool = False
    ticks: tuple[float, ...] = ()


class _Scale:
    """Values → positions in the drawing."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._log = axis.log
        shown = [value for value in values if value > 0 or not axis.log]
        low, high = (min(shown), max(shown)) if shown else (0.5, 1.0)
        low, high = (low / 1.1, high * 1.1) if axis.log else (0.0, high * 1.04 or 1.0)
        self._low, self._high = self._of(low), self._of(high)
        self._start, self._size = start, end - start
        self.ticks = axis.ticks or (log_ticks(low, high) if axis.log else linear_ticks(high))

    def _of(self, value: float) -> float:
        return log10(value) if self._log else value

    def holds(self, value: float) -> bool:
        return value > 0 or not self._log

    def __call__(self, value: float) -> float:
        return self._start + (self._of(value) - self._low) / (self._high - self._low) * self._size


def linear_ticks(high: float) -> tuple[float, ...]:
    """Round numbers from 0 to `high`."""
    power = 10.0 ** floor(log10(high / _TICKS))
    step = next(power * size for size in (*_STEPS, 10.0) if high / (power * size) <= _TICKS)
    return tuple(number * step for number in range(floor(high / step) + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """1, 2 and 5 times the powers of ten from `low` to `high`; fewer where these are too many, more where too few.

    Where `low` and `high` are too close for that, the ticks are at equal distances.
    """
    for steps in (_STEPS, (1.0, 3.0), (1.0,), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = _ticks_at(steps, low, high)
        if _FEW <= len(ticks) <= _TICKS:
            return ticks
    powers = _ticks_at((1.0,), low, high)
    return powers[:: ceil(len(powers) / _TICKS)] if len(powers) > _TICKS else _even_ticks(low, high)


def _ticks_at(steps: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    return tuple(step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high)


def _even_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers at equal distances from `low` to `high`."""
    power = 10.0 ** floor(log10((high - low) / _TICKS))
    step = next(power * size for size in (*_STEPS, 10.0) if (high - low) / (power * size) <= _TICKS)
    return tuple(number * step for number in range(ceil(low / step), floor(high / step) + 1))


def line_chart(title: str, across: Axis, up: Axis, lines: Sequence[Line]) -> Markup:
    """The drawing. Its description for those who cannot see it names the last point of each line."""
    x = _Scale(across, [point[0] for line in lines for point in line.points], _LEFT, _WIDTH - _RIGHT)
    y = _Scale(up, [point[1] for line in lines for point in line.points], _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_LEFT, _HEIGHT - 8, across.title, "start", soft=True)]
    for tick in y.ticks:
        parts.append(_rule(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick)))
        parts.append(_text(_LEFT - 6, y(tick) + 4, up.write(tick), "end", soft=True))
    free = 0.0  # where the next number may begin
    for tick in x.ticks:
        parts.append(_rule(x(tick), _HEIGHT - _BOTTOM, x(tick), _HEIGHT - _BOTTOM + 4))
        text = across.write(tick)
        half = len(text) * _CHARACTER / 2
        middle = min(x(tick), _WIDTH - half)  # the last number may be wider than the margin
        if middle - half >= free:
            parts.append(_text(middle, _HEIGHT - _BOTTOM + 18, text, "middle", soft=True))
            free = middle + half + _CHARACTER
    parts += [_line(line, [(x(a), y(b)) for a, b in line.points if x.holds(a) and y.holds(b)]) for line in lines]
    ends = (f"{line.name}: {up.write(line.points[-1][1])} at {across.write(line.points[-1][0])}" for line in lines)
    label = escape(clean(f"{title}. {'; '.join(ends)}"))
    inside = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{label}">{inside}</svg>')


def mark(server: int) -> Markup:
    """The mark of a server for the legend."""
    inside = _line(Line("", (), server), [(2, 8), (16, 8), (30, 8)], only_middle=True)
    return Markup(f'<svg class="mark" viewBox="0 0 32 16" aria-hidden="true">{inside}</svg>')


def _line(line: Line, points: Sequence[tuple[float, float]], *, only_middle: bool = False) -> str:
    colour = f"var(--{COLOURS[line.server % len(COLOURS)]})"
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    drawn = f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    marked = points[1:2] if only_middle else points if line.marked else ()
    drawn += "".join(_shape(line.server, x, y, colour, hollow=line.dashed) for x, y in marked)
    return f'<g opacity="{line.opacity:g}">{drawn}</g>'


def _shape(server: int, x: float, y: float, colour: str, *, hollow: bool) -> str:
    kind = server % _SHAPES
    look = f'fill="var(--paper)" stroke="{colour}" stroke-width="1.5"' if hollow else f'fill="{colour}"'
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" {look}/>'
    if kind == 1:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" {look}/>'
    ends = ((0, -5), (4.5, 3.5), (-4.5, 3.5)) if kind == 2 else ((0, -5), (5, 0), (0, 5), (-5, 0))
    corners = " ".join(f"{x + across:.1f},{y + up:.1f}" for across, up in ends)
    return f'<polygon points="{corners}" {look}/>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--grid)"/>'


def _text(x: float, y: float, text: str, anchor: str, *, soft: bool) -> str:
    style = ' style="fill: var(--soft)"' if soft else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(clean(text))}</text>'
