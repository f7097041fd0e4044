"""The instructions for the model when a request asks for citations. `QuoteReader` reads the marks named here."""

from typing import Final

OPENING: Final = '<quote doc="'
CLOSING: Final = "</quote>"

CITATION_PROMPT: Final = (
    "Some of the documents below have a number that can be cited. When a statement in your answer rests on such a "
    f'document, quote the words that support it: copy them exactly, between {OPENING}N"> and {CLOSING}, where N is the '
    "number of the document. The user sees the quoted words without the marks, so let them be a part of your "
    "sentence or a sentence of their own. Quote the shortest passage that supports the statement. Do not change, "
    "translate or shorten the words inside the marks, and use the marks for nothing else."
)
"""It is added to the system prompt."""


def numbered(number: int, context: str | None) -> str:
    """The context of a document that can be cited as `number`."""
    line = f"This is document {number}. It can be cited."
    return f"{line}\n{context}" if context else line
