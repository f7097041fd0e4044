"""HTML pages that need nothing but themselves: no network, no script; style and drawings are inside. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Final

_HARMFUL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean(text: str) -> str:
    """`text` with control characters, and those that change the direction of text, replaced by U+FFFD."""
    return _HARMFUL.sub("\ufffd", text)


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def node(tag: str, *children: str, **attributes: str) -> Markup:
    """An element. Children that are not Markup are escaped. `class_` is written `class`, `aria_label` `aria-label`."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean(value))}"' for name, value in attributes.items() if value
    )
    inside = "".join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup(f"<{tag}{words}>{inside}</{tag}>")


def document(title: str, *body: str) -> str:
    """The whole page."""
    style = files(__package__).joinpath("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(clean(title))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"{node('body', *body)}\n</html>\n"
    )


def section(title: str, *children: str) -> Markup:
    """A part of the page with a heading."""
    return node("section", node("h2", title), *children)


def soft(text: str) -> Markup:
    """A paragraph of lesser weight; nothing if it is empty."""
    return node("p", text, class_="soft") if text else Markup()


@dataclass(frozen=True, slots=True)
class Table:
    """The first column names the row; the other columns are numbers if `numeric`."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True


def table_node(table: Table, classes: Mapping[str, str], *, captioned: bool = True) -> Markup:
    """A table that scrolls by itself where it is too wide. `classes` are those of cells with certain texts."""

    def line(row: tuple[str, ...]) -> Markup:
        cells = zip(table.head[1:], row[1:], strict=True)
        data = (node("td", cell, data_label=label, class_=classes.get(cell, "")) for label, cell in cells)
        return node("tr", node("th", row[0], scope="row"), *data)

    caption = node("caption", table.caption) if captioned else Markup()
    head = node("thead", node("tr", *(node("th", cell, scope="col") for cell in table.head)))
    body = node("tbody", *(line(row) for row in table.rows))
    shown = node("table", caption, head, body, class_="numbers" if table.numeric else "words")
    return node("div", shown, class_="wide", tabindex="0", role="region", aria_label=table.caption)
