"""How often a refused request is changed and sent again."""

from collections.abc import Callable
from typing import Any

import pytest

from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import InvalidRequest
from tests.support.chat_requests import request
from tests.support.upstream import ScriptedUpstream, Wire, json_answer

ENGINES: dict[str, Callable[[Origin], Any]] = {
    "chat": lambda origin: OpenAIEngine(origin, dialect="openai"),
    "messages": MessagesEngine,
}


@pytest.mark.parametrize("api", ENGINES)
async def test_a_refused_request_is_sent_again_at_most_three_times(api: str) -> None:
    """The engine refuses every length, and names a smaller one each time."""
    posted = 0

    async def refuse(wire: Wire) -> None:
        nonlocal posted
        if wire.method == "GET":
            await wire.send(json_answer(200, {"data": [{"id": "m", "type": "model"}]}))
            return
        posted += 1
        words = f"This model supports at most {4000 >> posted} completion tokens"
        error = {"type": "invalid_request_error", "message": words}
        await wire.send(json_answer(400, {"type": "error", "error": error}))

    async with ScriptedUpstream(refuse) as upstream:
        engine: Any = ENGINES[api](Origin.parse(upstream.url))
        await engine.start()
        try:
            with pytest.raises(InvalidRequest):
                async for _ in engine.stream(request(max_tokens=4096)):
                    pass
        finally:
            await engine.stop()
    assert posted == 4
