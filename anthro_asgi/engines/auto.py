"""An upstream whose API is not configured: chat completions, unless its model list is that of a Messages server.

Only a list with a model decides. Any other response (an error, a page, an empty list) leaves the choice open, and the
upstream is asked for chat completions meanwhile. The choice is forgotten when another upstream may be at the address: a
connection was lost, or the path of the chosen API is missing. If the path is missing and no list decides, the request
is sent once more, to the path of the other API, which is then used until a list decides.

An engine that serves both is used for chat completions, because `dialects` knows its peculiarities there.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final

from ..wire.deltas import Batch
from ..wire.errors import ApiError
from ..wire.request import MessagesRequest
from .base import ModelInfo, Observer, UpstreamEngine
from .messages.engine import MessagesEngine
from .openai.dialects import Dialect
from .openai.engine import OpenAIEngine
from .shared.remote import RemoteEngine, log_unreachable, start_within
from .shared.single_flight import SingleFlight

_PAUSE: Final = 5.0  # seconds between two attempts to choose
_MAX_WAIT: Final = 1.0  # seconds that a request waits for the choice when there was one before
_HANDED_OVER: Final = ("count_tokens", "detect", "models", "ready", "stream", "why_not_ready")


class AutoEngine(UpstreamEngine):
    """Chooses one of two engines when the upstream first lists its models, and hands over to it.

    From then on the methods in _HANDED_OVER are those of the chosen engine, until the choice is forgotten. The others
    always concern both engines.
    """

    accepts_server_tools = True  # of the two engines, the one for chat completions refuses them itself

    def __init__(self, chat: OpenAIEngine, messages: MessagesEngine) -> None:
        self._chat = chat
        self._messages = messages
        self._chosen: OpenAIEngine | MessagesEngine | None = None
        self._last: OpenAIEngine | MessagesEngine | None = None  # the last choice
        self._open_until = float("-inf")  # the upstream is not asked again until then, on the loop's clock
        self._choice = SingleFlight(self._choose)
        chat.on_engine_gone = messages.on_engine_gone = self._forget
        chat.find_successor = partial(self._successor, chat)
        messages.find_successor = partial(self._successor, messages)
        self._first_contact = SingleFlight(self._choose_at_start)

    takes_cuts = True

    @property
    def observe(self) -> Observer:
        return self._chat.observe

    @observe.setter
    def observe(self, observer: Observer) -> None:
        self._chat.observe = self._messages.observe = observer

    def __repr__(self) -> str:
        return f"<AutoEngine {self._chosen!r}>"

    def remedy(self, error: ApiError) -> str | None:
        return self._chat.remedy(error)

    async def _choose(self) -> OpenAIEngine | MessagesEngine:
        """Raises ApiError while the upstream is not reachable."""
        now = asyncio.get_running_loop().time()
        if now < self._open_until:
            return self._last or self._chat
        relays = await self._messages.is_messages_server()
        if relays is None:
            self._open_until = now + _PAUSE
            return self._last or self._chat
        chosen = self._chosen = self._last = self._messages if relays else self._chat
        for name in _HANDED_OVER:
            setattr(self, name, getattr(chosen, name))
        return chosen

    def _forget(self) -> None:
        """Choose again at the next request."""
        if self._chosen is not None:
            self._chosen = None
            for name in _HANDED_OVER:
                delattr(self, name)

    async def _successor(self, failed: RemoteEngine) -> OpenAIEngine | MessagesEngine | None:
        """The engine for a request that `failed` could not send because its path is missing; None if it is the same."""
        try:
            chosen = await self._choice.result()
        except ApiError:
            return None
        if self._chosen is None:  # no list decides, but the missing path does
            chosen = self._last = self._messages if failed is self._chat else self._chat
        return None if chosen is failed else chosen

    async def _engine(self) -> OpenAIEngine | MessagesEngine:
        """The engine for a request. A request waits at most a second for the list when an engine was chosen before."""
        if self._last is None:
            return await self._choice.result()
        return await self._choice.result_within(_MAX_WAIT, self._last)

    # for both engines

    async def start(self) -> None:
        """Choose, and start the chosen engine. If the upstream is not reachable, the first request chooses."""
        await start_within(self._first_contact)

    async def _choose_at_start(self) -> None:
        try:
            chosen = await self._choice.result()
        except ApiError as exc:
            log_unreachable(exc, self._chat.name)
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

    def describe(self) -> str | None:
        """The name of the engine that is in use; None until it was reached."""
        return (self._chosen or self._last or self._chat).describe()

    def known_models(self) -> list[ModelInfo] | None:
        return (self._last or self._chat).known_models()

    def connections(self) -> dict[str, int]:
        """The number of connections in each state, and of requests that wait for one."""
        others = self._messages.connections()
        return {state: count + others[state] for state, count in self._chat.connections().items()}

    # until the choice

    async def detect(self) -> Dialect:
        return await (await self._choice.result()).detect()

    async def ready(self) -> bool:
        return await (self._last or self._chat).ready()

    async def why_not_ready(self) -> str | None:
        return await (self._last or self._chat).why_not_ready()

    async def models(self) -> list[ModelInfo]:
        return await (self._last or self._chat).models()

    async def count_tokens(self, request: MessagesRequest) -> int:
        return await (await self._engine()).count_tokens(request)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        chosen = await self._engine()
        async with aclosing(chosen.stream(request)) as batches:  # type: ignore[type-var]
            del request  # the chosen engine owns it, and releases it
            async for batch in batches:
                yield batch
