"""Plots as SVG, drawn by hand: the pen, the axes and the sheet that `rows` and `lines` draw on.

A plot is as wide as a telephone shows it, and grows only downwards. Colours are classes of the page (see `style`), and
tell what a thing is to us, never which of several it is: that is written beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from .markup import clean, node
from .numbers import Write
from .scales import Linear, Log, Scale

WIDTH: Final = 440.0
LEFT: Final = 4.0
RIGHT: Final = 436.0
LETTER: Final = 7.5  # the widest an average letter of 13 px is, in the fonts that `style` asks for
SMALL: Final = 6.9  # the same of 12 px


@dataclass(frozen=True, slots=True)
class Axis:
    """What is measured, in which unit, on which scale, and how a tick is written."""

    label: str
    write: Write
    log: bool = False

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        return Log.over(values, start, end) if self.log else Linear.over(values, start, end)

    @property
    def words(self) -> str:
        return f"{self.label}, logarithmic" if self.log else self.label


@dataclass(frozen=True, slots=True)
class Text:
    """For those who hear a plot: its title and what it shows, in words. `name` is unique on the page."""

    name: str
    title: str
    description: str


def sheet(about: Text, height: float) -> Element:
    title, description = f"{about.name}-title", f"{about.name}-desc"
    return node(
        "svg",
        node("title", about.title, id=title),
        node("desc", about.description, id=description),
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_labelledby=f"{title} {description}",
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Element:
    return node("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def fit(words: str, room: float, letter: float) -> str:
    """`words`, cut where the room ends."""
    words = clean(words)
    most = max(1, int(room / letter))
    return words if len(words) <= most else words[: most - 1] + "…"
