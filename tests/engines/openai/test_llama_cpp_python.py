"""llama-cpp-python: it answers one request at a time, and refuses a stream with an empty 200."""

import asyncio
import json

import pytest

from anthro_asgi.wire.errors import BadUpstream, ContextTooLong, InvalidRequest
from tests.engines.openai.test_engine import answer, text
from tests.support.chat_requests import request
from tests.support.routed_upstream import ANSWER, CHAT, MODELS, asked, engine_over, recording, times
from tests.support.upstream import Wire, json_answer

EMPTY = recording("llama-cpp-python", "07b_ctx_exceeded_stream")
REFUSAL = recording("llama-cpp-python", "07_ctx_exceeded_nonstream")
LIST = recording("llama-cpp-python", "00_get_v1_models")


async def test_a_recorded_overflow_in_a_stream_is_told_by_the_same_request_without_stream() -> None:
    async with engine_over({MODELS: LIST, CHAT: [EMPTY, REFUSAL]}) as (upstream, engine):
        with pytest.raises(ContextTooLong, match="prompt is too long: 2314 tokens > 1024 maximum"):
            await answer(engine)
        assert [(body["stream"], "stream_options" in body) for body in asked(upstream)] == [
            (True, True),
            (False, False),
        ]


async def test_an_answer_to_the_request_without_stream_is_the_answer() -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    async with engine_over({MODELS: LIST, CHAT: [EMPTY, json_answer(200, whole)]}) as (_, engine):
        assert text(await answer(engine)) == "Hello"


async def test_an_answer_that_does_not_fit_is_asked_for_again_as_a_stream() -> None:
    words = (
        "This model's maximum context length is 1024 tokens. However, you requested 1040 tokens (1020 in the "
        "messages, 20 in the completion). Please reduce the length of the messages or completion."
    )
    refusal = json_answer(400, {"error": {"message": words, "code": "context_length_exceeded"}})
    async with engine_over({MODELS: LIST, CHAT: [EMPTY, refusal, ANSWER]}) as (upstream, engine):
        assert text(await answer(engine)) == "Hello"
        assert [(body["stream"], body["max_tokens"]) for body in asked(upstream)] == [
            (True, 16),
            (False, 16),
            (True, 4),
        ]


async def test_two_empty_answers_are_an_error() -> None:
    async with engine_over({MODELS: LIST, CHAT: EMPTY}) as (upstream, engine):
        with pytest.raises(BadUpstream):
            await answer(engine)
        assert times(upstream, CHAT) == 2


async def test_another_engine_is_not_asked_again_after_an_empty_answer() -> None:
    async with engine_over({CHAT: EMPTY}, dialect="vllm") as (upstream, engine):
        with pytest.raises(BadUpstream):
            await answer(engine)
        assert times(upstream, CHAT) == 1


@pytest.mark.parametrize(("dialect", "most"), [("llama-cpp-python", 1), ("vllm", 3)])
async def test_requests_wait_for_each_other_if_the_engine_answers_one_at_a_time(dialect: str, most: int) -> None:
    running: list[int] = [0, 0]
    together = asyncio.Event()

    async def slow(wire: Wire) -> None:
        running[0] += 1
        running[1] = max(running)
        if running[0] == most:
            together.set()
        await together.wait()
        await wire.send(ANSWER.replace(b"Hello", json.loads(wire.body)["user"].encode()))
        running[0] -= 1

    async with engine_over({CHAT: slow}, dialect=dialect) as (_, engine):
        asks = (answer(engine, request(metadata={"user_id": f"user{number}"})) for number in range(3))
        answers = await asyncio.gather(*asks)
        assert [text(deltas) for deltas in answers] == ["user0", "user1", "user2"]
        assert running[1] == most


async def test_a_request_that_fails_lets_the_next_one_in() -> None:
    refusal = json_answer(400, {"error": {"message": "the temperature is odd"}})
    async with engine_over({CHAT: [refusal, ANSWER]}, dialect="llama-cpp-python") as (_, engine):
        with pytest.raises(InvalidRequest):
            await answer(engine)
        assert text(await answer(engine)) == "Hello"
