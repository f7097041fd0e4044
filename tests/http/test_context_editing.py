"""Context editing as a client sees it: what the engine gets, and what the answer and the count say of it."""

from typing import Any

import orjson
import pytest

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http.messages_app import MessagesApp
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.context_editing import CLEARED_RESULT
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, sse

Json = dict[str, Any]

CLEAR: Json = {
    "type": "clear_tool_uses_20250919",
    "trigger": {"type": "input_tokens", "value": 1_000},
    "keep": {"type": "tool_uses", "value": 1},
}
CHAT = sse(
    {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
)
VLLM = {"data": [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 32_768}]}


def conversation() -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "Go"}]
    for number in range(3):
        call = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "word " * 100}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return messages


BODY: Json = {
    "model": "m",
    "max_tokens": 9,
    "messages": conversation(),
    "tools": [{"name": "look"}],
    "context_management": {"edits": [CLEAR]},
}


def engine_that_counts(*counts: int) -> ScriptedUpstream:
    """A vLLM whose `/tokenize` tells these counts, one after the other."""
    remaining = list(counts)

    async def answer(wire: Wire) -> None:
        if wire.target.endswith("/models"):
            await wire.send(json_answer(200, VLLM))
        elif wire.target == "/tokenize":
            count = remaining.pop(0)
            await wire.send(json_answer(200, {"count": count, "max_model_len": 32_768, "tokens": []}))
        else:
            await wire.send(CHAT)

    return ScriptedUpstream(answer)


def results(body: bytes) -> list[str]:
    """The tool results in a chat request."""
    return [message["content"] for message in orjson.loads(body)["messages"] if message["role"] == "tool"]


@pytest.mark.clause("3.45")
@pytest.mark.parametrize(("count", "clears"), [(1_001, True), (1_000, False)])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_own_count_decides_and_the_answer_tells_what_was_cleared(
    count: int, clears: bool, stream: bool
) -> None:
    async with engine_that_counts(count) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        app = Driver(MessagesApp(engine))
        response = await app.request("POST", "/v1/messages", body=orjson.dumps({**BODY, "stream": stream}))
        await engine.stop()
    assert response.status == 200, response.body
    if stream:
        events = parse_events(response.body)
        check_stream(events)
        (delta,) = [event.data for event in events if event.data["type"] == "message_delta"]
        assert "context_management" in delta
        message = message_from_events(events)
    else:
        message = response.json()
    kept = "word " * 100
    assert results(upstream.requests[-1].body) == ([CLEARED_RESULT] * 2 + [kept] if clears else [kept] * 3)
    applied = message["context_management"]["applied_edits"]
    assert [edit["cleared_tool_uses"] for edit in applied] == ([2] if clears else [])
    assert all(0 < edit["cleared_input_tokens"] < count for edit in applied)


@pytest.mark.clause("10.5")
async def test_a_count_tells_the_length_before_and_after_the_edits() -> None:
    body = {key: value for key, value in BODY.items() if key != "max_tokens"}
    async with engine_that_counts(5_000, 700) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        response = await Driver(MessagesApp(engine)).request(
            "POST", "/v1/messages/count_tokens", body=orjson.dumps(body)
        )
        await engine.stop()
        counted = [request.body for request in upstream.requests if request.target == "/tokenize"]
    assert response.json() == {"input_tokens": 700, "context_management": {"original_input_tokens": 5_000}}
    assert [CLEARED_RESULT in results(body) for body in counted] == [False, True]


async def test_an_answer_without_edits_says_nothing_of_them() -> None:
    body = {key: value for key, value in BODY.items() if key != "context_management"}
    async with engine_that_counts() as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url))
        response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=orjson.dumps(body))
        await engine.stop()
    assert "context_management" not in response.json()
