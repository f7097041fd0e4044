"""An upstream whose API nobody has named: chat completions, unless its model list is that of a Messages server.

Engines that serve both are asked for chat completions, whose every peculiarity is known; see `dialects`.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

from ..wire.deltas import Batch
from ..wire.errors import ApiError
from ..wire.request import MessagesRequest
from .base import ModelInfo, Observer, UpstreamEngine
from .messages.engine import MessagesEngine
from .openai.dialects import Dialect
from .openai.engine import OpenAIEngine

_log = logging.getLogger(__name__)


class AutoEngine(UpstreamEngine):
    """One of the two, from when the upstream first answers."""

    def __init__(self, chat: OpenAIEngine, messages: MessagesEngine) -> None:
        self._chat = chat
        self._messages = messages
        self._chosen: OpenAIEngine | MessagesEngine | None = None

    @property
    def observe(self) -> Observer:
        return self._chat.observe

    @observe.setter
    def observe(self, observer: Observer) -> None:
        self._chat.observe = self._messages.observe = observer

    def __repr__(self) -> str:
        return f"<AutoEngine {self._chosen!r}>"

    async def _engine(self) -> OpenAIEngine | MessagesEngine:
        """The one it is. Raises ApiError while the upstream is not reachable."""
        if self._chosen is None:
            speaks_messages = await self._messages.is_messages_server()
            self._chosen = self._messages if speaks_messages else self._chat
        return self._chosen

    async def start(self) -> None:
        """Asks the upstream which it is. One that is not up yet is asked again by the first request."""
        try:
            engine = await self._engine()
        except ApiError:
            _log.warning("the engine does not answer yet")
        else:
            await engine.start()

    async def stop(self) -> None:
        await self._chat.stop()
        await self._messages.stop()

    def replace_key(self, key: str | None) -> None:
        """Ask with this key from now on. Raises ValueError, and changes nothing then."""
        self._chat.replace_key(key)
        self._messages.replace_key(key)

    def connections(self) -> dict[str, int]:
        """How many there are in each state, and how many requests wait for one."""
        others = self._messages.connections()
        return {state: count + others[state] for state, count in self._chat.connections().items()}

    async def detect(self) -> Dialect:
        return await (await self._engine()).detect()

    async def ready(self) -> bool:
        return await (self._chosen or self._chat).ready()

    async def models(self) -> list[ModelInfo]:
        return await (self._chosen or self._chat).models()

    async def count_tokens(self, request: MessagesRequest) -> int:
        return await (await self._engine()).count_tokens(request)

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        return self._first(request) if self._chosen is None else self._chosen.stream(request)

    async def _first(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        engine = await self._engine()
        async with aclosing(engine.stream(request)) as batches:  # type: ignore[type-var]
            del request  # it is the engine's, which lets it go
            async for batch in batches:
                yield batch
