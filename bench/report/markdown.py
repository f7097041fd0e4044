"""The report as Markdown for a README: the bars and the CPU table, between two marks so that it can be renewed."""

import re
from pathlib import Path
from typing import Final

from . import words
from .markup import clean
from .records import Records
from .tables import Table, bars_table, cpu_table

BEGIN: Final = "<!-- bench report: begin -->"
END: Final = "<!-- bench report: end -->"

_SPACES: Final = re.compile(r"\s+")
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~&])")


def markdown(records: Records) -> str:
    """The tables and what must be said with them, marks included."""
    table = cpu_table(records)
    parts = [
        BEGIN,
        escaped(f"{words.place(records)} {words.count(records)}"),
        _table(bars_table(records)),
        _table(table) if table.rows else "CPU per token by server: not measured.",
        words.HOW,
        *(escaped(line) for line in (*words.missing(records), *words.errors(records))),
        END,
    ]
    return "\n\n".join(parts) + "\n"


def renewed(path: Path, text: str) -> str:
    """What `path` holds once `text` is in it: in the place of what stands between the marks, or all of a new file.

    Raises ValueError when the file is there and has no marks: nothing is overwritten that is not ours.
    """
    if not path.exists():
        return text
    old = path.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no place for the report: put {BEGIN} and {END} where it should be")
    return before + text.rstrip("\n") + after


def escaped(text: str) -> str:
    """`text` as it is, whatever Markdown would make of it; with plain spaces, for it will be edited."""
    return _SPECIAL.sub(r"\\\1", _SPACES.sub(" ", clean(text)).strip())


def _table(table: Table) -> str:
    rule = "|" + "---|" + ("---:|" if table.numeric else "---|") * (len(table.head) - 1)
    return "\n".join((_line(table.head), rule, *(_line(row) for row in table.rows)))


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"
