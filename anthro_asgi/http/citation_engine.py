"""Takes the quotes out of an engine's answer, and cites those that stand in the documents (contract 3.55)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from ..engines.base import BaseEngine, CallRepair
from ..wire.cited_documents import CitedDocuments
from ..wire.deltas import Batch, Delta, deltas_of
from ..wire.quote_reader import Quote, QuoteReader, cited_deltas
from ..wire.request import MessagesRequest
from .answer import in_input_thread

_SEARCHED_HERE: Final = 32 * 1024  # characters of documents that are searched in the thread of the event loop
_PIECE: Final = 2048  # characters of one text that are read before other requests run: they may hold a hundred quotes


class CitationEngine(BaseEngine):
    """Answers as `engine` does, with citations. `documents` are those that the quotes are searched in."""

    def __init__(self, engine: BaseEngine, documents: CitedDocuments) -> None:
        self._engine = engine
        self._documents = documents
        self.accepts_server_tools = engine.accepts_server_tools
        self.takes_cuts = engine.takes_cuts
        self.returning_ends_turn = engine.returning_ends_turn

    def describe(self) -> str | None:
        return self._engine.describe()

    def call_repair(self) -> CallRepair | None:
        return self._engine.call_repair()

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The deltas of the engine, without the marks of quotes. Raises what the engine raises."""
        request.direct_output = None  # every text has to be read here
        reader = QuoteReader()
        batches: Any = self._engine.stream(request)
        del request
        async with aclosing(batches):
            async for batch in batches:
                for piece in _pieces(batch):
                    out = await self._with_citations(reader.feed(piece))
                    if out:
                        yield out
                    if piece is not batch:
                        await asyncio.sleep(0)
        out = await self._with_citations(reader.end())
        if out:
            yield out

    async def _with_citations(self, read: list[Delta | Quote]) -> list[Delta]:
        out: list[Delta] = []
        for one in read:
            if not isinstance(one, Quote):
                out.append(one)
                continue
            find = partial(self._documents.find, one.number, one.text)
            citation = find() if self._documents.size <= _SEARCHED_HERE else await in_input_thread(find)
            out += cited_deltas(one.text, citation)
        return out


def _pieces(batch: Batch) -> Iterator[Batch]:
    """The batch itself; its deltas one by one, and long texts in pieces, if it has a long text."""
    if not any(isinstance(delta, str) and len(delta) > _PIECE for delta in deltas_of(batch)):
        yield batch
        return
    for delta in deltas_of(batch):
        if isinstance(delta, str):
            yield from (delta[at : at + _PIECE] for at in range(0, len(delta), _PIECE))
        else:
            yield delta
