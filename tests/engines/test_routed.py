"""Several engines behind one front: which engine a model name selects, and what happens while one is not ready."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anthropic
import pytest

from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.base import EngineIdentity, ModelInfo, UpstreamEngine
from anthro_asgi.engines.member import EngineRules
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.routed import RoutedEngine, RoutedStream
from anthro_asgi.engines.shared import remote
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.observability.logs import RequestRecord
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.testing.in_process import InProcessApp
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Batch, Finish
from anthro_asgi.wire.errors import NO_SPARE_SLOT, ApiError, EngineFailed, Overloaded
from anthro_asgi.wire.request import MessagesRequest
from tests.support.chat_requests import request
from tests.support.clock import fake_clock
from tests.support.routed_upstream import CHAT, MODELS, asked, listing, routed, times
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, sse

Json = dict[str, Any]
AWAY = Overloaded("the engine is not reachable", reason="connect")
CLAUSE = pytest.mark.clause("9.5")


def says(text: str) -> bytes:
    return sse(
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )


@asynccontextmanager
async def two_engines(**aliases: str) -> AsyncIterator[tuple[MessagesApp, ScriptedUpstream, ScriptedUpstream]]:
    """The application over a small and a big engine, which both have a model `same` too."""
    fast = ScriptedUpstream(routed({MODELS: models("small", "same"), CHAT: says("fast")}))
    big = ScriptedUpstream(routed({MODELS: models("large", "same"), CHAT: says("big")}))
    async with AsyncExitStack() as stack:
        for upstream in (fast, big):
            await stack.enter_async_context(upstream)
        engine = RoutedEngine(
            {
                "fast": (over(fast, "fast"), EngineRules(fallback=("large", "gpu"))),
                "gpu": (over(big, "gpu"), EngineRules()),
            }
        )
        yield MessagesApp(engine, aliases=aliases), fast, big


def models(*names: str) -> bytes:
    return json_answer(200, {"data": [{"id": name, "owned_by": "vllm", "max_model_len": 4096} for name in names]})


def over(upstream: ScriptedUpstream, name: str, **options: Any) -> AutoEngine:
    origin = Origin.parse(upstream.url)
    return AutoEngine(OpenAIEngine(origin, name=name, **options), MessagesEngine(origin, name=name, **options))


async def create(driver: Driver, model: str, **fields: Any) -> Response:
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return await driver.request("POST", "/v1/messages", body=json.dumps(body).encode())


def metric(app: MessagesApp, name: str) -> dict[str, float]:
    """The values of a metric, by its labels, without those that are 0."""
    lines = app.metrics.exposition()[0].decode().splitlines()
    found = (
        line.removeprefix(f"anthro_asgi_{name}{{").rpartition("} ")
        for line in lines
        if line.startswith(f"anthro_asgi_{name}{{")
    )
    return {labels: float(value) for labels, _, value in found if float(value)}


# routes


@CLAUSE
@pytest.mark.parametrize(
    ("model", "answer", "sent"),
    [
        ("small", "fast", "small"),
        ("large", "big", "large"),
        ("same", "fast", "same"),
        ("same@gpu", "big", "same"),
        ("claude-haiku-4-5", "fast", "small"),
        ("claude-opus-5", "big", "large"),
        ("small@gpu", "big", "small"),
    ],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_a_model_name_selects_the_engine(model: str, answer: str, sent: str, streams: bool) -> None:
    async with two_engines(**{"claude-haiku*": "small@fast", "claude-*": "large@gpu"}) as (app, fast, big):
        driver = Driver(app)
        async with driver.lifespan():
            response = await create(driver, model, stream=streams)
            assert response.status == 200
            assert f'"{answer}"'.encode() in response.body
            assert response.headers["anthro-asgi-engine"] == ["fast" if answer == "fast" else "gpu"]
    upstream, other = (fast, big) if answer == "fast" else (big, fast)
    assert ([body["model"] for body in asked(upstream)], asked(other)) == ([sent], [])


@CLAUSE
async def test_the_sdk_sees_the_models_of_all_engines_in_one_list_and_gets_the_answer_of_each() -> None:
    async with two_engines(haiku="small@fast") as (app, _, _), InProcessApp(app) as running:
        client = running.client(anthropic.AsyncAnthropic)
        listed = {model.id: model.max_input_tokens async for model in client.models.list()}
        assert listed == dict.fromkeys(["small", "same", "large", "same@gpu", "haiku"], 4096)
        assert (await client.models.retrieve("large@gpu")).max_input_tokens == 4096
        for model, answer in (("haiku", "fast"), ("large", "big")):
            hello: Any = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
            message = await client.messages.create(**hello)
            assert (message.content[0].text, message.model) == (answer, model)
            async with client.messages.stream(**hello) as stream:
                assert await stream.get_final_text() == answer
        with pytest.raises(anthropic.NotFoundError, match="model: 'nothing' is not served here"):
            await client.messages.create(model="nothing", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])


async def test_an_at_sign_in_a_name_that_no_engine_has_is_a_part_of_the_model() -> None:
    async with ScriptedUpstream(routed({MODELS: models("claude@2026"), CHAT: says("Hi")})) as upstream:
        driver = Driver(MessagesApp(RoutedEngine({"only": (over(upstream, "only"), EngineRules())})))
        async with driver.lifespan():
            assert (await create(driver, "claude@2026")).status == 200
    assert asked(upstream)[0]["model"] == "claude@2026"


async def test_a_window_of_the_operator_stands_in_the_list_for_that_of_the_engine() -> None:
    async with ScriptedUpstream(routed({MODELS: models("m"), CHAT: says("Hi")})) as upstream:
        rules = EngineRules(models=["unlisted"])
        driver = Driver(MessagesApp(RoutedEngine({"only": (over(upstream, "only", window=999), rules)})))
        async with driver.lifespan():
            listed = (await driver.request("GET", "/v1/models")).json()["data"]
            assert [(model["id"], model["max_input_tokens"], model["engine"]) for model in listed] == [
                ("m", 999, "only"),
                ("unlisted", None, "only"),
            ]
            assert (await create(driver, "unlisted")).status == 200


async def test_metrics_and_logs_name_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anthro_asgi")
    async with two_engines() as (app, _, _):
        driver = Driver(app)
        async with driver.lifespan():
            await create(driver, "small")
            await create(driver, "large", stream=True)
            assert metric(app, "engine_ready") == {'engine="fast"': 1.0, 'engine="gpu"': 1.0}
    assert metric(app, "engine_requests_total") == {
        'engine="fast",result="ok"': 1.0,
        'engine="gpu",result="ok"': 1.0,
    }
    assert metric(app, "engine_tokens_total")['engine="gpu",kind="output"'] == 1.0
    assert metric(app, "engine_time_to_first_token_seconds_count") == {'engine="fast"': 1.0, 'engine="gpu"': 1.0}
    records = [entry.msg for entry in caplog.records if isinstance(entry.msg, RequestRecord)]
    assert [record.fields()["engine"] for record in records] == ["fast", "gpu"]


async def test_a_single_engine_has_no_engine_in_metrics_logs_readiness_and_headers() -> None:
    async with ScriptedUpstream(routed({MODELS: listing("vllm"), CHAT: says("Hi")})) as upstream:
        app = MessagesApp(over(upstream, "ignored"))
        driver = Driver(app)
        async with driver.lifespan():
            assert "anthro-asgi-engine" not in (await create(driver, "m")).headers
            assert (await driver.request("GET", "/readyz")).json() == {"status": "ready"}
            assert "engine" not in (await driver.request("GET", "/v1/models")).json()["data"][0]
    assert b'engine="' not in app.metrics.exposition()[0]


# readiness


@CLAUSE
@pytest.mark.parametrize("streams", [True, False])
async def test_the_fallback_answers_for_an_engine_that_has_gone(
    streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anthro_asgi")
    async with two_engines() as (app, fast, big):
        driver = Driver(app)
        async with driver.lifespan():
            assert b'"fast"' in (await create(driver, "small")).body
            await fast.__aexit__(None, None, None)
            for _ in range(3):
                response = await create(driver, "small", stream=streams)
                assert (response.status, response.headers["anthro-asgi-engine"]) == (200, ["gpu"])
                assert b'"big"' in response.body
            ready = await driver.request("GET", "/readyz")
            assert (ready.status, ready.json()) == (
                200,
                {"status": "ready", "engines": {"fast": "the engine does not answer", "gpu": "ready"}},
            )
            assert metric(app, "engine_ready") == {'engine="gpu"': 1.0}
        await fast.__aenter__()
    assert [body["model"] for body in asked(big)] == ["large"] * 3
    assert metric(app, "engine_fallbacks_total") == {'engine="fast"': 3.0}
    assert metric(app, "engine_errors_total").keys() == {'engine="fast"'}
    reported = [entry.args for entry in caplog.records if str(entry.msg).startswith("engine_not_ready")]
    assert [args["engine"] for args in reported if isinstance(args, dict)] == ["fast"]


async def test_the_first_request_waits_for_an_engine_that_lists_its_models_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "_START_TIMEOUT", 0.01)

    async def slowly(wire: Wire) -> None:
        await asyncio.sleep(0.1)
        await wire.send(models("small"))

    async with ScriptedUpstream(routed({MODELS: slowly, CHAT: says("fast")})) as upstream:
        driver = Driver(MessagesApp(RoutedEngine({"fast": (over(upstream, "fast"), EngineRules())})))
        async with driver.lifespan():
            assert (await create(driver, "small")).status == 200
            assert (await create(driver, "unknown")).status == 404


@pytest.mark.parametrize(("status", "answered"), [(503, "gpu"), (500, None), (429, None), (400, None)])
async def test_only_an_engine_that_then_proves_not_to_be_ready_is_replaced(status: int, answered: str | None) -> None:
    """A refusal or a failure of one request is the client's to see, and a busy engine is not relieved by another."""
    loading = json_answer(503, {"error": "loading"})
    refusal = json_answer(status, {"error": {"message": "no"}})
    lists: list[Answer] = [models("small"), models("small"), loading] if status == 503 else [models("small")]
    async with (
        ScriptedUpstream(routed({MODELS: lists, CHAT: refusal})) as fast,
        ScriptedUpstream(routed({MODELS: models("large"), CHAT: says("big")})) as big,
    ):
        engines = {
            "fast": (over(fast, "fast"), EngineRules(fallback=(None, "gpu"))),
            "gpu": (over(big, "gpu"), EngineRules()),
        }
        driver = Driver(MessagesApp(RoutedEngine(engines)))
        async with driver.lifespan():
            response = await create(driver, "small")
            assert response.headers.get("anthro-asgi-engine") == (None if answered is None else [answered])
            assert response.status == (200 if answered else status)
            assert [body["model"] for body in asked(big)] == (["large"] if answered else [])
    assert times(fast, CHAT) >= 1


async def test_a_busy_engine_that_is_ready_keeps_its_requests() -> None:
    busy = json_answer(503, {"error": "queue full"})
    async with (
        ScriptedUpstream(routed({MODELS: models("small"), CHAT: busy})) as fast,
        ScriptedUpstream(routed({MODELS: models("large"), CHAT: says("big")})) as big,
    ):
        engines = {
            "fast": (over(fast, "fast"), EngineRules(fallback=("large", "gpu"))),
            "gpu": (over(big, "gpu"), EngineRules()),
        }
        driver = Driver(MessagesApp(RoutedEngine(engines)))
        async with driver.lifespan():
            assert (await create(driver, "small")).status == 529
    assert times(big, CHAT) == 0


class Titled:
    title = "fake"


class Fake(UpstreamEngine):
    """An engine without an upstream: its errors before the first output, and its answers to the readiness check."""

    def __init__(self, name: str, *errors: ApiError, reasons: tuple[str | None, ...] = (None,)) -> None:
        self.name = name
        self.errors = list(errors)
        self.reasons = list(reasons)
        self.checks: list[float] = []
        self.asked: list[str] = []
        self.closed = 0

    async def detect(self) -> EngineIdentity:
        return Titled()

    def known_models(self) -> list[ModelInfo] | None:
        return [ModelInfo(self.name)]

    async def why_not_ready(self) -> str | None:
        self.checks.append(asyncio.get_running_loop().time())
        return self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self.asked.append(request.engine_model)
        try:
            if self.errors:
                raise self.errors.pop(0)
            yield self.name
            yield self.name
            yield [Finish("end_turn")]
        finally:
            self.closed += 1

    async def count_tokens(self, request: MessagesRequest) -> int:
        self.asked.append(request.engine_model)
        if self.errors:
            raise self.errors.pop(0)
        return 7


def pair(first: Fake, second: Fake, **rules: Any) -> RoutedEngine:
    return RoutedEngine(
        {
            "a": (first, EngineRules(**{"fallback": (None, "b"), **rules})),
            "b": (second, EngineRules(fallback=("a", "a"))),
        }
    )


async def answer(engine: RoutedEngine, model: str = "a") -> list[Batch]:
    stream = engine.stream(request(model=model))
    try:
        return [batch async for batch in stream]
    finally:
        await stream.aclose()


@fake_clock
async def test_readiness_is_sticky_until_the_engine_says_that_it_is_ready() -> None:
    first = Fake("a", AWAY, reasons=("loading", "loading", None))
    second = Fake("b")
    engine = pair(first, second)
    await answer(engine)
    began = asyncio.get_running_loop().time()
    for _ in range(5):
        assert (await answer(engine))[0] == "b"
    assert first.asked == ["a"]
    assert second.asked == ["b"] * 6
    await asyncio.sleep(9)
    assert (engine.engine_states(), (await answer(engine))[0]) == ({"a": "loading", "b": None}, "b")
    await asyncio.sleep(2)
    assert (engine.engine_states(), (await answer(engine))[0]) == ({"a": None, "b": None}, "a")
    assert [round(at - began) for at in first.checks] == [0, 5, 10]
    await engine.stop()


@fake_clock
async def test_an_engine_is_asked_itself_when_no_fallback_is_ready() -> None:
    first, second = Fake("a", AWAY, AWAY, reasons=("gone",)), Fake("b", AWAY, AWAY, reasons=("gone",))
    engine = pair(first, second)
    for _ in range(2):
        with pytest.raises(Overloaded, match="the engine is not reachable"):
            await answer(engine)
    assert (first.asked, second.asked) == (["a", "a"], ["b", "b"])
    assert await engine.why_not_ready() == "a: gone; b: gone"
    assert (await answer(engine))[0] == "a"
    await engine.stop()


@fake_clock
async def test_counting_takes_the_fallback_too() -> None:
    first, second = Fake("a", AWAY, reasons=("gone",)), Fake("b")
    engine = pair(first, second)
    assert await engine.count_tokens(request(model="a")) == 7
    assert second.asked == ["b"]
    with pytest.raises(EngineFailed):
        await pair(Fake("a", EngineFailed("no")), Fake("b")).count_tokens(request(model="a"))
    await engine.stop()


@fake_clock
async def test_a_further_answer_to_the_same_request_goes_to_the_same_engine() -> None:
    first, second = Fake("a"), Fake("b")
    engine = pair(first, second)
    asked_twice = request(model="a@b")
    for _ in range(2):
        stream = engine.stream(asked_twice)
        assert await anext(stream) == "b"
        await stream.aclose()
    assert (second.asked, first.asked, asked_twice.engine_model) == (["a", "a"], [], "a@b")


@fake_clock
async def test_a_failure_of_the_request_alone_does_not_reach_the_fallback() -> None:
    first, second = Fake("a", EngineFailed("the engine failed", reason="failed")), Fake("b")
    with pytest.raises(EngineFailed):
        await answer(pair(first, second))
    assert (second.asked, first.checks) == ([], [])


@fake_clock
async def test_from_the_first_output_on_the_stream_is_that_of_the_engine_itself() -> None:
    first = Fake("a")
    stream = pair(first, Fake("b")).stream(request(model="a"))
    assert isinstance(stream, RoutedStream)
    async for batch in stream:
        assert batch == "a"
        break
    assert not isinstance(aiter(stream), RoutedStream)
    assert [batch async for batch in stream] == ["a", [Finish("end_turn")]]
    assert await anext(stream, "over") == "over"
    await stream.aclose()
    assert first.closed == 1


@fake_clock
async def test_an_engine_with_a_limit_of_its_own_lets_requests_wait_and_frees_their_slots() -> None:
    engine = pair(Fake("a"), Fake("b"), max_concurrency=1, queue_timeout=3)
    first = engine.stream(request(model="a"))
    assert await anext(first) == "a"
    second = asyncio.ensure_future(answer(engine))
    await asyncio.sleep(1)
    assert not second.done()
    await first.aclose()
    assert (await second)[0] == "a"
    holder = engine.stream(request(model="a"))
    await anext(holder)
    with pytest.raises(Overloaded, match="no slot was free within 3 s"):
        await answer(engine)
    await holder.aclose()
    assert (await answer(engine))[0] == "a"
    assert (await answer(engine, "b"))[0] == "b"


@fake_clock
async def test_a_request_of_a_batch_does_not_wait_for_a_slot_of_an_engine_and_a_client_asks_for_one() -> None:
    engine = pair(Fake("a"), Fake("b"), max_concurrency=1, queue_timeout=3)
    wanted: list[str] = []
    engine.slot_wanted = wanted.append
    holder = engine.stream(request(model="a"))
    await anext(holder)
    with pytest.raises(Overloaded) as caught:
        await anext(engine.stream(replace(request(model="a"), is_batched=True)))
    assert (caught.value.reason, wanted) == (NO_SPARE_SLOT, [])
    client = asyncio.ensure_future(answer(engine))
    await asyncio.sleep(1)
    assert wanted == ["a"]
    await holder.aclose()
    assert (await client)[0] == "a"
    assert (engine.engine_for("a"), engine.engine_for("b"), engine.engine_for("c@b")) == ("a", "b", "b")
    assert engine.engine_for("unknown") is None


@fake_clock
async def test_a_cancelled_request_frees_its_slot() -> None:
    class Slow(Fake):
        async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
            if not self.asked:
                self.asked.append("")
                await asyncio.sleep(100)
            yield "late"
            yield [Finish("end_turn")]

    engine = pair(Slow("a"), Fake("b"), max_concurrency=1, queue_timeout=1)
    leaves = asyncio.ensure_future(answer(engine))
    await asyncio.sleep(1)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert (await answer(engine))[0] == "late"


@pytest.mark.parametrize(
    ("fallback", "words"),
    [((None, "a"), "engine a: it is its own fallback"), ((None, "c"), "its fallback c is not an engine")],
)
def test_a_fallback_that_cannot_be_is_refused(fallback: tuple[None, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RoutedEngine({"a": (Fake("a"), EngineRules(fallback=fallback)), "b": (Fake("b"), EngineRules())})


async def test_a_model_of_an_engine_that_was_never_reached_is_no_unknown_model() -> None:
    """404 would tell the client to give up for good."""
    async with ScriptedUpstream(routed({MODELS: models("large"), CHAT: says("big")})) as big:
        gone = ScriptedUpstream(b"")
        async with gone:
            pass
        engines = {"fast": (over(gone, "fast"), EngineRules()), "gpu": (over(big, "gpu"), EngineRules())}
        driver = Driver(MessagesApp(RoutedEngine(engines)))
        async with driver.lifespan():
            assert (await create(driver, "small")).status == 529
            assert (await create(driver, "large")).status == 200
            assert (await driver.request("GET", "/readyz")).status == 200
