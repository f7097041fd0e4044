"""Token counts from the engines' own endpoints, for the same chat request that an answer is generated from."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.openai.count_tokens import INPUT_TOKENS, TEMPLATE, TOKENIZE
from anthro_asgi.wire.errors import ApiError, BadUpstream, ContextTooLong, EngineFailed, InvalidRequest, Overloaded
from tests.engines.openai.test_engine import answer
from tests.replay import cases
from tests.support.chat_requests import assistant, request, user
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, asked, engine_over, listing, recording, times
from tests.support.upstream import Answer, json_answer

Json = dict[str, Any]
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SHAPES: dict[str, Json] = {
    "tools": {"tools": [{"name": "look", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}},
    "thinking": {"thinking": {"type": "disabled"}},
    "system": {"system": "Be."},
    "named": {"tools": [{"name": "look"}, {"name": "leap"}], "tool_choice": {"type": "tool", "name": "leap"}},
    "effort": {"output_config": {"effort": "low"}},
}
EFFORT = request(output_config={"effort": "low"}, thinking={"type": "adaptive"})


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
async def test_a_count_request_has_the_same_prompt_as_the_chat_request(dialect: str, shape: Json) -> None:
    counted = json_answer(200, {"count": 7, "tokens": [], "max_model_len": 8})
    async with engine_over({TOKENIZE: counted, CHAT: ANSWER}, dialect=dialect) as (upstream, engine):
        assert await engine.count_tokens(request(**shape)) == 7
        await answer(engine, request(**shape))
        (count,), (chat,) = asked(upstream, TOKENIZE), asked(upstream)
        same = {"model", "messages", "tools"}
        assert {key: count[key] for key in same & set(count)} == {key: chat[key] for key in same & set(chat)}
        assert set(count) <= same | {"chat_template_kwargs", "tool_choice"}


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
async def test_a_count_request_has_the_template_variables_of_the_chat_request(dialect: str) -> None:
    async with engine_over({TOKENIZE: json_answer(200, {"count": 1}), CHAT: ANSWER}, dialect=dialect) as (
        upstream,
        engine,
    ):
        await engine.count_tokens(EFFORT)
        await answer(engine, EFFORT)
        (count,), (chat,) = asked(upstream, TOKENIZE), asked(upstream)
        assert chat["chat_template_kwargs"]["enable_thinking"] is True
        assert count["chat_template_kwargs"] == {"reasoning_effort": "low", **chat["chat_template_kwargs"]}
        assert "reasoning_effort" not in chat["chat_template_kwargs"]


@pytest.mark.parametrize(("dialect", "choice"), [("sglang", "none"), ("vllm", None)])
async def test_a_count_request_has_the_tool_choice_where_the_engine_reads_it(dialect: str, choice: str | None) -> None:
    unused = request(tools=[{"name": "look"}], tool_choice={"type": "none"})
    async with engine_over({TOKENIZE: json_answer(200, {"count": 1})}, dialect=dialect) as (upstream, engine):
        await engine.count_tokens(unused)
        (count,) = asked(upstream, TOKENIZE)
        assert count.get("tool_choice") == choice


async def test_a_prefill_is_counted_with_its_switches() -> None:
    prefill = request(user("a"), assistant("It is"))
    async with engine_over({TOKENIZE: json_answer(200, {"count": 1})}, dialect="vllm") as (upstream, engine):
        await engine.count_tokens(prefill)
        (count,) = asked(upstream, TOKENIZE)
        assert (count["add_generation_prompt"], count["continue_final_message"]) == (False, True)


@pytest.mark.clause("8.2")
@pytest.mark.parametrize("engine_name", ["vllm", "sglang"])
async def test_a_recorded_count_equals_the_recorded_usage(engine_name: str) -> None:
    (case,) = cases(engine_name, name="10h_tokenize_vllm_tools")
    (same,) = [case for case in cases(engine_name, name="05e_tools_auto_noarg_default") if not case.variant]
    usage = json.loads(same.content.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]
    async with engine_over({TOKENIZE: recording(engine_name, case.name)}, dialect=engine_name) as (_, engine):
        assert await engine.count_tokens(request()) == usage["prompt_tokens"]


@pytest.mark.clause("8.2")
async def test_llamacpp_counts_the_whole_chat_request() -> None:
    counted = recording("llamacpp", "10e_input_tokens")
    async with engine_over({INPUT_TOKENS: counted, CHAT: ANSWER}, dialect="llamacpp") as (upstream, engine):
        assert await engine.count_tokens(EFFORT) == 13
        await answer(engine, EFFORT)
        assert asked(upstream, INPUT_TOKENS) == asked(upstream)


async def test_an_older_llamacpp_counts_by_template_and_tokenize() -> None:
    routes: dict[str, Answer | list[Answer]] = {
        TEMPLATE: recording("llamacpp", "10d_apply_template"),
        TOKENIZE: recording("llamacpp", "10_tokenize_llama"),
    }
    async with engine_over(routes, dialect="llamacpp") as (upstream, engine):
        for _ in range(2):
            assert await engine.count_tokens(request()) == 3
        (prompt,) = {body["content"] for body in asked(upstream, TOKENIZE)}
        assert prompt.startswith("<|im_start|>")
        assert asked(upstream, TOKENIZE)[0] == {"content": prompt, "add_special": True, "parse_special": True}
        assert times(upstream, INPUT_TOKENS) == 1, "an absent path is not asked for again"


async def test_an_older_llamacpp_cannot_count_an_image() -> None:
    async with engine_over({TEMPLATE: json_answer(200, {"prompt": ""})}, dialect="llamacpp") as (_, engine):
        with pytest.raises(NotImplementedError):
            await engine.count_tokens(request(user("a", PIXEL)))


@pytest.mark.parametrize(
    "dialect", ["openai", "transformers", "llama-cpp-python", "ollama", "sambanova", "tensorrt-llm"]
)
async def test_an_engine_without_a_count_endpoint_is_not_asked(dialect: str) -> None:
    async with engine_over({}, dialect=dialect) as (upstream, engine):
        with pytest.raises(NotImplementedError):
            await engine.count_tokens(request())
        assert not upstream.requests


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
async def test_a_blocked_count_endpoint_is_asked_only_once(status: int) -> None:
    async with engine_over({TOKENIZE: json_answer(status, {})}, dialect="vllm") as (upstream, engine):
        for _ in range(2):
            with pytest.raises(NotImplementedError):
                await engine.count_tokens(request())
        assert times(upstream, TOKENIZE) == 1


async def test_an_endpoint_that_only_counts_texts_is_not_used() -> None:
    refused = json_answer(422, {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]})
    async with engine_over({TOKENIZE: refused}, dialect="sglang") as (_, engine):
        with pytest.raises(NotImplementedError):
            await engine.count_tokens(request())


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (recording("llamacpp", "08i_image"), InvalidRequest),
        (recording("vllm", "07_ctx_exceeded_nonstream"), ContextTooLong),
        (json_answer(503, {"error": {"message": "Loading model", "code": 503}}), Overloaded),
        (json_answer(500, {}), EngineFailed),
        (json_answer(200, {"count": "7"}), BadUpstream),
        (json_answer(200, {"count": -1}), BadUpstream),
        (json_answer(200, []), BadUpstream),
        (b"SSH-2.0-x\r\n\r\n", BadUpstream),
    ],
)
async def test_a_refusal_of_the_count_request_reaches_the_client(refusal: bytes, kind: type[ApiError]) -> None:
    async with engine_over({TOKENIZE: refusal}, dialect="vllm") as (_, engine):
        with pytest.raises(ApiError) as caught:
            await engine.count_tokens(request())
        assert type(caught.value) is kind


@pytest.mark.parametrize(("prompt", "tokens"), [({}, {"tokens": []}), ({"prompt": "x"}, {}), ({"prompt": 1}, {})])
async def test_an_invalid_prompt_or_token_list_is_an_error(prompt: Json, tokens: Json) -> None:
    routes: dict[str, Answer | list[Answer]] = {
        TEMPLATE: json_answer(200, prompt),
        TOKENIZE: json_answer(200, tokens),
    }
    async with engine_over(routes, dialect="llamacpp") as (_, engine):
        with pytest.raises(BadUpstream):
            await engine.count_tokens(request())


async def test_a_new_engine_is_asked_for_its_count_again() -> None:
    routes: dict[str, Answer | list[Answer]] = {
        MODELS: [listing("vllm"), listing("sglang")],
        TOKENIZE: [json_answer(404, {}), json_answer(200, {"count": 5})],
    }
    async with engine_over(routes) as (_, engine):
        with pytest.raises(NotImplementedError):
            await engine.count_tokens(request())
        await engine.ready()
        assert await engine.count_tokens(request()) == 5
