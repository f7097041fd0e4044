"""The documents of a request that can be cited, and the search for quotes in them (contract 3.55). Pure.

A citation is made from the document, not from the quote: its place is where the words were found, and `cited_text` is
what stands there. White space may differ, since models write a line end as a space. A quote with any other
difference gets no citation.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from .large.cooperative import Steps

Json = dict[str, Any]
Kind = Literal["char_location", "page_location", "content_block_location"]
_SHORTEST: Final = 3  # characters of a quote: fewer say nothing about where they come from
_MOST_SEARCHED: Final = 1 << 28  # characters that are searched for the quotes of one answer
_WORD: Final = re.compile(r"\S+")
_PARTS_PER_STEP: Final = 2048
_BETWEEN: Final = "\n"  # two pages, or two blocks


@dataclass(slots=True, eq=False)
class CitedDocument:
    """A document that can be cited.

    Attributes:
        index: its place among all documents of the request, from 0. The model knows it by this number plus 1.
        parts: the texts of its pages or blocks, with "" for an image; the whole text for `char_location`.
        text: the parts, joined by line ends.
        starts: where each part begins in `text`.
    """

    index: int
    title: str | None
    kind: Kind
    parts: tuple[str, ...]
    text: str
    starts: tuple[int, ...]
    _folded: str | None = None

    @classmethod
    def of(cls, index: int, title: str | None, kind: Kind, parts: list[str]) -> "Steps[CitedDocument]":
        """The document with these parts, made in steps."""
        starts, at = [], 0
        for number, part in enumerate(parts, 1):
            starts.append(at)
            at += len(part) + len(_BETWEEN)
            if number % _PARTS_PER_STEP == 0:
                yield
        return cls(index, title, kind, tuple(parts), _BETWEEN.join(parts), tuple(starts))

    def citation(self, start: int, end: int) -> Json:
        """The citation of `text[start:end]`, which is not empty."""
        common = {"type": self.kind, "document_index": self.index, "document_title": self.title, "file_id": None}
        if self.kind == "char_location":
            place = {"start_char_index": start, "end_char_index": end}
            return {**common, "cited_text": self.text[start:end], **place}
        first, last = (bisect_right(self.starts, at) - 1 for at in (start, end - 1))
        if self.kind == "page_location":  # pages are counted from 1, and the end is the page after the last one
            place = {"start_page_number": first + 1, "end_page_number": last + 2}
            return {**common, "cited_text": self.text[start:end], **place}
        place = {"start_block_index": first, "end_block_index": last + 1}
        return {**common, "cited_text": "".join(self.parts[first : last + 1]), **place}

    def locate(self, quote: str) -> tuple[int, int] | None:
        """Where the words of `quote` stand in `text` first, as start and end; None if they do not.

        Runs of white space count as equal. The time is linear in the length of the text.
        """
        quote = quote.strip()
        if len(quote) < _SHORTEST:
            return None
        at = self.text.find(quote)
        if at >= 0:
            return at, at + len(quote)
        words = " ".join(quote.split())
        if self._folded is None:
            self._folded = " ".join(self.text.split())
        at = self._folded.find(words)
        if at < 0:
            return None
        last = at + len(words) - 1
        return self._unfolded(at), self._unfolded(last) + 1

    def _unfolded(self, at: int) -> int:
        """The place in `text` of a character of `_folded`, which belongs to a word."""
        assert self._folded is not None  # noqa: S101 - for the type checker
        word = next(islice(_WORD.finditer(self.text), self._folded.count(" ", 0, at), None))
        return word.start() + at - (self._folded.rfind(" ", 0, at) + 1)


class CitedDocuments:
    """The documents of one request that can be cited, by their number for the model."""

    def __init__(self, documents: list[CitedDocument]) -> None:
        self._documents = {document.index + 1: document for document in documents}
        self._left = _MOST_SEARCHED
        self.size = sum(len(document.text) for document in documents)
        """Characters of all documents."""

    def __len__(self) -> int:
        return len(self._documents)

    def find(self, number: int, quote: str) -> Json | None:
        """The citation of a quote, at best from the document with this number; None if no document has its words.

        After `_MOST_SEARCHED` characters, no further quote is searched for.
        """
        if self._left < 0:
            return None
        self._left -= self.size
        named = self._documents.get(number)
        others = [document for document in self._documents.values() if document is not named]
        for document in others if named is None else [named, *others]:
            place = document.locate(quote)
            if place is not None:
                return document.citation(*place)
        return None
