"""Reads the marks that a model puts around its quotes, as `citation_prompt` tells it (contract 3.55). Pure.

    He says <quote doc="1">It rains.</quote> Then …
    │       └─ a Quote, once it is complete
    └─ text, at once

The marks never reach the client. Text that only looks like an opening mark stays text. A closing mark is taken out even
if no quote is open, so an answer that shows `</quote>` as text loses it.
"""

import re
from typing import Any, Final

from .citation_prompt import CLOSING, OPENING
from .deltas import Batch, BlockStop, Citation, Delta, MessageFields, Usage, deltas_of

_LONGEST: Final = 8192  # characters of a quote; a longer one is passed on as text
_PIECE: Final = 4096  # characters of a text that are read at a time, so that the time is linear in its length
_STEM: Final = OPENING.rstrip('"')
_MARK: Final = re.compile(re.escape(_STEM) + r"""["']?(\d{1,9})["']?>|""" + re.escape(CLOSING))
"""A mark; group 1 is the number in an opening one. Small models forget its quotation marks."""
_LONGEST_MARK: Final = len(_STEM) + len('"123456789">')
_TAG_BEGUN: Final = re.compile(r"""["']?\d{0,9}["']?""")


class Quote:
    """A quote that is complete. Its citation is searched for by the caller."""

    __slots__ = ("number", "text")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text


class QuoteReader:
    """Reads the deltas of one answer, and takes the marks out of its text.

    A quote is held back until it is complete. Any other text is passed on at once, but for what may begin a mark.
    """

    def __init__(self) -> None:
        self._held = ""
        self._number: int | None = None  # the document of the open quote

    def feed(self, batch: Batch) -> list[Delta | Quote]:
        """The deltas and quotes that are complete with this batch."""
        out: list[Delta | Quote] = []
        for delta in deltas_of(batch):
            if isinstance(delta, str) and delta:
                for at in range(0, len(delta), _PIECE):
                    self._held += delta[at : at + _PIECE]
                    while self._read(out):
                        pass
                continue
            if delta != "" and not isinstance(delta, Usage | MessageFields):
                out += self.end()
            out.append(delta)
        return out

    def end(self) -> list[Delta | Quote]:
        """What is held back, once the text around it has ended. A quote without an end is text."""
        held, self._held, self._number = self._held, "", None
        return [held] if held else []

    def _read(self, out: list[Delta | Quote]) -> bool:
        """Read what is held, up to the next mark. Whether there was one."""
        if self._number is not None:
            return self._read_quote(out)
        mark = _MARK.search(self._held)
        if mark is None:
            self._pass_on(self._certain(), out)
            return False
        self._pass_on(mark.start(), out)
        self._held = self._held[len(mark[0]) :]
        self._number = None if mark[1] is None else int(mark[1])  # an end that belongs to no quote is taken out, too
        return True

    def _certain(self) -> int:
        """The length of the held text before an unfinished mark."""
        at = self._held.find("<", max(0, len(self._held) - _LONGEST_MARK))
        while at >= 0 and not _begins_mark(self._held[at:]):
            at = self._held.find("<", at + 1)
        return len(self._held) if at < 0 else at

    def _read_quote(self, out: list[Delta | Quote]) -> bool:
        end = self._held.find(CLOSING)
        length = end if end >= 0 else len(self._held) - len(CLOSING)
        if length > _LONGEST or self._held.find(_STEM, 0, end if end >= 0 else None) >= 0:
            self._number = None  # it is too long, or another quote begins: what was held is text
            return True
        if end < 0:
            return False
        assert self._number is not None  # noqa: S101 - for the type checker
        if end:
            out.append(Quote(self._number, self._held[:end]))
        self._held = self._held[end + len(CLOSING) :]
        self._number = None
        return True

    def _pass_on(self, end: int, out: list[Delta | Quote]) -> None:
        if end:
            out.append(self._held[:end])
            self._held = self._held[end:]


def _begins_mark(text: str) -> bool:
    """Whether `text` may be the beginning of a mark."""
    if len(text) <= len(_STEM):
        return _STEM.startswith(text) or CLOSING.startswith(text)
    return text.startswith(_STEM) and _TAG_BEGUN.fullmatch(text, len(_STEM)) is not None


def cited_deltas(text: str, citation: dict[str, Any] | None) -> list[Delta]:
    """The deltas of a quote: a block of its own if it has a citation."""
    return [text] if citation is None else [BlockStop(), text, Citation(citation), BlockStop()]
