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
from .large.cooperative import Steps
from .large.cuts import Cuts, is_mark
from .request import MessagesRequest

Json = dict[str, Any]
_PAGE_MARK: Final = re.compile(r"\[Page (\d+) of (\d+)\](?:\n|\Z)")
"""What stands before the text of a page of a PDF that the service has read."""
_MESSAGES_PER_STEP: Final = 128
_BLOCKS_PER_STEP: Final = 256


def cite_documents(request: MessagesRequest) -> Steps[None]:
    """Set `request.cited`, number these documents in `request.messages`, and extend the system prompt, in steps.

    Quotes in the history get their marks again, so that the prompt repeats what the model wrote. The body for a relayed
    upstream stays as it is: such an upstream cites by itself.
    """
    documents: list[CitedDocument] = []
    count = 0
    messages = []
    for number, message in enumerate(request.messages, 1):
        if number % _MESSAGES_PER_STEP == 0:
            yield
        content = message["content"]
        if isinstance(content, list):
            if message["role"] == "assistant":
                content = yield from _with_marks(content)
            else:
                content, count = yield from _numbered(content, count, documents, request.cuts)
            message = {**message, "content": content}
        messages.append(message)
    request.messages = messages
    request.system = [*request.system, CITATION_PROMPT]
    yield
    request.cited = CitedDocuments(documents)


def _numbered(
    content: list[Json], count: int, documents: list[CitedDocument], cuts: Cuts | None
) -> Steps[tuple[list[Json], int]]:
    """The blocks, with numbers for the documents that ask for citations. `count` documents came before them."""
    blocks = []
    for number, block in enumerate(content, 1):
        if number % _BLOCKS_PER_STEP == 0:
            yield
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            inner, count = yield from _numbered(block["content"], count, documents, cuts)
            block = {**block, "content": inner}
        elif block["type"] == "document":
            config = block.get("citations")
            if type(config) is dict and config.get("enabled") is True:
                documents.append((yield from _document(block, count, cuts)))
                block = {**block, "context": numbered(count + 1, block.get("context"))}
            count += 1
        blocks.append(block)
    return blocks, count


def _document(block: Json, index: int, cuts: Cuts | None) -> Steps[CitedDocument]:
    def text_of(value: Any) -> Steps[str]:
        if cuts is None or not is_mark(value):
            return str(value)
        parts: list[str] = []
        for part in cuts.texts(value):
            parts.append(part)
            yield
        return "".join(parts)

    source = block["source"]
    title = block.get("title")
    if source["type"] == "text":
        return (yield from CitedDocument.of(index, title, "char_location", [(yield from text_of(source["data"]))]))
    content = source.get("content", ())
    if not isinstance(content, list):
        return (yield from CitedDocument.of(index, title, "content_block_location", [(yield from text_of(content))]))
    parts: list[str] = []
    texts: list[str] = []
    for number, inner in enumerate(content, 1):
        if inner["type"] == "text":
            parts.append((yield from text_of(inner["text"])))
            texts.append(parts[-1])
        else:
            parts.append("")
        if number % _BLOCKS_PER_STEP == 0:
            yield
    pages = yield from _pages(texts)
    yield
    if pages is not None:
        return (yield from CitedDocument.of(index, title, "page_location", pages))
    return (yield from CitedDocument.of(index, title, "content_block_location", parts))


def _pages(texts: list[str]) -> Steps[list[str] | None]:
    """The texts of the pages of a PDF, without their marks; None if these are no pages."""
    pages: list[str] = []
    for number, text in enumerate(texts, 1):
        mark = _PAGE_MARK.match(text)
        if mark is None or mark.groups() != (str(number), str(len(texts))):
            return None
        pages.append(text[mark.end() :])
        if number % _BLOCKS_PER_STEP == 0:
            yield
    return pages or None


def _with_marks(content: list[Json]) -> Steps[list[Json]]:
    """The blocks of an answer in the history, with marks around the texts that have citations."""
    blocks = []
    for number, block in enumerate(content, 1):
        if number % _BLOCKS_PER_STEP == 0:
            yield
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
