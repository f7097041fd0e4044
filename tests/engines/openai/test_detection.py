"""Who the engine is, told at the start, and again when another has taken its place."""

import asyncio
from pathlib import Path

import pytest

from anthro_asgi.engines.openai import detection
from anthro_asgi.engines.openai import engine as module
from anthro_asgi.engines.openai.dialects import PROBES
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import ApiError, InvalidRequest
from tests.engines.openai.test_engine import answer, text
from tests.support.chat_requests import request
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, asked, engine_over, listing, recording, routed, times
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer

Routes = dict[str, Answer | list[Answer]]
TRANSFORMERS: Routes = {
    MODELS: recording("transformers", "00_get_v1_models"),
    "/openapi.json": recording("transformers", "openapi"),
    CHAT: ANSWER,
}
TOP_K = request(top_k=5)


def known(engine: OpenAIEngine) -> str:
    return repr(engine).removeprefix("<OpenAIEngine ").split(" ")[0]


@pytest.mark.parametrize(
    ("routes", "name"),
    [
        ({MODELS: recording(name, "00_get_v1_models")}, name)
        for name in ("llamacpp", "vllm", "sglang", "llama-cpp-python", "max", "fastllm")
    ]
    + [
        (TRANSFORMERS, "transformers"),
        ({MODELS: listing("library")}, "ollama"),
        ({MODELS: listing("somebody"), "/api/version": json_answer(200, {"version": "0.12.6"})}, "ollama"),
        ({MODELS: listing("somebody"), "/props": json_answer(200, {"default_generation_settings": {}})}, "llamacpp"),
        ({MODELS: listing("tensorrt_llm")}, "tensorrt-llm"),
        ({MODELS: listing("no-reply@sambanova.ai")}, "sambanova"),
        ({MODELS: listing("openai")}, "openai"),
        ({}, "openai"),
    ],
)
async def test_an_engine_is_known_by_its_own_answers_at_the_start(routes: Routes, name: str) -> None:
    async with engine_over(routes) as (_, engine):
        await engine.start()
        assert known(engine) == name


async def test_an_engine_recognised_by_its_model_list_is_not_probed() -> None:
    async with engine_over({MODELS: listing("vllm")}) as (upstream, engine):
        await engine.start()
        assert [asked.target for asked in upstream.requests] == [MODELS]


async def test_probes_without_a_response_do_not_delay_the_start_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detection, "_PROBES_TIMEOUT", 0.05)

    async def silent(wire: Wire) -> None:
        await wire.gone()

    async with engine_over({MODELS: listing("x"), "/api/version": silent, CHAT: ANSWER}) as (_, engine):
        await engine.start()
        assert known(engine) == "openai"
        assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-x\r\n\r\n", json_answer(200, []), json_answer(500, {})])
async def test_an_invalid_response_to_a_probe_does_not_fail_the_start(nonsense: bytes) -> None:
    probes = dict.fromkeys((path for path, _ in PROBES), nonsense)
    async with engine_over({MODELS: listing("x"), **probes}) as (_, engine):
        await engine.start()
        assert await engine.ready()


async def test_concurrent_first_requests_share_one_detection() -> None:
    async with engine_over({MODELS: listing("vllm"), CHAT: ANSWER}) as (upstream, engine):
        await asyncio.gather(*(answer(engine) for _ in range(20)))
        assert (times(upstream, MODELS), times(upstream, CHAT)) == (1, 20)


async def test_an_engine_recognised_by_a_probe_stays_recognised_after_the_next_list() -> None:
    async with engine_over(TRANSFORMERS) as (_, engine):
        await engine.start()
        for _ in range(2):
            await engine.ready()
        assert known(engine) == "transformers"


async def test_an_engine_whose_list_is_no_longer_recognised_is_detected_again() -> None:
    async with engine_over({MODELS: [listing("vllm"), listing("x")], CHAT: ANSWER}) as (_, engine):
        await engine.start()
        await engine.ready()
        assert known(engine) == "undetected"
        await answer(engine)
        assert known(engine) == "openai"


@pytest.mark.parametrize(
    "failure",
    [
        json_answer(200, {"object": "list", "data": []}),
        json_answer(200, []),
        raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>"),
        json_answer(401, {}),
        json_answer(500, {}),
        json_answer(503, {}),
    ],
    ids=["empty list", "array", "page", "401", "500", "503"],
)
async def test_a_response_that_is_no_list_leaves_the_known_dialect(failure: bytes) -> None:
    async with engine_over({MODELS: [listing("vllm"), failure], CHAT: ANSWER}) as (upstream, engine):
        await answer(engine, TOP_K)
        await engine.ready()
        assert known(engine) == "vllm"
        await answer(engine, TOP_K)
        engine._forget_engine()  # as after a broken stream
        await answer(engine, TOP_K)
        assert ["top_k" in body for body in asked(upstream)] == [True] * 3
        assert times(upstream, MODELS) >= 3


# another in its place: two upstreams, one after the other, at the same address


def strict(routes: Routes) -> Routes:
    """The same engine, which refuses an unknown field as the recorded one does."""
    refusal = recording("transformers", "08n_temp_2")

    async def choosy(wire: Wire) -> None:
        await wire.send(refusal if b"top_k" in wire.body else ANSWER)

    return {**routes, CHAT: choosy}


@pytest.mark.clause("8.1")
async def test_another_engine_at_the_same_address_gets_its_own_dialect(tmp_path: Path) -> None:
    uds = str(tmp_path / "engine.sock")
    engine = OpenAIEngine(Origin.parse(f"unix:{uds}"))
    async with ScriptedUpstream(routed({MODELS: listing("vllm"), CHAT: ANSWER}), uds=uds) as first:
        await answer(engine, TOP_K)
        assert "top_k" in asked(first)[0]
    with pytest.raises(ApiError):
        await answer(engine, TOP_K)
    async with ScriptedUpstream(routed(strict(TRANSFORMERS)), uds=uds) as second:
        assert text(await answer(engine, TOP_K)) == "Hello"
        (body,) = asked(second)
        assert not {"top_k", "stream_options"} & set(body)
        assert known(engine) == "transformers"
        await engine.stop()


async def test_a_replaced_engine_is_noticed_by_its_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DETECTION_VALID", 0.0)
    uds = str(tmp_path / "engine.sock")
    engine = OpenAIEngine(Origin.parse(f"unix:{uds}"))
    async with ScriptedUpstream(routed({MODELS: listing("vllm"), CHAT: ANSWER}), uds=uds):
        await answer(engine, TOP_K)
    async with ScriptedUpstream(routed(strict(TRANSFORMERS)), uds=uds) as second:
        assert text(await answer(engine, TOP_K)) == "Hello"
        assert ["top_k" in body for body in asked(second)] == [True, False]
        await engine.stop()


async def test_a_replaced_engine_that_rejects_nothing_is_noticed_within_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine_over({MODELS: [listing("vllm"), listing("sglang")], CHAT: ANSWER}) as (upstream, engine):
        await answer(engine)
        await answer(engine)
        assert times(upstream, MODELS) == 1
        monkeypatch.setattr(module, "MAX_AGE", 0.0)
        await answer(engine)
        await upstream.until(lambda: known(engine) == "sglang")


async def test_a_rejection_by_the_same_engine_reaches_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DETECTION_VALID", 0.0)
    refusal = json_answer(400, {"error": {"message": "the temperature is odd"}})
    async with engine_over({MODELS: listing("vllm"), CHAT: refusal}) as (upstream, engine):
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="the temperature is odd"):
                await answer(engine)
        assert (times(upstream, MODELS), times(upstream, CHAT)) == (3, 2)


async def test_repeated_invalid_requests_do_not_cause_a_detection_each() -> None:
    refusal = json_answer(400, {"error": {"message": "the temperature is odd"}})
    async with engine_over({MODELS: listing("vllm"), CHAT: refusal}) as (upstream, engine):
        for _ in range(5):
            with pytest.raises(InvalidRequest):
                await answer(engine)
        assert times(upstream, MODELS) == 1


async def test_a_chosen_dialect_is_used_whatever_the_engine_is() -> None:
    async with engine_over({MODELS: listing("sglang"), CHAT: ANSWER}, dialect="transformers") as (upstream, engine):
        await engine.start()
        await engine.models()
        await answer(engine, TOP_K)
        assert known(engine) == "transformers"
        assert "top_k" not in asked(upstream)[0]


# unknown models


@pytest.mark.clause("7.5")
@pytest.mark.parametrize(
    "refusal",
    [
        recording("vllm", "08d_unknown_model"),
        recording("transformers", "08d_unknown_model"),
        json_answer(404, {"error": {"message": 'model "x" not found, try pulling it first', "type": "api_error"}}),
        json_answer(404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}),
        json_answer(400, {"error": {"message": "model 'x' not found", "code": 400, "type": "invalid_request_error"}}),
        json_answer(400, {"error": {"message": "x is not a valid model ID", "code": 400}}),
        json_answer(400, {"error": {"message": "who is that?", "code": "model_not_found"}}),
    ],
)
async def test_a_model_that_the_engine_does_not_have_is_not_found(refusal: bytes) -> None:
    async with engine_over({CHAT: refusal}, dialect="openai") as (_, engine):
        with pytest.raises(ApiError) as caught:
            await answer(engine)
        assert (caught.value.status, caught.value.type) == (404, "not_found_error")
        assert caught.value.message, "the engine's own words"


@pytest.mark.parametrize("words", ["This model does not take images", "tiny is not a multimodal model", "no such tool"])
async def test_another_error_about_a_model_is_an_invalid_request(words: str) -> None:
    async with engine_over({CHAT: json_answer(400, {"error": {"message": words}})}, dialect="openai") as (_, engine):
        with pytest.raises(InvalidRequest, match=words):
            await answer(engine)
