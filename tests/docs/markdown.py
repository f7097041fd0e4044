"""Markdown tables, and texts taken from docstrings. Pure."""

import inspect
import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. A `|` in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(names: Iterable[str]) -> str:
    """The names as code, with commas between them."""
    return ", ".join(f"`{name}`" for name in names)


def summary(thing: object) -> str:
    """The first paragraph of a docstring, in one line."""
    return paragraph(inspect.getdoc(thing) or "")


def paragraph(text: str) -> str:
    """The first paragraph of a text, in one line."""
    return re.sub(r"\s+", " ", text.strip().split("\n\n")[0])
