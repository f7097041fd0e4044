"""With a real llama.cpp: the count of a request equals the usage of its answer, for requests of every shape."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai import count_tokens
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Usage, deltas_of
from anthro_asgi.wire.json_codec import dumps
from tests.support.chat_requests import assistant, request, result, text, use, user
from tests.support.llama.server import LlamaServer

Json = dict[str, Any]
MULTIBYTE = "Übergröße, 漢字, 🙂🙂, \u2028 and <|im_end|> <think>"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"name": "get_weather", "description": "The weather, today.", "input_schema": CITY},
    {"name": "get_time", "input_schema": {"type": "object", "properties": {}}},
]
CALLED = (user("Rain?"), assistant(use("c1", "get_weather", city="Łódź")))
THOUGHT = {"type": "thinking", "thinking": "Hm, rain.", "signature": "s"}
SEARCHED = {"type": "search_result", "title": "T", "source": "http://t", "content": [text("found")]}
PAPER = {
    "type": "document",
    "title": "Paper",
    "source": {"type": "text", "media_type": "text/plain", "data": "Much ado."},
}

SHAPES: dict[str, tuple[tuple[Json, ...], Json]] = {
    "text": ((user("Hello?"),), {}),
    "a plain string": (({"role": "user", "content": "Hello?"},), {}),
    "several texts": ((user("One.", "Two.", "Three."),), {}),
    "multi-byte": ((user(MULTIBYTE),), {"system": MULTIBYTE}),
    "an empty text": ((user(""),), {}),
    "a blank text": ((user(" \n "),), {}),
    "system": ((user("Hello?"),), {"system": "Be kind."}),
    "system in blocks": ((user("Hello?"),), {"system": [text("Be kind."), text("Be brief.")]}),
    "several turns": ((user("a"), assistant("b"), user("c"), assistant("d"), user("e")), {}),
    "system between turns": ((user("a"), assistant("b"), {"role": "system", "content": "s"}, user("c")), {}),
    "two users in a row": ((user("a"), user("b")), {}),
    "prefill": ((user("Count."), assistant("1, 2,")), {}),
    "tools": ((user("Rain?"),), {"tools": TOOLS}),
    "tools, any": ((user("Rain?"),), {"tools": TOOLS, "tool_choice": {"type": "any"}}),
    "tools, none": ((user("Rain?"),), {"tools": TOOLS, "tool_choice": {"type": "none"}}),
    "tools, one": ((user("Rain?"),), {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "get_time"}}),
    "tools, one at a time": (
        (user("Rain?"),),
        {"tools": TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    "a result": ((*CALLED, user(result("c1", "Sun."))), {"tools": TOOLS}),
    "an empty result": ((*CALLED, user(result("c1"))), {"tools": TOOLS}),
    "a result in blocks": ((*CALLED, user(result("c1", [text("Sun."), text("Wind.")]))), {"tools": TOOLS}),
    "a failed result": ((*CALLED, user(result("c1", "no such city", is_error=True))), {"tools": TOOLS}),
    "a result and a text": ((*CALLED, user(result("c1", "Sun."), "And tomorrow?")), {"tools": TOOLS}),
    "results without tools": ((*CALLED, user(result("c1", "Sun."))), {}),
    "two calls": (
        (
            user("Rain?"),
            assistant("Both.", use("c1", "get_weather", city="A"), use("c2", "get_time")),
            user(result("c2", "noon"), result("c1", "Sun.")),
        ),
        {"tools": TOOLS},
    ),
    "thinking history": ((user("a"), assistant(THOUGHT, "Rain."), user("b")), {}),
    "thinking on": ((user("a"),), {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    "thinking off": ((user("a"),), {"thinking": {"type": "disabled"}}),
    "thinking, tools": ((user("a"),), {"thinking": {"type": "adaptive"}, "tools": TOOLS}),
    "a document": ((user(PAPER, "Summarise."),), {}),
    "a search result": ((user(SEARCHED, "So?"),), {}),
    "an effort": ((user("a"),), {"output_config": {"effort": "high"}}),
    "an output format": ((user("a"),), {"output_config": {"format": {"type": "json_schema", "schema": CITY}}}),
    "a long history": ((*[user("word " * 100), assistant("word " * 20)] * 10, user("So?")), {}),
}


@asynccontextmanager
async def engine_at(llama: LlamaServer) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(Origin.parse(llama.url))
    try:
        yield engine
    finally:
        await engine.stop()


async def used(engine: OpenAIEngine, messages: tuple[Json, ...], fields: Json) -> tuple[int | None, int]:
    """The length of the prompt in the first and in the last usage."""
    usages = []
    async with aclosing(engine.stream(request(*messages, **fields, max_tokens=1))) as batches:  # type: ignore[type-var]
        async for batch in batches:
            usages += [delta for delta in deltas_of(batch) if isinstance(delta, Usage)]
    totals = [(usage.input_tokens or 0) + (usage.cache_read_input_tokens or 0) for usage in usages]
    return totals[0], totals[-1]


def test_there_are_at_least_twenty_request_shapes() -> None:
    assert len(SHAPES) >= 20


@pytest.mark.clause("10.2", "10.3")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_the_count_equals_the_usage(llama: LlamaServer, shape: tuple[tuple[Json, ...], Json]) -> None:
    messages, fields = shape
    async with engine_at(llama) as engine:
        counted = await engine.count_tokens(request(*messages, **fields))
        assert (counted, counted) == await used(engine, messages, fields)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_the_count_of_an_older_llamacpp_equals_the_count_of_a_new_one(
    llama: LlamaServer, shape: tuple[tuple[Json, ...], Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages, fields = shape
    async with engine_at(llama) as engine:
        counted = await engine.count_tokens(request(*messages, **fields))
        monkeypatch.setattr(count_tokens, "INPUT_TOKENS", "/v1/no/such/path")
        assert await engine.count_tokens(request(*messages, **fields)) == counted


async def test_the_service_returns_the_exact_count_without_the_estimate_header(llama: LlamaServer) -> None:
    async with engine_at(llama) as engine:
        app = MessagesApp(engine)
        body = {"model": "m", "messages": [{"role": "user", "content": MULTIBYTE}], "tools": TOOLS}
        counted = await Driver(app).request("POST", "/v1/messages/count_tokens", body=dumps(body))
        answered = await Driver(app).request("POST", "/v1/messages", body=dumps(body | {"max_tokens": 1}))
        usage = answered.json()["usage"]
        assert counted.json() == {"input_tokens": usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)}
        assert counted.header("anthro-asgi-token-count") is None


async def test_a_prompt_longer_than_the_window_is_counted(llama: LlamaServer) -> None:
    async with engine_at(llama) as engine:
        assert await engine.count_tokens(request(user("word " * 9000))) > 8192
