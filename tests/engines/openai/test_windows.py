"""A `max_tokens` above what the model has room for: cut to what fits, and only where the engine would refuse it."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from anthro_asgi.wire.errors import ContextTooLong, EngineFailed, InvalidRequest
from tests.engines.openai.test_engine import answer, text
from tests.support.chat_requests import request, user
from tests.support.routed_upstream import ABSENT, ANSWER, CHAT, MODELS, asked, engine_over, listing, recording
from tests.support.upstream import Answer, Wire, json_answer, sse

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


# vLLM tells only a bound of the prompt's length

VLLM = listing("vllm", window=32_768)
CLAUDE_CODE = request(user("word " * 60_000), max_tokens=32_000)  # estimated at 75 000 tokens
BOUNDS = {
    "0.25, tokens": "This model's maximum context length is 32768 tokens. However, you requested {asked} output tokens "
    "and your prompt contains at least {bound} input tokens, for a total of at least 32769 tokens. Please reduce the "
    "length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value={bound})",
    "0.25, characters": "This model's maximum context length is 32768 tokens. However, you requested {asked} output "
    "tokens and your prompt contains 99000 characters (more than {characters} characters, which is the upper bound for "
    "{most} input tokens). Please reduce the length. (parameter=input_text, value=99000)",
    "0.16": "You passed {bound} input tokens and requested {asked} output tokens. However, the model's context length "
    "is only 32768 tokens, resulting in a maximum input length of {most} tokens. Please reduce the length of the input "
    "prompt. (parameter=input_tokens, value={bound})",
}


def reserving(prompt: int, words: str) -> Answer:
    """vLLM reserves the tokens of the answer. It counts the prompt, of `prompt` tokens, only until it is too long."""

    async def answer(wire: Wire) -> None:
        body = json.loads(wire.body)
        asked = body.get("max_tokens") or body["max_completion_tokens"]
        most = 32_768 - asked
        if prompt <= most:
            await wire.send(ANSWER)
            return
        said = words.format(asked=asked, bound=most + 1, most=most, characters=8 * most)
        await wire.send(json_answer(400, {"error": {"message": said, "type": "BadRequestError", "code": 400}}))

    return answer


def counted(tokens: int) -> bytes:
    return json_answer(200, {"count": tokens, "max_model_len": 32_768, "tokens": []})


@pytest.mark.clause("7.7")
@pytest.mark.parametrize("words", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("max_tokens", [32_000, 64_000, 32_768])
async def test_a_prompt_of_unknown_length_is_counted_by_the_engine_and_gets_the_answer_that_fits(
    words: str, max_tokens: int
) -> None:
    said = replace(CLAUDE_CODE, max_tokens=max_tokens)
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: VLLM,
        CHAT: reserving(20_000, words),
        "/tokenize": counted(20_000),
    }
    async with engine_over(routes) as (upstream, engine):
        assert text(await answer(engine, said)) == "Hello"
        assert lengths(asked(upstream)) == [min(max_tokens, 32_768), 12_768]
        assert len(asked(upstream, "/tokenize")) == 1


@pytest.mark.clause("7.7")
@pytest.mark.parametrize("words", BOUNDS.values(), ids=BOUNDS)
async def test_a_counted_prompt_that_does_not_fit_is_too_long_with_its_exact_length(words: str) -> None:
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: VLLM,
        CHAT: reserving(40_000, words),
        "/tokenize": counted(40_000),
    }
    async with engine_over(routes) as (upstream, engine):
        with pytest.raises(ContextTooLong, match=r"^prompt is too long: 40000 tokens > 32768 maximum$"):
            await answer(engine, CLAUDE_CODE)
        assert len(asked(upstream)) == 1


@pytest.mark.clause("7.7")
async def test_vllm_behind_a_gateway_counts_the_prompt_that_it_refuses() -> None:
    for prompt, expected in ((20_000, [32_000, 12_768]), (40_000, [32_000])):
        chat = reserving(prompt, BOUNDS["0.25, tokens"])
        routes: dict[str, Answer | list[Answer]] = {CHAT: chat, "/tokenize": counted(prompt)}
        async with engine_over(routes, dialect="openai") as (upstream, engine):
            if prompt < 32_768:
                assert text(await answer(engine, CLAUDE_CODE)) == "Hello"
            else:
                with pytest.raises(ContextTooLong, match=r"^prompt is too long: 40000 tokens > 32768 maximum$"):
                    await answer(engine, CLAUDE_CODE)
            assert lengths(asked(upstream)) == expected


@pytest.mark.clause("7.7")
async def test_an_overflow_with_a_bound_is_told_with_the_exact_length() -> None:
    words = (
        "This model's maximum context length is 1024 tokens. However, you requested 1 output tokens and your prompt "
        "contains at least 1024 input tokens, for a total of at least 1025 tokens."
    )
    refused = json_answer(400, {"error": {"message": words, "code": 400}})
    async with engine_over({CHAT: refused, "/tokenize": counted(2_314)}, dialect="vllm") as (_, engine):
        with pytest.raises(ContextTooLong, match=r"^prompt is too long: 2314 tokens > 1024 maximum$"):
            await answer(engine, LONG)


@pytest.mark.clause("7.7")
@pytest.mark.parametrize("words", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("prompt", [700, 20_000, 31_500])
async def test_where_the_engine_does_not_count_the_answer_shrinks_in_few_steps(words: str, prompt: int) -> None:
    async with engine_over({CHAT: reserving(prompt, words)}, dialect="vllm") as (upstream, engine):
        assert text(await answer(engine, CLAUDE_CODE)) == "Hello"
        assert len(asked(upstream)) <= 4
        assert all(shorter <= longer // 2 for longer, shorter in pairwise(lengths(asked(upstream))))


@pytest.mark.clause("7.7")
async def test_a_prompt_beside_which_no_answer_fits_is_too_long_after_few_attempts() -> None:
    words = BOUNDS["0.25, tokens"]
    async with engine_over({CHAT: reserving(32_767, words)}, dialect="vllm") as (upstream, engine):
        with pytest.raises(ContextTooLong, match=r"^prompt is too long$"):
            await answer(engine, CLAUDE_CODE)
        assert len(asked(upstream)) <= 4


@pytest.mark.clause("7.7")
async def test_a_prompt_that_the_engine_refuses_to_count_is_too_long() -> None:
    refused = json_answer(400, {"error": {"message": "prompt is too long: 40000 tokens > 32768 maximum"}})
    routes: dict[str, Answer | list[Answer]] = {
        CHAT: reserving(40_000, BOUNDS["0.16"]),
        "/tokenize": refused,
    }
    async with engine_over(routes, dialect="vllm") as (_, engine):
        with pytest.raises(ContextTooLong, match=r"^prompt is too long: 40000 tokens > 32768 maximum$"):
            await answer(engine, CLAUDE_CODE)


NEXT_TURN = replace(CLAUDE_CODE, messages=[*CLAUDE_CODE.messages, *request(user("word " * 1000)).messages])


@pytest.mark.clause("8.3", "8.4")
@pytest.mark.parametrize("words", BOUNDS.values(), ids=BOUNDS)
async def test_the_next_turn_is_sent_at_once_with_an_answer_that_fits(words: str) -> None:
    """Each turn of Claude Code cost a refusal and a count."""
    learned = []
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: VLLM,
        CHAT: [reserving(20_000, words), reserving(20_000, words), reserving(20_300, words)],
        "/tokenize": counted(20_000),
    }
    async with engine_over(routes) as (upstream, engine):
        engine.observe = lambda what, kind: learned.append(kind) if what == "learned" else None
        assert text(await answer(engine, CLAUDE_CODE)) == "Hello"
        assert text(await answer(engine, NEXT_TURN)) == "Hello"
        *first, next_length = lengths(asked(upstream))
        assert first == [32_000, 12_768]
        assert 10_000 < next_length <= 12_468
        assert len(asked(upstream, "/tokenize")) == 1
        short = replace(NEXT_TURN, max_tokens=500)
        assert text(await answer(engine, short)) == "Hello"
        assert lengths(asked(upstream))[-1] == 500
    assert learned == ["reserved_window", "prompt_scale"]


async def test_a_next_turn_that_became_much_longer_is_mended_as_the_first() -> None:
    words = BOUNDS["0.25, tokens"]
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: VLLM,
        CHAT: [reserving(1_000, words), reserving(1_000, words), reserving(25_000, words)],
        "/tokenize": [counted(1_000), counted(25_000)],
    }
    async with engine_over(routes) as (upstream, engine):
        for _ in range(2):
            assert text(await answer(engine, CLAUDE_CODE)) == "Hello"
        assert lengths(asked(upstream))[::3] == [32_000, 32_768 - 25_000]


@pytest.mark.clause("8.3", "8.4")
async def test_the_longest_answer_that_a_model_gives_is_asked_for_from_then_on() -> None:
    refused = json_answer(400, {"error": {"message": "This model supports at most 8 completion tokens."}})
    async with engine_over({CHAT: [refused, ANSWER]}, dialect="openai") as (upstream, engine):
        for said in (LONG, LONG, replace(LONG, max_tokens=5)):
            assert text(await answer(engine, said)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 8, 8, 5]


async def test_a_length_is_not_learned_from_a_request_that_failed() -> None:
    refused = json_answer(400, {"error": {"message": "This model supports at most 8 completion tokens."}})
    wrong = json_answer(400, {"error": {"message": "no such tool"}})
    async with engine_over({CHAT: [refused, wrong, ANSWER]}, dialect="openai") as (upstream, engine):
        with pytest.raises(InvalidRequest, match="no such tool"):
            await answer(engine, LONG)
        assert text(await answer(engine, LONG)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 8, 4096]


async def test_a_shortened_answer_stays_short_when_a_field_is_left_out_too() -> None:
    too_long = json_answer(400, {"error": {"message": "This model supports at most 8 completion tokens."}})
    unknown = json_answer(400, {"error": {"message": "Unrecognized request argument supplied: user"}})
    said = request(max_tokens=4096, metadata={"user_id": "u"})
    async with engine_over({CHAT: [too_long, unknown, ANSWER]}, dialect="openai") as (upstream, engine):
        assert text(await answer(engine, said)) == "Hello"
        assert lengths(asked(upstream)) == [4096, 8, 8]


@pytest.mark.clause("7.7")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            400,
            {"error": "The number of tokens to keep is greater than the context length (n_keep: 13055>= n_ctx: 4096)."},
        ),
        (422, {"detail": "Prompt length 13055 is greater than max_seq_len 4096"}),
        (
            400,
            {
                "error": {
                    "message": "the request exceeds the available context size, try increasing it",
                    "n_prompt_tokens": 13055,
                    "n_ctx": 4096,
                }
            },
        ),
    ],
    ids=["LM Studio", "TabbyAPI", "llama.cpp"],
)
async def test_an_overflow_in_another_shape_is_told_with_its_numbers(status: int, body: dict[str, Any]) -> None:
    message = r"^prompt is too long: 13055 tokens > 4096 maximum$"
    async with engine_over({CHAT: json_answer(status, body)}, dialect="openai") as (_, engine):
        with pytest.raises(ContextTooLong, match=message):
            await answer(engine, LONG)
    async with engine_over({CHAT: sse(body)}, dialect="openai") as (_, engine):
        with pytest.raises(ContextTooLong, match=message):
            await answer(engine, LONG)


@pytest.mark.clause("7.7")
async def test_a_context_that_fills_up_during_the_answer_is_an_overflow() -> None:
    filled = {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}
    began = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    for response in (json_answer(500, filled), sse(filled), sse(began, filled)):
        async with engine_over({CHAT: response}, dialect="llamacpp") as (_, engine):
            with pytest.raises(ContextTooLong, match=r"^prompt is too long$"):
                await answer(engine, LONG)
