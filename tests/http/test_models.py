"""The engine's models, while the engine is reachable and while it is not (contract sections 7 and 9)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import model_list
from anthro_asgi.http import messages_app
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, listing, recording, routed, times
from tests.support.upstream import Answer, ScriptedUpstream, json_answer

LOADING = json_answer(503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
HELLO = orjson.dumps({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]})


@asynccontextmanager
async def app_over(
    routes: dict[str, Answer | list[Answer]], aliases: dict[str, str] | None = None
) -> AsyncIterator[tuple[ScriptedUpstream, MessagesApp]]:
    async with ScriptedUpstream(routed(routes)) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect="vllm")
        yield upstream, MessagesApp(engine, aliases=aliases)
        await engine.stop()


@asynccontextmanager
async def app_without_engine(aliases: dict[str, str] | None = None) -> AsyncIterator[MessagesApp]:
    async with ScriptedUpstream() as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
    yield MessagesApp(engine, aliases=aliases)
    await engine.stop()


async def get(app: MessagesApp, path: str) -> Response:
    return await Driver(app).request("GET", path)


async def ids(app: MessagesApp) -> list[str]:
    return [model["id"] for model in (await get(app, "/v1/models")).json()["data"]]


# a reachable engine


@pytest.mark.parametrize("engine_name", ["llamacpp", "vllm", "sglang"])
async def test_the_limits_of_a_recorded_engine_are_listed(engine_name: str) -> None:
    async with app_over({MODELS: recording(engine_name, "00_get_v1_models")}) as (_, app):
        model = (await get(app, "/v1/models/tiny")).json()
        assert (model["max_input_tokens"], model["max_tokens"]) == (1024, 1024)


async def test_the_model_list_is_cached_for_a_while() -> None:
    async with app_over({MODELS: listing("vllm")}) as (upstream, app):
        for _ in range(5):
            assert await ids(app) == ["m"]
            assert (await get(app, "/v1/models/m")).status == 200
        assert times(upstream, MODELS) == 1


@pytest.mark.clause("1.4")
async def test_a_model_with_a_slash_in_its_name_is_found() -> None:
    async with app_over({MODELS: listing("vllm", name="org/m:8b")}) as (_, app):
        assert (await get(app, "/v1/models/org/m:8b")).json()["id"] == "org/m:8b"


async def test_the_creation_time_stays_although_the_engine_reports_the_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_list, "MAX_AGE", 0.0)
    lists: list[Answer] = [listing("llamacpp", created=created) for created in (100, 200, 300)]
    async with app_over({MODELS: lists}) as (upstream, app):
        times_told = {(await get(app, "/v1/models/m")).json()["created_at"] for _ in lists}
        assert times_told == {"1970-01-01T00:01:40Z"}
        assert times(upstream, MODELS) == len(lists)


@pytest.mark.clause("9.4")
async def test_a_name_that_matches_a_wildcard_is_found_with_the_limits_of_its_model() -> None:
    async with app_over({MODELS: listing("vllm", window=64)}, {"claude-*": "m"}) as (_, app):
        model = (await get(app, "/v1/models/claude-sonnet-9")).json()
        assert (model["id"], model["max_input_tokens"]) == ("claude-sonnet-9", 64)
        assert (await get(app, "/v1/models/gpt")).status == 404
        assert await ids(app) == ["m"]


# an unreachable engine


async def test_the_last_known_list_is_served_while_the_engine_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "MAX_AGE", 0.0)
    monkeypatch.setattr(model_list, "_FAILURE_AGE", 0.0)
    async with app_over({MODELS: [listing("vllm"), LOADING]}) as (upstream, app):
        for _ in range(3):
            assert await ids(app) == ["m"]
        assert times(upstream, MODELS) == 3


async def test_an_unreachable_engine_with_no_known_list_is_overloaded() -> None:
    async with app_without_engine() as app:
        response = await get(app, "/v1/models")
        assert (response.status, response.json()["error"]["type"]) == (529, "overloaded_error")
        assert response.header("retry-after") == "1"


@pytest.mark.parametrize(
    ("aliases", "known"),
    [
        ({"claude-x": "m"}, ["m", "claude-x"]),
        ({"claude-*": "m", "*": "n"}, ["m", "n"]),
        ({"a": "m", "b": "m"}, ["m", "a", "b"]),
    ],
)
async def test_without_a_known_list_the_aliases_and_their_models_are_listed(
    aliases: dict[str, str], known: list[str]
) -> None:
    async with app_without_engine(aliases) as app:
        assert await ids(app) == known
        assert (await get(app, f"/v1/models/{known[-1]}")).status == 200


async def test_readiness_asks_the_engine_and_not_the_cached_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_app, "_READINESS_AGE", 0.0)
    async with app_over({MODELS: [listing("vllm"), LOADING, listing("vllm")]}) as (_, app):
        assert await ids(app) == ["m"]
        assert [(await get(app, "/readyz")).status for _ in range(2)] == [503, 200]
        assert await ids(app) == ["m"]


async def test_an_engine_that_loads_its_model_is_overloaded_and_not_ready() -> None:
    loading: dict[str, Any] = {MODELS: LOADING, CHAT: [LOADING, ANSWER]}
    async with app_over(loading) as (_, app):
        response = await Driver(app).request("POST", "/v1/messages", body=HELLO)
        assert (response.status, response.json()["error"]["type"]) == (529, "overloaded_error")
        assert response.header("retry-after") == "1"
        assert (await get(app, "/readyz")).status == 503
        assert (await Driver(app).request("POST", "/v1/messages", body=HELLO)).status == 200
