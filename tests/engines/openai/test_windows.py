"""A `max_tokens` above what the model has room for: cut to what fits, and only where the engine would refuse it."""

from typing import Any

import pytest

from anthro_asgi.wire.errors import ContextTooLong, EngineFailed, InvalidRequest
from tests.engines.openai.test_engine import answer, text
from tests.support.chat_requests import request
from tests.support.routed_upstream import ABSENT, ANSWER, CHAT, MODELS, asked, engine_over, listing, recording
from tests.support.upstream import json_answer, sse

LONG = request(max_tokens=4096)
TOGETHER = json_answer(
    400,
    {
        "object": "error",
        "message": "Requested token count exceeds the model's maximum context length of 1024 tokens. You requested a "
        "total of 1033 tokens: 9 tokens from the input messages and 1024 tokens for the completion.",
        "type": "BadRequestError",
        "code": 400,
    },
)


def lengths(bodies: list[dict[str, Any]]) -> list[int]:
    return [body["max_tokens"] for body in bodies]


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
async def test_max_tokens_is_cut_to_the_known_context_length_in_advance(owner: str) -> None:
    async with engine_over({MODELS: listing(owner, window=1024), CHAT: ANSWER}) as (upstream, engine):
        await answer(engine, LONG)
        assert lengths(asked(upstream)) == [1024]


@pytest.mark.clause("8.2")
@pytest.mark.parametrize("owner", ["llamacpp", "me", "library", "somebody"])
async def test_an_engine_that_accepts_any_length_gets_the_length_of_the_client(owner: str) -> None:
    async with engine_over({MODELS: listing(owner, window=1024), CHAT: ANSWER}) as (upstream, engine):
        await answer(engine, LONG)
        assert lengths(asked(upstream)) == [4096]


@pytest.mark.clause("8.2")
async def test_a_length_that_fits_the_context_is_not_cut_in_advance() -> None:
    async with engine_over({MODELS: listing("vllm", window=4096), CHAT: ANSWER}) as (upstream, engine):
        await answer(engine, LONG)
        assert lengths(asked(upstream)) == [4096]


async def test_an_engine_with_one_model_has_its_context_length_for_every_name() -> None:
    async with engine_over({MODELS: listing("vllm", window=1024, name="other"), CHAT: ANSWER}) as (upstream, engine):
        await answer(engine, LONG)
        assert lengths(asked(upstream)) == [1024]


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai"])
@pytest.mark.parametrize("engine_name", ["vllm", "sglang"])
async def test_a_recorded_rejection_of_the_length_is_retried_with_a_length_that_fits(
    engine_name: str, dialect: str
) -> None:
    refused = recording(engine_name, "07c_maxtok_gt_ctx_stream")
    async with engine_over({CHAT: [refused, ANSWER]}, dialect=dialect) as (upstream, engine):
        assert text(await answer(engine, LONG)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 1024]


@pytest.mark.parametrize("engine_name", ["llamacpp", "transformers", "llama-cpp-python"])
async def test_an_engine_that_accepts_too_great_a_length_gets_one_request(engine_name: str) -> None:
    taken = recording(engine_name, "07c_maxtok_gt_ctx_stream")
    async with engine_over({CHAT: taken}, dialect=engine_name) as (upstream, engine):
        assert text(await answer(engine, LONG))
        assert lengths(asked(upstream)) == [4096]


async def test_sglang_keeps_its_last_token_when_prompt_and_answer_do_not_fit() -> None:
    first = recording("sglang", "07c_maxtok_gt_ctx_stream")
    async with engine_over({CHAT: [first, TOGETHER, ANSWER]}, dialect="sglang") as (upstream, engine):
        assert text(await answer(engine, LONG)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 1024, 1014]


async def test_a_rejection_in_the_first_event_of_a_stream_is_retried_too() -> None:
    refused = sse({"error": {"message": "This model supports at most 8 completion tokens.", "code": 400}})
    async with engine_over({CHAT: [refused, ANSWER]}, dialect="openai") as (upstream, engine):
        assert text(await answer(engine, LONG)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 8]


async def test_an_engine_that_rejects_the_length_it_named_is_not_retried_for_ever() -> None:
    def bound(length: int) -> bytes:
        return json_answer(400, {"error": {"message": f"This model supports at most {length} completion tokens"}})

    async with engine_over({CHAT: [bound(n) for n in (400, 300, 200, 100, 50)]}, dialect="openai") as (
        upstream,
        engine,
    ):
        with pytest.raises(InvalidRequest):
            await answer(engine, LONG)
        assert lengths(asked(upstream)) == [4096, 400, 300, 200]


@pytest.mark.parametrize("engine_name", ["llamacpp", "vllm", "sglang"])
@pytest.mark.parametrize("name", ["07_ctx_exceeded_nonstream", "07b_ctx_exceeded_stream"])
async def test_a_prompt_that_does_not_fit_is_not_retried(engine_name: str, name: str) -> None:
    async with engine_over({CHAT: recording(engine_name, name)}, dialect=engine_name) as (upstream, engine):
        with pytest.raises(ContextTooLong, match=r"^prompt is too long: \d+ tokens > 1024 maximum$"):
            await answer(engine, LONG)
        assert len(asked(upstream)) == 1


async def test_an_overflow_inside_a_stream_is_recognised() -> None:
    words = (
        "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens"
    )
    for began in ([], [{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}]):
        refused = sse(*began, {"error": {"message": words, "type": "BadRequestError", "code": 400}})
        async with engine_over({CHAT: refused}, dialect="vllm") as (_, engine):
            with pytest.raises(ContextTooLong, match="prompt is too long: 1025 tokens > 1024 maximum"):
                await answer(engine, LONG)


@pytest.mark.clause("8.3")
async def test_a_rejected_field_is_not_sent_again_for_this_model() -> None:
    refused = recording("vllm-noreason", "06f_thinking_budget")
    thinking = request(thinking={"type": "enabled", "budget_tokens": 1024})
    async with engine_over({CHAT: [refused, ANSWER]}, dialect="vllm") as (upstream, engine):
        for _ in range(2):
            assert text(await answer(engine, thinking)) == "Hello"
        sent = ["thinking_token_budget" in body for body in asked(upstream)]
        assert sent == [True, False, False]
        other = request(thinking={"type": "enabled", "budget_tokens": 1024}, model="another")
        await answer(engine, other)
        assert "thinking_token_budget" in asked(upstream)[-1]


@pytest.mark.clause("8.3")
async def test_an_endpoint_that_wants_max_completion_tokens_gets_it_from_then_on() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refused = json_answer(400, {"error": {"message": words, "code": "unsupported_parameter"}})
    async with engine_over({CHAT: [refused, ANSWER]}, dialect="openai") as (upstream, engine):
        for _ in range(2):
            await answer(engine, LONG)
        assert [body.get("max_completion_tokens") for body in asked(upstream)] == [None, 4096, 4096]
        assert "max_tokens" not in asked(upstream)[-1]


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(json_answer(400, {"error": {"message": "no"}}), InvalidRequest), (json_answer(500, {}), EngineFailed)],
)
async def test_a_rejection_without_a_usable_reason_is_passed_on_at_once(refusal: bytes, kind: type[Exception]) -> None:
    async with engine_over({CHAT: refusal, MODELS: ABSENT}, dialect="vllm") as (upstream, engine):
        with pytest.raises(kind):
            await answer(engine, LONG)
        assert len(upstream.requests) == 1


async def test_nothing_is_retried_once_the_answer_has_begun() -> None:
    broken = sse(
        {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]},
        {"error": {"message": "This model supports at most 8 completion tokens.", "code": 400}},
    )
    async with engine_over({CHAT: [broken, ANSWER]}, dialect="openai") as (upstream, engine):
        with pytest.raises(InvalidRequest):
            await answer(engine, LONG)
        assert len(asked(upstream)) == 1
