"""Prepares a request whose documents ask for citations (contract 3.55). Pure.

request ──► `cite_documents`: numbers the documents, and tells the model how to mark quotes of them
answer  ──► `quote_reader.QuoteReader`: takes the marks out of the text, and yields the quotes
quotes  ──► `cited_documents.CitedDocuments`: a quote that stands in a document becomes a citation, any other text
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from .citation_prompt import CITATION_PROMPT, CLOSING, OPENING, numbered
from .cited_documents import CitedDocument, CitedDocuments
from .large.cuts import Cuts, is_mark
from .request import MessagesRequest

Json = dict[str, Any]
_PAGE_MARK: Final = re.compile(r"\[Page (\d+) of (\d+)\](?:\n|\Z)")
"""What stands before the text of a page of a PDF that the service has read."""


def cite_documents(request: MessagesRequest) -> None:
    """Set `request.cited`, number these documents in `request.messages`, and extend the system prompt.

    Quotes in the history get their marks again, so that the prompt repeats what the model wrote. The body for a relayed
    upstream stays as it is: such an upstream cites by itself.
    """
    documents: list[CitedDocument] = []
    count = 0
    messages = []
    for message in request.messages:
        content = message["content"]
        if isinstance(content, list):
            if message["role"] == "assistant":
                content = _with_marks(content)
            else:
                content, count = _numbered(content, count, documents, request.cuts)
            message = {**message, "content": content}
        messages.append(message)
    request.messages = messages
    request.system = [*request.system, CITATION_PROMPT]
    request.cited = CitedDocuments(documents)


def _numbered(
    content: list[Json], count: int, documents: list[CitedDocument], cuts: Cuts | None
) -> tuple[list[Json], int]:
    """The blocks, with numbers for the documents that ask for citations. `count` documents came before them."""
    blocks = []
    for block in content:
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            inner, count = _numbered(block["content"], count, documents, cuts)
            block = {**block, "content": inner}
        elif block["type"] == "document":
            config = block.get("citations")
            if type(config) is dict and config.get("enabled") is True:
                documents.append(_document(block, count, cuts))
                block = {**block, "context": numbered(count + 1, block.get("context"))}
            count += 1
        blocks.append(block)
    return blocks, count


def _document(block: Json, index: int, cuts: Cuts | None) -> CitedDocument:
    def text_of(value: Any) -> str:
        return str(cuts.text(value)) if cuts is not None and is_mark(value) else str(value)

    source = block["source"]
    title = block.get("title")
    if source["type"] == "text":
        return CitedDocument.of(index, title, "char_location", [text_of(source["data"])])
    content = source.get("content", ())
    if not isinstance(content, list):
        return CitedDocument.of(index, title, "content_block_location", [text_of(content)])
    parts = [text_of(inner["text"]) if inner["type"] == "text" else "" for inner in content]
    pages = _pages([part for part, inner in zip(parts, content, strict=True) if inner["type"] == "text"])
    if pages is not None:
        return CitedDocument.of(index, title, "page_location", pages)
    return CitedDocument.of(index, title, "content_block_location", parts)


def _pages(texts: list[str]) -> list[str] | None:
    """The texts of the pages of a PDF, without their marks; None if these are no pages."""
    marks = [_PAGE_MARK.match(text) for text in texts]
    numbers = [(str(number), str(len(texts))) for number in range(1, len(texts) + 1)]
    if not texts or [mark.groups() if mark is not None else None for mark in marks] != numbers:
        return None
    return [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark is not None]


def _with_marks(content: list[Json]) -> list[Json]:
    """The blocks of an answer in the history, with marks around the texts that have citations."""
    blocks = []
    for block in content:
        if block["type"] == "text":
            cited = next(_documents_of(block), None)
            if cited is not None:
                block = {"type": "text", "text": f'{OPENING}{cited + 1}">{block["text"]}{CLOSING}'}
        blocks.append(block)
    return blocks


def _documents_of(block: Json) -> Iterator[int]:
    """The indices of the documents that the citations of a text name."""
    citations = block.get("citations")
    for citation in citations if isinstance(citations, list) else ():
        index = citation.get("document_index") if isinstance(citation, dict) else None
        if type(index) is int and 0 <= index < 10**8:
            yield index
