"""Whether an engine is ready: told quickly, by what it says itself, and never at the cost of answers."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import remote
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Deadlines
from tests.support.chat_requests import request
from tests.support.llama.server import LlamaServer
from tests.support.routed_upstream import MODELS, listing, routed
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer
from tests.support.upstream_engines import Chat, Speech, both_engines, endless, said, stream

HEALTH = "/health"
LOADING = json_answer(503, {"error": {"message": "Loading model", "code": 503, "type": "unavailable_error"}})
LLAMACPP = json_answer(200, {"data": [{"id": "m", "owned_by": "llamacpp", "meta": None}]})


async def hang(wire: Wire) -> None:
    await wire.gone()


async def is_ready(speech: Speech, routes: dict[str, Answer | list[Answer]]) -> bool:
    async with ScriptedUpstream(routed(routes)) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        try:
            return await engine.ready()
        finally:
            await engine.stop()


@both_engines
@pytest.mark.parametrize("status", [429, 502, 503, 504, 529])
async def test_an_engine_with_an_unavailable_status_is_not_ready(speech: Speech, status: int) -> None:
    assert not await is_ready(speech, {MODELS: json_answer(status, {})})


@both_engines
@pytest.mark.parametrize("status", [200, 404, 500])
async def test_an_engine_without_a_model_list_is_ready(speech: Speech, status: int) -> None:
    assert await is_ready(speech, {MODELS: json_answer(status, {})})


@both_engines
@pytest.mark.parametrize("status", [401, 403])
async def test_an_engine_that_rejects_the_key_is_not_ready_and_the_reason_names_the_option(
    speech: Speech, status: int
) -> None:
    async with ScriptedUpstream(routed({MODELS: json_answer(status, {"error": "who are you"})})) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        assert await engine.why_not_ready() == (
            f"the engine rejects this service's API key (status {status}): "
            "set the upstream's key with ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file"
        )
        assert not await engine.ready()
        await engine.stop()


def lines_of(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(event)]


async def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """The lines of an event, of which one must come: the start does not wait for a slow detection."""
    lines: list[str] = []
    async with asyncio.timeout(10):
        while not lines:
            await asyncio.sleep(0.001)
            lines = lines_of(caplog, event)
    return lines


async def test_a_rejected_key_is_a_warning_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream(routed({MODELS: json_answer(401, {})})) as upstream:
        origin = Origin.parse(upstream.url)
        chat, messages = OpenAIEngine(origin), MessagesEngine(origin)
        for engine in (chat, messages, AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))):
            caplog.clear()
            await engine.start()
            (line,) = await logged(caplog, "engine_not_ready")
            assert "ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file" in line
            reason = await engine.why_not_ready()
            assert reason is not None
            assert reason in line
            await engine.stop()


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(404, {}),
        raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>"),
        json_answer(200, {"object": "list", "data": []}),
        json_answer(200, []),
    ],
    ids=["404", "a page", "no model", "another list"],
)
async def test_an_upstream_without_a_model_list_is_a_warning_at_the_start_and_not_unreached(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream(routed({MODELS: answer})) as upstream:
        origin = Origin.parse(upstream.url)
        for engine in (OpenAIEngine(origin), AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))):
            caplog.clear()
            await engine.start()
            (line,) = await logged(caplog, "engine_without_models")
            assert "check that the URL is that of an inference engine" in line
            assert engine.describe() is not None
            assert await engine.why_not_ready() is None  # some engines have no model list
            await engine.stop()


async def test_an_engine_with_models_is_no_warning_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream(routed({MODELS: listing("vllm")})) as upstream:
        origin = Origin.parse(upstream.url)
        for engine in (OpenAIEngine(origin), AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))):
            await engine.start()
            await engine.detect()
            await engine.stop()
        assert not lines_of(caplog, "engine_without_models")


@both_engines
async def test_an_unreachable_engine_is_ready_once_it_is_reachable(speech: Speech, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    engine = speech.engine(Origin.parse(f"unix:{path}"))
    assert not await engine.ready()
    async with ScriptedUpstream(speech.models, uds=path):
        assert await engine.ready()
    assert not await engine.ready()
    await engine.stop()


@both_engines
@pytest.mark.parametrize(
    ("health", "ready"),
    [(LOADING, False), (json_answer(200, {"status": "ok"}), True), (json_answer(404, {}), True)],
    ids=["loading", "loaded", "no such path"],
)
async def test_llamacpp_is_not_ready_while_it_loads_the_model_that_it_lists(
    speech: Speech, health: bytes, ready: bool
) -> None:
    assert await is_ready(speech, {MODELS: LLAMACPP, HEALTH: health}) is ready


async def test_only_llamacpp_gets_a_health_request() -> None:
    async with ScriptedUpstream(Chat.models) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        assert await engine.ready()
        assert [asked.target for asked in upstream.requests] == [MODELS]
        await engine.stop()


@both_engines
async def test_a_real_llamacpp_is_ready(speech: Speech, llama: LlamaServer) -> None:
    engine = speech.engine(Origin.parse(llama.url))
    assert await engine.ready()
    await engine.stop()


@both_engines
@pytest.mark.parametrize("routes", [{MODELS: hang}, {MODELS: LLAMACPP, HEALTH: hang}], ids=["list", "health"])
async def test_an_engine_that_does_not_answer_quickly_is_not_ready(
    speech: Speech, routes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote._READY_TIMEOUT <= 2
    monkeypatch.setattr(remote, "_READY_TIMEOUT", 0.05)
    async with ScriptedUpstream(routed(routes)) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        kinds: list[str] = []
        engine.observe = lambda _, kind: kinds.append(kind)
        async with asyncio.timeout(2):
            assert not await engine.ready()
        assert kinds == ["timeout_total"]
        await upstream.until(lambda: upstream.open == 0)
        await engine.stop()


@pytest.mark.slow
@both_engines
async def test_a_readiness_check_has_a_connection_of_its_own(speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_READY_TIMEOUT", 60)  # the three endless streams may slow this process down

    async def by_path(wire: Wire) -> None:
        await (wire.send(speech.models) if wire.method == "GET" else flood(wire))

    flood: Any = endless([speech.begin()], speech.text("a"))
    async with ScriptedUpstream(by_path) as upstream, AsyncExitStack() as stack:
        engine = speech.engine(Origin.parse(upstream.url), limit=3, deadlines=Deadlines(connect=60))
        stack.push_async_callback(engine.stop)
        for _ in range(3):
            batches = await stack.enter_async_context(aclosing(engine.stream(request())))  # type: ignore[type-var]
            await anext(batches)
        assert engine.connections()["leased"] == 3
        async with asyncio.timeout(60):
            assert await engine.ready()


@both_engines
async def test_concurrent_readiness_checks_share_one_request(speech: Speech) -> None:
    looked = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await looked.wait()
        await wire.send(speech.models)

    async with ScriptedUpstream(slow) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        asking = [asyncio.create_task(engine.ready()) for _ in range(50)]
        await upstream.until(lambda: upstream.requests)
        asking[0].cancel()
        looked.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [True] * 49
        assert (len(upstream.requests), upstream.accepted) == (1, 1)
        await engine.stop()


async def test_stop_cancels_a_readiness_check() -> None:
    async with ScriptedUpstream(hang) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        asking = asyncio.create_task(engine.ready())
        await upstream.until(lambda: upstream.requests)
        await engine.stop()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_an_undecided_engine_is_ready_when_the_upstream_is() -> None:
    async with ScriptedUpstream(routed({MODELS: [LOADING, Chat.models]})) as upstream:
        origin = Origin.parse(upstream.url)
        engine = AutoEngine(OpenAIEngine(origin), Chat().engine(origin))  # type: ignore[arg-type]
        assert not await engine.ready()
        assert await engine.ready()
        await engine.stop()


@both_engines
async def test_an_engine_that_turns_ready_answers(speech: Speech) -> None:
    answer = stream(speech.begin(), speech.text("a"), speech.end())
    async with ScriptedUpstream(routed({MODELS: [LOADING, LOADING, speech.models], speech.path: answer})) as upstream:
        engine = speech.engine(Origin.parse(upstream.url))
        await engine.start()
        while not await engine.ready():
            pass
        assert "a" in await said(engine)
        await engine.stop()
