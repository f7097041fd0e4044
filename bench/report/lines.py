"""A plot of lines over two axes, each line named where it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from .markup import node
from .scales import Scale
from .svg import LEFT, SMALL, WIDTH, Axis, Text, fit, line, sheet, text


@dataclass(frozen=True, slots=True)
class Series:
    """One line: places and values, and its name, which is written at its end."""

    label: str
    role: str
    points: tuple[tuple[float, float], ...]


_PLOT_TOP: Final = 34.0
_PLOT_BOTTOM: Final = 300.0
_PLOT_LEFT: Final = 48.0
_PLOT_RIGHT: Final = 224.0
_GAP: Final = 18.0  # between two names


def lines_plot(about: Text, across: Axis, up: Axis, series: Sequence[Series]) -> Element:
    """Lines, each named at its right end."""
    xs = [x for one in series for x, _ in one.points]
    horizontal = across.scale(xs, _PLOT_LEFT, _PLOT_RIGHT)
    vertical = up.scale([y for one in series for _, y in one.points], _PLOT_BOTTOM, _PLOT_TOP)
    canvas = sheet(about, _PLOT_BOTTOM + 46)
    canvas.append(text(LEFT, 15, up.words, "axis"))
    for tick in vertical.ticks():
        y = vertical.at(tick)
        canvas.append(line(_PLOT_LEFT, y, _PLOT_RIGHT, y, "grid"))
        canvas.append(text(_PLOT_LEFT - 6, y + 4, up.write(tick), "small", "end"))
    for x in sorted(set(xs)):  # a tick where something was measured, not where the axis is round
        canvas.append(line(horizontal.at(x), _PLOT_BOTTOM, horizontal.at(x), _PLOT_BOTTOM + 5, "mark"))
        canvas.append(text(horizontal.at(x), _PLOT_BOTTOM + 19, across.write(x), "small", "middle"))
    canvas.append(text(_PLOT_LEFT, _PLOT_BOTTOM + 39, across.words, "axis"))
    canvas.extend(_series(one, horizontal, vertical) for one in series)
    canvas.extend(_names(series, vertical))
    return canvas


def _series(one: Series, horizontal: Scale, vertical: Scale) -> Element:
    places = [(horizontal.at(x), vertical.at(y)) for x, y in one.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = [node("circle", cx=x, cy=y, r=3.5, class_="disc") for x, y in places]
    return node("g", node("title", one.label), node("path", d=path, class_="line"), *dots, class_=f"row {one.role}")


def _names(series: Sequence[Series], vertical: Scale) -> list[Element]:
    """The names at the ends of the lines, moved apart where they would lie on one another."""
    wanted = sorted((vertical.at(one.points[-1][1]), index) for index, one in enumerate(series))
    places = spaced([y for y, _ in wanted], _GAP, _PLOT_TOP - 10, _PLOT_BOTTOM)
    found: list[Element] = []
    for (y, index), place in zip(wanted, places, strict=True):
        label = fit(series[index].label, WIDTH - _PLOT_RIGHT - 22, SMALL)
        found.append(line(_PLOT_RIGHT + 5, y, _PLOT_RIGHT + 18, place, "leader"))
        found.append(node("g", text(_PLOT_RIGHT + 22, place + 4, label, "small"), class_=series[index].role))
    return found


def spaced(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Rising `places` moved as little as it takes to be `gap` apart; kept below `high`, and above `low` if they fit."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap if found else low))
    limit = high
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], limit)
        limit = found[index] - gap
    return found
