"""Who the engine is, whether it is there, what it serves, and that its key stays between the two of us."""

import json
import logging

import pytest

from anthro_asgi.engines.base import ModelInfo
from anthro_asgi.engines.openai.dialects import LLAMACPP, PLAIN, PROBES
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import fetch
from anthro_asgi.engines.shared.upstream_errors import EngineReport
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import ApiError, BadUpstream, EngineFailed, InvalidRequest, NotFound, UpstreamTimeout
from tests.engines.openai.test_engine import ANSWER, CUT_SHORT, HELLO, KEY, MODELS, answer, failed, served
from tests.replay import cases
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, raw_answer, sse

LLAMACPP_LOADING = json_answer(503, {"error": {"message": "Loading model", "code": 503}}, [("Server", "llama.cpp")])
NOT_HTTP = b"SSH-2.0-x\r\n\r\n"
LOADING = json_answer(503, {"error": {"message": "Loading model", "code": 503}})


def targets(upstream: ScriptedUpstream) -> list[str]:
    return [f"{asked.method} {asked.target}" for asked in upstream.requests]


# who


@pytest.mark.clause("8.1")
async def test_the_dialect_is_detected_at_the_start_and_used() -> None:
    async with served(MODELS, ANSWER, dialect=None) as (upstream, engine):
        assert repr(engine).startswith("<OpenAIEngine undetected <Pool http://127.0.0.1:")
        await engine.start()
        assert repr(engine).startswith("<OpenAIEngine vllm ")
        await answer(engine)
        assert targets(upstream) == ["GET /v1/models", "POST /v1/chat/completions"]
        assert json.loads(upstream.requests[1].body)["stream_options"]["continuous_usage_stats"] is True


async def test_the_first_request_detects_an_engine_that_the_start_could_not_reach() -> None:
    async with served(LOADING, MODELS, ANSWER, dialect=None) as (upstream, engine):
        await engine.start()
        assert "undetected" in repr(engine)
        await answer(engine)
        assert "vllm" in repr(engine)
        assert targets(upstream)[1:] == ["GET /v1/models", "POST /v1/chat/completions"]


async def test_the_server_header_identifies_the_engine_while_the_model_loads() -> None:
    async with served(LLAMACPP_LOADING, dialect=None) as (_, engine):
        assert await engine.detect() is LLAMACPP


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_an_engine_without_a_model_list_has_the_plain_dialect(status: int) -> None:
    async with served(json_answer(status, {}), ANSWER, dialect=None) as (upstream, engine):
        assert await engine.detect() is PLAIN
        await answer(engine)
        assert targets(upstream)[1:-1] == [f"GET {path}" for path, _ in PROBES], "it was asked once"


@pytest.mark.clause("8.1")
@pytest.mark.parametrize("broken", [CUT_SHORT, NOT_HTTP], ids=["broke off", "broke down"])
async def test_an_engine_that_was_unreachable_is_detected_again(broken: bytes) -> None:
    other = json_answer(200, {"data": [{"id": "m", "owned_by": "llamacpp"}]})
    async with served(MODELS, broken, other, ANSWER, dialect=None) as (upstream, engine):
        await engine.start()
        await failed(engine, BadUpstream)
        await answer(engine)
        assert targets(upstream)[2:] == ["GET /v1/models", "POST /v1/chat/completions"]
        assert "llamacpp" in repr(engine)


async def test_a_replaced_engine_is_noticed_by_its_model_list() -> None:
    other = json_answer(200, {"data": [{"id": "m", "owned_by": "sglang"}]})
    async with served(MODELS, json_answer(500, {}), LOADING, other, dialect=None) as (_, engine):
        await engine.start()
        for known in ("vllm", "vllm", "sglang"):
            await engine.ready()
            assert f" {known} " in repr(engine)


@pytest.mark.clause("8.1")
async def test_a_chosen_dialect_is_never_detected() -> None:
    async with served(ANSWER, MODELS, dialect="sglang") as (upstream, engine):
        await engine.start()
        await answer(engine)
        assert targets(upstream) == ["POST /v1/chat/completions"]
        await engine.ready()
        assert "sglang" in repr(engine)


async def test_a_model_list_that_never_arrives_is_not_awaited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.05)

    async def silent(wire: Wire) -> None:
        await wire.gone()

    async with served(silent, dialect=None) as (_, engine):
        await engine.start()
        assert not await engine.ready()
        with pytest.raises(UpstreamTimeout):
            await engine.models()


# there


@pytest.mark.parametrize(
    ("reply", "is_ready"),
    [
        (MODELS, True),
        (json_answer(404, {}), True),
        (json_answer(500, {}), True),
        (LOADING, False),
        (b"SSH\r\n\r\n", False),
    ],
    ids=["list", "no list", "list fails", "loading", "not http"],
)
async def test_an_engine_is_ready_when_it_answers_and_is_available(reply: bytes, is_ready: bool) -> None:
    async with served(reply) as (_, engine):
        assert await engine.ready() is is_ready


# what it serves


@pytest.mark.clause("8.2")
@pytest.mark.parametrize("engine_name", ["llamacpp", "vllm", "sglang", "llama-cpp-python"])
async def test_a_recorded_model_list_is_parsed(engine_name: str) -> None:
    (case,) = cases(engine_name, request="GET /v1/models")
    async with served(json_answer(200, json.loads(case.content))) as (_, engine):
        (model,) = await engine.models()
    entry = json.loads(case.content)["data"][0]
    window = None if engine_name == "llama-cpp-python" else 1024
    assert model == ModelInfo("tiny", "tiny", entry.get("created", 0), window, window, entry["owned_by"])


async def test_a_model_list_with_gaps_gives_its_valid_entries() -> None:
    entries = [
        {"id": "a", "context_length": 9, "max_completion_tokens": 4, "owned_by": None, "created": "then"},
        {"id": "b", "max_model_len": "9", "meta": []},
        {"id": None},
        {},
        "c",
    ]
    async with served(json_answer(200, {"data": entries})) as (_, engine):
        assert await engine.models() == [
            ModelInfo("a", "a", 0, max_input_tokens=9, max_tokens=4),
            ModelInfo("b", "b"),
        ]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (json_answer(200, {"data": None}), BadUpstream),
        (json_answer(200, []), BadUpstream),
        (raw_answer(200, [("content-length", "6")], b"<html>"), BadUpstream),
        (json_answer(404, {"detail": "x"}), NotFound),
        (json_answer(401, {"error": KEY}), EngineFailed),
        (json_answer(400, {"error": KEY}), InvalidRequest),
    ],
)
async def test_an_invalid_model_list_is_an_error(reply: bytes, kind: type[ApiError]) -> None:
    async with served(reply, key=KEY) as (_, engine):
        with pytest.raises(ApiError) as caught:
            await engine.models()
        assert type(caught.value) is kind
        assert KEY not in repr(caught.value) + caught.value.message


# the key, and what else is sent


async def test_a_request_head_has_the_required_headers_and_none_of_the_client() -> None:
    async with served(ANSWER, key=KEY) as (upstream, engine):
        await answer(engine)
        (asked,) = upstream.requests
    assert asked.headers == {
        "host": upstream.url.removeprefix("http://"),
        "user-agent": "anthro-asgi",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "accept": "text/event-stream",
        "authorization": f"Bearer {KEY}",
        "content-length": str(len(asked.body)),
    }
    assert json.loads(asked.body)["stream"] is True


async def test_without_a_key_there_is_no_authorization_header() -> None:
    async with served(MODELS, ANSWER, dialect=None) as (upstream, engine):
        await answer(engine)
        assert ["authorization" in asked.headers for asked in upstream.requests] == [False, False]


async def test_the_model_list_is_requested_with_the_key() -> None:
    async with served(MODELS, key=KEY) as (upstream, engine):
        await engine.models()
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


PARROT = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": 400}}


@pytest.mark.parametrize(
    "reply",
    [
        *(json_answer(status, PARROT) for status in (400, 401, 404, 429, 500, 503)),
        sse(PARROT),
        sse(HELLO[1], PARROT | {"error": {"message": KEY, "code": 500}}),
        raw_answer(400, [("content-length", str(len(KEY)))], KEY.encode()),
        f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
    ],
)
async def test_the_key_appears_in_no_error_log_or_repr(reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(reply, key=KEY) as (_, engine):
        with pytest.raises(ApiError) as caught:
            await answer(engine)
        seen = [repr(engine), str(vars(caught.value))]
    error: BaseException | None = caught.value
    while error is not None:
        seen += [repr(error), getattr(error, "message", "")]
        error = error.__cause__
    assert KEY not in caplog.text + "".join(seen)


@pytest.mark.clause("7.14")
async def test_the_words_of_a_failing_engine_reach_neither_client_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    """It may quote the prompt. It is in the cause of the error, which `anthro-asgi check` shows to an operator."""
    for reply in (json_answer(500, {"error": "out of paper"}), sse({"error": "out of paper"})):
        async with served(reply) as (_, engine):
            error = await failed(engine, EngineFailed)
        assert error.message == "the engine failed"
        assert isinstance(error.__cause__, EngineReport)
        assert error.__cause__.message == "out of paper"
    assert "out of paper" not in caplog.text


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "é", "a\x7f"])
def test_a_key_that_a_header_cannot_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="upstream key") as caught:
        OpenAIEngine(Origin.parse("http://127.0.0.1:1"), key=key)
    assert not key.strip() or key not in str(caught.value)


def test_an_unknown_dialect_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ValueError, match="dialect 'mine': known are openai, llamacpp, vllm"):
        OpenAIEngine(Origin.parse("http://127.0.0.1:1"), dialect="mine")


def test_a_repr_is_a_status_line() -> None:
    engine = OpenAIEngine(Origin.parse("unix:/run/x.sock"), key=KEY, dialect="vllm")
    assert repr(engine) == (
        "<OpenAIEngine vllm <Pool unix:/run/x.sock idle=0 leased=0 connecting=0 draining=0 waiting=0 limit=1024>>"
    )
