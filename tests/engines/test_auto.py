"""Which API an upstream is asked in, and that no answer hangs on finding it out."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import ApiError, BadUpstream
from tests.support.chat_requests import request
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, routed
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer
from tests.support.upstream_engines import SPEECHES, stream

MESSAGES = "/v1/messages"
RELAYED = SPEECHES["messages"]
MESSAGES_ANSWER = stream(RELAYED.begin(), RELAYED.text("Hi"), RELAYED.end())
MESSAGES_LIST = json_answer(200, {"data": [{"id": "m", "type": "model"}]})
CHAT_LIST = json_answer(200, {"data": [{"id": "m", "object": "model", "owned_by": "vllm"}]})
ABSENT = json_answer(404, {"detail": "Not Found"})


async def cut_short(wire: Wire) -> None:
    """The beginning of an answer, and the end of the connection."""
    speech = SPEECHES["messages" if wire.target == MESSAGES else "chat"]
    await wire.send(stream(speech.begin(), speech.text("Hi"), framing="close"))
    wire.close()


@asynccontextmanager
async def auto(routes: dict[str, Answer | list[Answer]]) -> AsyncIterator[tuple[ScriptedUpstream, AutoEngine]]:
    async with ScriptedUpstream(routed(routes)) as upstream:
        origin = Origin.parse(upstream.url)
        engine = AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))
        try:
            yield upstream, engine
        finally:
            await engine.stop()


async def text(engine: Any, **fields: Any) -> str:
    async with aclosing(engine.stream(request(**fields))) as batches:
        batches_read = [batch async for batch in batches]
    return "".join(delta for batch in batches_read for delta in batch if isinstance(delta, str))


@pytest.mark.parametrize(
    "first",
    [
        json_answer(502, {}),
        json_answer(401, {"error": "key"}),
        json_answer(200, {"data": []}),
        json_answer(200, {"data": None}),
        json_answer(200, []),
        json_answer(200, {"data": [1, None, {"object": "model"}, {"id": None}]}),
        json_answer(429, {}),
        raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>"),
    ],
    ids=["502", "401", "empty list", "no list", "array", "no model", "429", "page"],
)
async def test_only_a_list_with_a_model_decides(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anthro_asgi.engines.auto._PAUSE", 0.0)
    async with auto({MODELS: [first, MESSAGES_LIST], MESSAGES: MESSAGES_ANSWER, CHAT: ABSENT}) as (_, engine):
        await engine.start()
        assert await text(engine) == "Hi"


async def test_a_missing_path_of_the_chosen_api_makes_it_choose_again() -> None:
    """The request that found out failed: another engine had been started at the same address."""
    async with auto({MODELS: [CHAT_LIST, CHAT_LIST, MESSAGES_LIST], MESSAGES: MESSAGES_ANSWER, CHAT: ABSENT}) as (
        upstream,
        engine,
    ):
        await engine.start()
        assert await text(engine) == "Hi"
        assert await text(engine) == "Hi"
        assert [asked.target for asked in upstream.requests if asked.method == "POST"] == [CHAT, MESSAGES, MESSAGES]


async def test_a_request_for_a_messages_server_is_answered_by_the_chat_engine_in_its_place() -> None:
    async with auto({MODELS: [MESSAGES_LIST, MESSAGES_LIST, CHAT_LIST], MESSAGES: ABSENT, CHAT: ANSWER}) as (
        upstream,
        engine,
    ):
        await engine.start()
        assert await text(engine) == "Hello"
        assert [asked.target for asked in upstream.requests if asked.method == "POST"] == [MESSAGES, CHAT]


@pytest.mark.parametrize("listed", [ABSENT, json_answer(502, {}), json_answer(200, {"data": []})])
async def test_without_a_list_that_decides_a_missing_path_leads_to_the_other_api(listed: Answer) -> None:
    """The upstream has no model list: first a chat server, then a Messages server, then a chat server again."""
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: listed,
        CHAT: [ANSWER, ABSENT, ANSWER],
        MESSAGES: [MESSAGES_ANSWER, MESSAGES_ANSWER, json_answer(405, {"detail": "Method Not Allowed"})],
    }
    async with auto(routes) as (upstream, engine):
        assert [await text(engine) for _ in range(4)] == ["Hello", "Hi", "Hi", "Hello"]
        posts = [asked.target for asked in upstream.requests if asked.method == "POST"]
        assert posts == [CHAT, CHAT, MESSAGES, MESSAGES, MESSAGES, CHAT]


@pytest.mark.parametrize(
    "lists",
    [[json_answer(502, {})], [CHAT_LIST], [MESSAGES_LIST], [CHAT_LIST, CHAT_LIST, MESSAGES_LIST, CHAT_LIST]],
    ids=["none", "chat", "messages", "changing"],
)
async def test_an_upstream_without_either_api_is_asked_once_in_each(lists: list[Answer]) -> None:
    async with auto({MODELS: lists, MESSAGES: ABSENT, CHAT: ABSENT}) as (upstream, engine):
        await engine.start()
        with pytest.raises(BadUpstream, match="does not serve this API"):
            await text(engine)
        posts = [asked.target for asked in upstream.requests if asked.method == "POST"]
        assert len(posts) == len(set(posts))
        assert " leased=0 connecting=0 " in repr(engine._chat)
        assert " leased=0 connecting=0 " in repr(engine._messages)


async def test_an_engine_that_was_swapped_behind_a_lost_connection_is_found_out() -> None:
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: [MESSAGES_LIST, MESSAGES_LIST, CHAT_LIST],
        MESSAGES: [MESSAGES_ANSWER, cut_short],
        CHAT: ANSWER,
    }
    async with auto(routes) as (upstream, engine):
        await engine.start()
        assert await text(engine) == "Hi"
        with pytest.raises(ApiError):
            await text(engine)
        assert await text(engine) == "Hello"
        assert upstream.requests[-1].target == CHAT


async def test_the_detecting_request_carries_the_version_header() -> None:
    async def two_faces(wire: Wire) -> None:
        """Dynamo lists its models as a Messages server if the request has the header."""
        await wire.send(MESSAGES_LIST if "anthropic-version" in wire.headers else CHAT_LIST)

    async with auto({MODELS: two_faces, MESSAGES: MESSAGES_ANSWER, CHAT: ANSWER}) as (upstream, engine):
        assert await text(engine) == "Hi"
        assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"


async def hanging(wire: Wire) -> None:
    await wire.gone()


@pytest.mark.slow
@pytest.mark.parametrize(
    "list_fails", [json_answer(500, {}), json_answer(503, {}), hanging], ids=["500", "503", "hangs"]
)
async def test_a_broken_stream_and_a_failing_list_leave_the_known_dialect(list_fails: Answer) -> None:
    routes: dict[str, Answer | list[Answer]] = {MODELS: [CHAT_LIST, list_fails], CHAT: [ANSWER, cut_short, ANSWER]}
    async with ScriptedUpstream(routed(routes)) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        thinking = {"type": "disabled"}
        assert await text(engine, top_k=5, thinking=thinking) == "Hello"
        with pytest.raises(ApiError):
            await text(engine, top_k=5, thinking=thinking)
        async with asyncio.timeout(4):
            assert await text(engine, top_k=5, thinking=thinking) == "Hello"
        first, _, last = [json.loads(asked.body) for asked in upstream.requests if asked.target == CHAT]
        assert last == first
        await engine.stop()


@pytest.mark.slow
async def test_a_relay_does_not_hang_on_the_model_list_after_a_broken_stream() -> None:
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: [MESSAGES_LIST, MESSAGES_LIST, hanging],
        MESSAGES: [MESSAGES_ANSWER, cut_short, MESSAGES_ANSWER],
    }
    async with auto(routes) as (_, engine):
        assert await text(engine) == "Hi"
        with pytest.raises(ApiError):
            await text(engine)
        async with asyncio.timeout(5):
            assert await text(engine) == "Hi"
