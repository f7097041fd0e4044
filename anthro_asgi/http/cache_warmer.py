"""Warms the engine's prefix cache: the engine reads a prompt, and the client gets an empty answer (contract 3.46)."""

from collections.abc import AsyncIterator

from ..engines.base import BaseEngine
from ..wire.deltas import Batch, Finish, MessageFields, Usage, deltas_of
from ..wire.request import MessagesRequest
from .answer import Answer


class CacheWarmer(BaseEngine):
    """Asks `engine`, and yields nothing of its answer but what it reports of the prompt."""

    def __init__(self, engine: BaseEngine) -> None:
        self._engine = engine
        self.accepts_server_tools = engine.accepts_server_tools
        self.takes_cuts = engine.takes_cuts

    def describe(self) -> str | None:
        return self._engine.describe()

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The counts of the prompt, and a Finish with the reason `max_tokens`. Raises what the engine raises."""
        async with Answer(self._engine, request) as answer:
            async for batch in answer:
                for delta in deltas_of(batch):
                    if isinstance(delta, Usage):
                        yield _of_prompt(delta)
                    elif isinstance(delta, MessageFields):
                        yield delta
        yield [Usage(output_tokens=0), Finish("max_tokens")]


def _of_prompt(usage: Usage) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
    )
