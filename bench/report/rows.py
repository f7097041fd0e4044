"""A plot of rows along one axis: bars with their spread, or points, one subject below another.

Each row has its name and its value above its bar, over the whole width, where nothing can run into them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from .markup import node
from .scales import Scale
from .svg import LEFT, LETTER, RIGHT, SMALL, WIDTH, Axis, Text, fit, line, sheet, text

_ROW: Final = 40.0
_KEY: Final = 22.0
_MARK: Final = 16.0


@dataclass(frozen=True, slots=True)
class Point:
    """A mark on a row; `shape` is a class: `p50`, `p90`, `p99`, `p99-9`."""

    value: float
    shape: str


@dataclass(frozen=True, slots=True)
class Row:
    """One subject. `bar` is drawn from `origin`, `spread` as a thin line over it, `limit` as an upright stroke."""

    label: str
    note: str
    role: str
    bar: float | None = None
    spread: tuple[float, float] | None = None
    points: tuple[Point, ...] = ()
    limit: float | None = None
    origin: float | None = None  # where the bar begins, if not at the start of the axis

    def values(self) -> list[float]:
        """All that has a place on the axis."""
        found = [self.bar, self.limit, *(self.spread or ()), *(point.value for point in self.points)]
        return [value for value in found if value is not None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A value of the axis that all rows are read against."""

    value: float
    label: str


def rows_plot(
    about: Text, axis: Axis, rows: Sequence[Row], marks: Sequence[Mark] = (), key: Sequence[str] = ()
) -> Element:
    """Rows one below another. `key` names the shapes of points, at the top."""
    values = [value for row in rows for value in row.values()] + [mark.value for mark in marks]
    scale = axis.scale(values, LEFT, RIGHT)
    above = _KEY if key else 0.0
    top = above + _MARK * len(marks)
    bottom = top + _ROW * len(rows) + 6
    canvas = sheet(about, bottom + 46)
    canvas.extend(_grid(scale, axis, top, bottom))
    canvas.extend(_key(key))
    for index, mark in enumerate(marks):
        canvas.extend(_mark(scale, mark, above + _MARK * index + 12, bottom))
    canvas.extend(_row(scale, row, top + _ROW * index) for index, row in enumerate(rows))
    return canvas


def _row(scale: Scale, row: Row, y: float) -> Element:
    room = RIGHT - LEFT - len(row.note) * LETTER - 10
    group = node("g", node("title", f"{row.label}: {row.note}"), class_=f"row {row.role}")
    group.append(text(LEFT, y + 18, fit(row.label, room, LETTER), "label"))
    group.append(text(RIGHT, y + 18, row.note, "value", "end"))
    middle = y + 29
    if row.bar is not None:
        group.append(_bar(LEFT if row.origin is None else scale.at(row.origin), scale.at(row.bar), middle))
    if row.spread is not None:
        group.extend(_whisker(scale.at(row.spread[0]), scale.at(row.spread[1]), middle))
    if row.points:
        ends = [scale.at(point.value) for point in row.points]
        group.append(line(min(ends), middle, max(ends), middle, "reach"))
    group.extend(_point(scale.at(point.value), middle, point.shape) for point in row.points)
    if row.limit is not None:
        group.append(line(scale.at(row.limit), middle - 9, scale.at(row.limit), middle + 9, "limit"))
    return group


def _bar(start: float, end: float, y: float) -> Element:
    width = max(1.0, abs(end - start))  # the least is still there to be seen
    return node("rect", x=min(start, end), y=y - 5, width=width, height=10.0, class_="bar")


def _whisker(left: float, right: float, y: float) -> list[Element]:
    ends = [line(x, y - 4, x, y + 4, "spread") for x in (left, right)]
    return [line(left, y, right, y, "spread"), *ends]


def _point(x: float, y: float, shape: str) -> Element:
    """Percentiles by shape: a disc, a ring, a bar, a cross."""
    if shape == "p50":
        return node("circle", cx=x, cy=y, r=6.0, class_="disc")
    if shape == "p90":
        return node("circle", cx=x, cy=y, r=4.5, class_="ring")
    if shape == "p99":
        return node("path", d=f"M{x:.1f} {y - 7:.1f}V{y + 7:.1f}", class_="tick")
    return node("path", d=f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10", class_="cross")


def _key(shapes: Sequence[str]) -> list[Element]:
    """What the shapes mean, on one line at the top."""
    found: list[Element] = []
    for index, shape in enumerate(shapes):
        x = LEFT + 6 + index * 76
        found += [node("g", _point(x, 10, shape), class_="key"), text(x + 13, 15, shape, "small")]
    return found


def _mark(scale: Scale, mark: Mark, y: float, bottom: float) -> list[Element]:
    x = scale.at(mark.value)
    label = fit(mark.label, RIGHT - LEFT - 12, SMALL)
    fits = x + 6 + len(label) * SMALL <= RIGHT
    place, anchor = (x + 5, "start") if fits else (max(x - 5, LEFT + len(label) * SMALL), "end")
    return [line(x, y - 9, x, bottom, "mark"), text(place, y, label, "small", anchor)]


def _grid(scale: Scale, axis: Axis, top: float, bottom: float) -> list[Element]:
    ticks = scale.ticks()
    lines = [line(scale.at(tick), top, scale.at(tick), bottom, "grid") for tick in ticks]
    words = [_tick(scale.at(tick), axis.write(tick)) for tick in ticks]
    numbers = [text(place, bottom + 17, word, "small", "middle") for place, word in roomy(words)]
    return [*lines, *numbers, text(LEFT, bottom + 37, axis.words, "axis")]


def _tick(x: float, word: str) -> tuple[float, str]:
    half = len(word) * SMALL / 2
    return min(max(x, half), WIDTH - half), word


def roomy(words: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those of the words, each with the place of its middle, that do not lie on one another; the ends first."""
    found: list[tuple[float, str]] = []
    for place, word in (*words[:1], *words[:0:-1]):
        if all(abs(place - other) >= (len(word) + len(taken)) * SMALL / 2 + 6 for other, taken in found):
            found.append((place, word))
    return sorted(found)
