"""An upstream whose API is not configured: chat completions, unless its model list is that of a Messages server.

An engine that serves both is used for chat completions, because `dialects` knows its peculiarities there.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from ..wire.deltas import Batch
from ..wire.errors import ApiError
from ..wire.request import MessagesRequest
from .base import ModelInfo, Observer, UpstreamEngine
from .messages.engine import MessagesEngine
from .openai.dialects import Dialect
from .openai.engine import OpenAIEngine
from .shared.remote import log_unreachable, start_within
from .shared.single_flight import SingleFlight

_HANDED_OVER: Final = ("count_tokens", "detect", "models", "ready", "stream")


class AutoEngine(UpstreamEngine):
    """Chooses one of two engines when the upstream first responds, and hands over to it.

    From then on the methods in _HANDED_OVER are those of the chosen engine. The others always concern both engines.
    """

    def __init__(self, chat: OpenAIEngine, messages: MessagesEngine) -> None:
        self._chat = chat
        self._messages = messages
        self._chosen: OpenAIEngine | MessagesEngine | None = None
        self._choice = SingleFlight(self._choose)
        self._first_contact = SingleFlight(self._choose_at_start)

    @property
    def observe(self) -> Observer:
        return self._chat.observe

    @observe.setter
    def observe(self, observer: Observer) -> None:
        self._chat.observe = self._messages.observe = observer

    def __repr__(self) -> str:
        return f"<AutoEngine {self._chosen!r}>"

    async def _choose(self) -> OpenAIEngine | MessagesEngine:
        """Raises ApiError while the upstream is not reachable."""
        if self._chosen is None:
            chosen = self._messages if await self._messages.is_messages_server() else self._chat
            for name in _HANDED_OVER:
                setattr(self, name, getattr(chosen, name))
            self._chosen = chosen
        return self._chosen

    # for both engines

    async def start(self) -> None:
        """Choose, and start the chosen engine. If the upstream is not reachable, the first request chooses."""
        await start_within(self._first_contact)

    async def _choose_at_start(self) -> None:
        try:
            chosen = await self._choice.result()
        except ApiError as exc:
            log_unreachable(exc)
        else:
            await chosen.start()

    async def stop(self) -> None:
        await self._first_contact.close()
        await self._choice.close()
        await self._chat.stop()
        await self._messages.stop()

    def replace_key(self, key: str | None) -> None:
        """Use this key for new requests. Raises ValueError, and then keeps the old key."""
        self._chat.replace_key(key)
        self._messages.replace_key(key)

    def connections(self) -> dict[str, int]:
        """The number of connections in each state, and of requests that wait for one."""
        others = self._messages.connections()
        return {state: count + others[state] for state, count in self._chat.connections().items()}

    # until the choice

    async def detect(self) -> Dialect:
        return await (await self._choice.result()).detect()

    async def ready(self) -> bool:
        return await self._chat.ready()

    async def models(self) -> list[ModelInfo]:
        return await self._chat.models()

    async def count_tokens(self, request: MessagesRequest) -> int:
        return await (await self._choice.result()).count_tokens(request)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        chosen = await self._choice.result()
        async with aclosing(chosen.stream(request)) as batches:  # type: ignore[type-var]
            del request  # the chosen engine owns it, and releases it
            async for batch in batches:
                yield batch
