"""An upstream that speaks Messages itself: relayed, and mended where it breaks the contract."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp, Rules
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine, _body
from anthro_asgi.engines.openai.dialects import LLAMACPP
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import remote as module
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.request import parse_request
from tests.replay import cases
from tests.support.llama.model import ANSWER, THINKING
from tests.support.llama.server import LlamaServer
from tests.support.upstream import ScriptedUpstream, Wire, framed, json_answer

HELLO = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
MODELS = json_answer(200, {"data": [{"id": "m", "type": "model"}]}, {})


def events(*datas: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (data["type"].encode(), orjson.dumps(data)) for data in datas)


def start(**usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "chatcmpl-x", "content": [], "usage": usage}}


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, kind: str, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **content}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str = "end_turn", **more: Any) -> list[dict[str, Any]]:
    ending = {"type": "message_delta", "delta": {"stop_reason": reason, **more}, "usage": {"output_tokens": 7}}
    return [ending, {"type": "message_stop"}]


def sse(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


@asynccontextmanager
async def relaying(answer: Any, **options: Any) -> AsyncIterator[tuple[Driver, ScriptedUpstream]]:
    async def by_path(wire: Wire) -> None:
        if wire.target.endswith("/models"):
            await wire.send(MODELS)
        else:
            await wire.send(answer)

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url), **options)
        try:
            yield Driver(MessagesApp(engine)), upstream
        finally:
            await engine.stop()


async def both(driver: Driver, **changes: Any) -> dict[str, Any]:
    """The answer, streamed and whole, which must be the same."""
    streamed = await post(driver, stream=True, **changes)
    whole = await post(driver, **changes)
    parsed = parse_events(streamed.body)
    check_stream(parsed)
    told, folded = whole.json(), message_from_events(parsed)
    for key in ("stop_reason", "stop_sequence"):
        assert told[key] == folded[key]
    assert without_ids(told) == without_ids(folded)
    assert counts(told) == counts(folded)
    return dict(told)


def without_ids(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "id"} for one in message["content"]]


def counts(message: dict[str, Any]) -> tuple[int, int]:
    """Tokens in and out; which of the prompt's were cached is the second asker's luck."""
    usage = message["usage"]
    return usage["input_tokens"] + usage.get("cache_read_input_tokens", 0), usage["output_tokens"]


async def post(driver: Driver, **changes: Any) -> Response:
    return await driver.request("POST", "/v1/messages", body=orjson.dumps({**HELLO, **changes}))


async def relayed(*datas: dict[str, Any], **changes: Any) -> dict[str, Any]:
    async with relaying(sse(events(*datas))) as (driver, _):
        return await both(driver, **changes)


# what is mended


@pytest.mark.clause("5.3")
async def test_blocks_that_overlap_come_out_one_after_the_other() -> None:
    message = await relayed(
        start(input_tokens=3),
        block(0, type="thinking", thinking=""),
        delta(0, "thinking_delta", thinking="hm"),
        block(1, type="text", text=""),
        delta(1, "text_delta", text="yes"),
        delta(0, "signature_delta", signature=""),
        stop(0),
        stop(1),
        *end(),
    )
    assert [one["type"] for one in message["content"]] == ["thinking", "text"]
    assert message["content"][0]["signature"]
    assert message["usage"] == {"input_tokens": 3, "output_tokens": 7}


async def test_interleaved_calls_come_out_one_after_the_other() -> None:
    message = await relayed(
        start(),
        block(0, type="tool_use", id="a", name="f", input={}),
        block(1, type="tool_use", id="b", name="g", input={}),
        delta(0, "input_json_delta", partial_json='{"x"'),
        delta(1, "input_json_delta", partial_json='{"y":2}'),
        delta(0, "input_json_delta", partial_json=":1}"),
        stop(0),
        stop(1),
        *end("tool_use"),
    )
    assert [(one["id"], one["input"]) for one in message["content"]] == [("a", {"x": 1}), ("b", {"y": 2})]


async def test_a_call_without_input_does_not_hold_back_the_next() -> None:
    datas = [start(), block(0, type="tool_use", id="a", name="f", input={}), stop(0)]
    datas += [block(1, type="tool_use", id="b", name="g", input={}), delta(1, "input_json_delta", partial_json="{}")]
    message = await relayed(*datas, stop(1), *end("tool_use"))
    assert [one["id"] for one in message["content"]] == ["a", "b"]


async def test_a_stop_sequence_is_matched_here_and_not_sent() -> None:
    body = sse(
        events(start(), block(0, type="text", text=""), delta(0, "text_delta", text="one two three"), stop(0), *end())
    )
    async with relaying(body) as (driver, upstream):
        message = await both(driver, stop_sequences=["two"])
        sent = [orjson.loads(request.body) for request in upstream.requests if request.body]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "two")
    assert message["content"] == [{"type": "text", "text": "one "}]
    assert all("stop_sequences" not in body and body["stream"] is True for body in sent)


async def test_a_call_that_was_not_allowed_is_dropped() -> None:
    datas = [
        start(),
        block(0, type="text", text="hello"),
        stop(0),
        block(1, type="tool_use", id="a", name="f", input={}),
    ]
    datas += [delta(1, "input_json_delta", partial_json="{}"), stop(1)]
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    message = await relayed(*datas, *end("tool_use"), tools=tools, tool_choice={"type": "none"})
    assert message["content"] == [{"type": "text", "text": "hello"}]
    assert message["stop_reason"] == "end_turn"


@pytest.mark.clause("5.19")
async def test_blocks_and_fields_this_service_cannot_make_pass_unchanged() -> None:
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"title": "t", "url": "u"}]}
    citation = {"type": "web_search_result_location", "url": "u", "cited_text": "c"}
    message = await relayed(
        start(),
        block(0, type="redacted_thinking", data="xyz"),
        stop(0),
        block(1, type="server_tool_use", id="s", name="web_search", input={}),
        delta(1, "input_json_delta", partial_json='{"query":'),
        delta(1, "input_json_delta", partial_json='"q"}'),
        stop(1),
        block(2, **result),
        stop(2),
        block(3, type="text", text="", citations=[]),
        delta(3, "text_delta", text="it"),
        delta(3, "citations_delta", citation=citation),
        stop(3),
        block(4, type="text", text=""),
        delta(4, "text_delta", text=" is"),
        stop(4),
        *end("pause_turn", container={"id": "c"}),
    )
    assert message["content"] == [
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        result,
        {"type": "text", "text": "it", "citations": [citation]},
        {"type": "text", "text": " is"},
    ]
    assert (message["stop_reason"], message["container"]) == ("pause_turn", {"id": "c"})


async def test_a_whole_message_in_answer_to_a_stream_is_read() -> None:
    content: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "yes"},
    ]
    content += [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]
    answer = {
        "id": "x",
        "content": content,
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    async with relaying(json_answer(200, answer, {})) as (driver, _):
        message = await both(driver)
    assert message["content"] == content
    assert message["usage"] == {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize(
    "listed", [{}, {"tools": None}, {"tools": [{"name": "b", "input_schema": {"type": "object"}}]}]
)
def test_llamacpp_receives_the_choice_of_a_tool_that_only_a_message_defines(listed: dict[str, Any]) -> None:
    """It failed with a KeyError: the named tool was looked for in the list of the body alone."""
    definition = {"name": "a", "input_schema": {"type": "object"}}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}
    asked = HELLO | listed | {"tool_choice": {"type": "tool", "name": "a"}}
    asked["messages"] = [{"role": "user", "content": "Hi"}, {"role": "system", "content": [added]}]
    body = _body(parse_request(orjson.dumps(asked)), LLAMACPP)
    assert body["tool_choice"] == asked["tool_choice"]
    assert body.get("tools") == listed.get("tools")


@pytest.mark.clause("10.2")
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "none"}, {}),
        ({"type": "tool", "name": "b"}, {"tools": ["b"], "tool_choice": {"type": "any"}}),
        ({"type": "any"}, {"tools": ["a", "b"], "tool_choice": {"type": "any"}}),
    ],
)
async def test_llamacpp_counts_and_answers_with_the_same_tools_and_thinking_switch(
    choice: dict[str, Any], expected: dict[str, Any]
) -> None:
    listed = json_answer(200, {"data": [{"id": "m", "type": "model", "owned_by": "llamacpp"}]})
    answer = sse(events(start(), block(0, type="text", text="hello"), stop(0), *end()))

    async def by_path(wire: Wire) -> None:
        counted = json_answer(200, {"input_tokens": 5})
        await wire.send(
            listed if wire.target.endswith("/models") else counted if wire.target.endswith("_tokens") else answer
        )

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url))
        driver = Driver(MessagesApp(engine))
        tools = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in ("a", "b")]
        asked = HELLO | {"tools": tools, "tool_choice": choice, "thinking": {"type": "disabled"}}
        await driver.request("POST", "/v1/messages", body=orjson.dumps(asked))
        await driver.request("POST", "/v1/messages/count_tokens", body=orjson.dumps(asked))
        await engine.stop()
        answered, counted = [orjson.loads(one.body) for one in upstream.requests if one.method == "POST"]
    for body in (answered, counted):
        seen = {key: body[key] for key in ("tools", "tool_choice") if key in body}
        if "tools" in seen:
            seen["tools"] = [tool["name"] for tool in seen["tools"]]
        assert seen == expected
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert set(answered) - set(counted) == {"stream", "max_tokens"}


async def test_tool_choice_none_without_tools_is_accepted() -> None:
    """llama.cpp is given no tools when none may be called; there may have been none."""
    listed = json_answer(200, {"data": [{"id": "m", "type": "model", "owned_by": "llamacpp"}]})
    answer = sse(events(start(), block(0, type="text", text="hello"), stop(0), *end()))

    async def by_path(wire: Wire) -> None:
        await wire.send(listed if wire.target.endswith("/models") else answer)

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url))
        message = await both(Driver(MessagesApp(engine)), tool_choice={"type": "none"})
        await engine.stop()
    assert message["content"] == [{"type": "text", "text": "hello"}]


# what an upstream of the Messages API says beside text, thinking and calls


COMPACTED = {"type": "compaction", "content": "The summary.", "encrypted_content": "opaque", "signature": "s"}
ITERATIONS = [{"type": "compaction", "input_tokens": 9, "output_tokens": 2}, {"type": "message", "input_tokens": 3}]


@pytest.mark.clause("5.19")
async def test_a_compaction_passes_with_its_delta() -> None:
    beginning = {"type": "compaction", "content": None, "signature": "s"}
    change = delta(0, "compaction_delta", content="The summary.", encrypted_content="opaque")
    datas = [start(input_tokens=3), block(0, **beginning), change, stop(0), block(1, type="text", text="Hi"), stop(1)]
    async with relaying(sse(events(*datas, *end()))) as (driver, _):
        message = await both(driver)
        streamed = parse_events((await post(driver, stream=True)).body)
    assert message["content"] == [COMPACTED, {"type": "text", "text": "Hi"}]
    assert [event.data for event in streamed[1:4]] == [block(0, **beginning), change, stop(0)]


@pytest.mark.clause("5.19")
async def test_the_stop_reason_after_a_compaction_passes() -> None:
    message = await relayed(start(), block(0, **COMPACTED), stop(0), *end("compaction"))
    assert (message["content"], message["stop_reason"]) == ([COMPACTED], "compaction")


@pytest.mark.clause("5.19")
async def test_input_of_a_server_tool_is_streamed_as_the_input_of_a_tool() -> None:
    """Clients take the input from the deltas: with the whole input at the start they kept an empty one."""
    beginning = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}, "caller": {"type": "direct"}}
    pieces = [delta(0, "input_json_delta", partial_json=piece) for piece in ("", '{"query":', '"q"}')]
    async with relaying(sse(events(start(), block(0, **beginning), *pieces, stop(0), *end()))) as (driver, _):
        message = await both(driver)
        streamed = parse_events((await post(driver, stream=True)).body)
    assert message["content"] == [{**beginning, "input": {"query": "q"}}]
    whole = delta(0, "input_json_delta", partial_json='{"query":"q"}')
    assert [event.data for event in streamed[1:4]] == [block(0, **beginning), whole, stop(0)]


async def test_input_of_a_server_tool_that_broke_off_is_repaired_the_same_in_a_stream() -> None:
    beginning = {"type": "server_tool_use", "id": "s", "name": "code_execution", "input": {}}
    cut = delta(0, "input_json_delta", partial_json='{"code": "print(')
    message = await relayed(start(), block(0, **beginning), cut, *end("max_tokens"))
    assert message["content"] == [{**beginning, "input": {"code": "print("}}]


@pytest.mark.clause("5.19")
async def test_fields_of_a_tool_use_block_pass() -> None:
    called = {"type": "tool_use", "id": "a", "name": "f", "caller": {"type": "code_execution_20250825", "tool_id": "s"}}
    message = await relayed(
        start(),
        block(0, **called, input={}, toolset_name="browser"),
        delta(0, "input_json_delta", partial_json='{"x":1}'),
        stop(0),
        *end("tool_use"),
    )
    assert message["content"] == [{**called, "input": {"x": 1}, "toolset_name": "browser"}]


@pytest.mark.clause("5.19")
async def test_estimates_of_hidden_thinking_pass_in_a_stream() -> None:
    datas = [
        start(),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="", estimated_tokens=50),
        delta(0, "thinking_delta", thinking="", estimated_tokens=100),
        delta(0, "signature_delta", signature="sig"),
        stop(0),
        block(1, type="text", text="Hi"),
        stop(1),
        *end(),
    ]
    async with relaying(sse(events(*datas))) as (driver, _):
        message = await both(driver, thinking={"type": "adaptive", "display": "omitted"})
        streamed = await post(driver, stream=True, thinking={"type": "adaptive", "display": "omitted"})
    assert message["content"][0] == {"type": "thinking", "thinking": "", "signature": "sig"}
    deltas = [event.data["delta"] for event in parse_events(streamed.body) if event.type == "content_block_delta"]
    assert [one.get("estimated_tokens") for one in deltas] == [50, 100, None, None]


@pytest.mark.clause("5.19")
async def test_fields_and_usage_of_every_kind_pass_in_the_events_they_came_in() -> None:
    began = start(input_tokens=3, cache_read_input_tokens=4)
    began["message"]["usage"] |= {
        "cache_creation": {"ephemeral_5m_input_tokens": 1},
        "service_tier": "standard",
        "server_tool_use": None,
        "inference_geo": "eu",
    }
    began["message"] |= {"diagnostics": None, "input_transformations": [], "container": {"id": "c0"}}
    ended, stopped = end(stop_details=None, container={"id": "c1"})
    ended |= {"context_management": {"applied_edits": [{"type": "clear_tool_uses_20250919"}]}}
    ended["usage"] |= {
        "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": {"web_search_requests": 1},
        "iterations": ITERATIONS,
        "service_tier": None,
        "fallback_credit": {"status": "used"},
    }
    datas = [began, block(0, type="text", text="Hi"), stop(0), ended, stopped]
    async with relaying(sse(events(*datas))) as (driver, _):
        message = await both(driver)
        streamed = parse_events((await post(driver, stream=True)).body)
    expected = {
        "diagnostics": None,
        "input_transformations": [],
        "container": {"id": "c1"},
        "context_management": ended["context_management"],
        "stop_details": None,
    }
    assert {key: message[key] for key in expected} == expected
    folded = message_from_events(streamed)
    assert {key: folded[key] for key in (*expected, "usage")} == {key: message[key] for key in (*expected, "usage")}
    assert message["usage"] == {
        "input_tokens": 3,
        "output_tokens": 7,
        "cache_read_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 1},
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": 1},
        "inference_geo": "eu",
        "output_tokens_details": {"thinking_tokens": 2},
        "iterations": ITERATIONS,
        "fallback_credit": {"status": "used"},
    }
    first, last = streamed[0].data["message"], streamed[-2].data
    assert (first["diagnostics"], first["input_transformations"], first["container"]) == (None, [], {"id": "c0"})
    assert last["context_management"] == ended["context_management"]
    assert last["delta"]["container"] == {"id": "c1"}
    assert "input_transformations" not in last


@pytest.mark.clause("5.19")
async def test_the_fields_of_a_whole_message_pass_as_those_of_a_stream() -> None:
    answer = {
        "type": "message",
        "content": [COMPACTED, {"type": "text", "text": "Hi"}],
        "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "cyber"},
        "container": {"id": "c"},
        "context_management": {"applied_edits": []},
        "usage": {"input_tokens": 1, "output_tokens": 2, "iterations": ITERATIONS},
    }
    async with relaying(json_answer(200, answer, {})) as (driver, _):
        message = await both(driver)
        streamed = parse_events((await post(driver, stream=True)).body)
    assert {key: message[key] for key in answer} == answer
    assert streamed[-2].data["delta"]["stop_details"] == answer["stop_details"]


async def test_fields_without_end_are_refused() -> None:
    filler = [{"type": "message_delta", "delta": {}, f"x{number}": "y" * 1000} for number in range(9)]
    body = sse(events(start(), *filler, *end()))
    async with relaying(body, limits=AnswerLimits(max_answer=5000)) as (driver, _):
        assert (await post(driver)).status == 502


# errors


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_with_status_200_is_still_that_error(stream: bool) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    async with relaying(json_answer(200, error)) as (driver, _):
        assert (await post(driver, stream=stream)).status == 529


@pytest.mark.parametrize("nonsense", [[], {}, "no", {"type": "message"}, {"type": "message", "content": [1]}], ids=str)
async def test_json_that_is_not_a_message_is_a_bad_upstream(nonsense: Any) -> None:
    async with relaying(json_answer(200, nonsense)) as (driver, _):
        assert (await post(driver)).status == 502


@pytest.mark.parametrize(
    ("kind", "status"),
    [("invalid_request_error", 400), ("rate_limit_error", 429), ("overloaded_error", 529), ("internal_error", 500)],
)
async def test_an_error_event_before_any_output_has_its_own_status(kind: str, status: int) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "no"}}
    async with relaying(sse(events(start(), error, {"type": "message_stop"}))) as (driver, _):
        assert (await post(driver, stream=True)).status == status
        assert (await post(driver)).status == status


async def test_an_overflow_gets_the_words_that_clients_act_on() -> None:
    text = "The input (2314 tokens) is longer than the model's context length (1024 tokens)."
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": text}}
    async with relaying(sse(events(error))) as (driver, _):
        response = await post(driver, stream=True)
    assert response.json()["error"]["message"] == "prompt is too long: 2314 tokens > 1024 maximum"


@pytest.mark.parametrize(
    "nonsense",
    [
        delta(0, "text_delta", text=None),
        delta(0, "thinking_delta", thinking=7),
        delta(0, "signature_delta", signature=[1]),
        delta(0, "input_json_delta", partial_json={}),
        block(0, type="tool_use", id=1, name="f"),
        block(0, type="text", text=["no"]),
        {"type": "content_block_delta"},
        {"type": []},
    ],
    ids=str,
)
async def test_an_event_of_the_wrong_shape_is_a_bad_upstream(nonsense: dict[str, Any]) -> None:
    body = b"data: " + orjson.dumps(nonsense) + b"\n\n"
    async with relaying(sse(events(start(), block(0, type="text", text="")) + body + events(*end()))) as (driver, _):
        assert (await post(driver)).status == 502


@pytest.mark.parametrize("cut", [1, 3])
async def test_a_stream_that_ends_early_is_an_error(cut: int) -> None:
    datas = [start(), block(0, type="text", text=""), delta(0, "text_delta", text="one"), stop(0), *end()][:cut]
    async with relaying(sse(events(*datas))) as (driver, _):
        assert (await post(driver)).status == 502
        response = await post(driver, stream=True)
    assert b'"type":"error"' in response.body
    assert b"end_turn" not in response.body


@pytest.mark.parametrize(
    "surplus",
    [
        b"data: {\n\n",
        b"data: [42]\n\n",
        events(delta(0, "text_delta", text=" and more")),
        events(block(1, type="text", text="more"), stop(1)),
        events({"type": "error", "error": {"type": "api_error", "message": "late"}}),
    ],
)
async def test_events_after_the_stop_reason_are_ignored(surplus: bytes) -> None:
    said = events(start(input_tokens=3), block(0, type="text", text="Hello"), stop(0), end()[0])
    async with relaying(sse(said + surplus + events(end()[1]))) as (driver, _):
        assert (await both(driver))["content"] == [{"type": "text", "text": "Hello"}]


async def test_a_stall_after_the_stop_reason_ends_the_answer_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRAILER_TIMEOUT", 0.05)
    said = sse(events(start(input_tokens=3), block(0, type="text", text="Hello"), stop(0), end()[0]) + b" " * 9)[:-9]
    async with relaying(said) as (driver, _):
        assert (await both(driver))["stop_reason"] == "end_turn"


async def test_a_recorded_failure_in_mid_stream_shows_no_internals_of_the_engine() -> None:
    (case,) = cases("vllm", name="12_midstream_kill_v1_messages")
    async with relaying(sse(case.content)) as (driver, _):
        response = await post(driver, stream=True)
    parsed = parse_events(response.body)
    check_stream(parsed)
    assert parsed[-1].type == "error"
    assert b"pydantic" not in response.body


@pytest.mark.clause("5.2")
@pytest.mark.parametrize(
    ("engine", "name", "kind"),
    [
        ("llamacpp", "13b_ctx_full_midstream_messages", "text"),
        ("sglang", "12_midstream_abort_v1_messages", "thinking"),
    ],
)
async def test_recorded_streams_are_relayed_by_the_grammar(engine: str, name: str, kind: str) -> None:
    (case,) = cases(engine, name=name)
    async with relaying(sse(case.content)) as (driver, _):
        message = await both(driver)
    assert [one["type"] for one in message["content"]] == [kind]


async def test_the_key_is_sent_in_both_headers_and_never_shown() -> None:
    async with relaying(json_answer(401, {"error": {"message": "bad key s3cret"}}, {}), key="s3cret") as (
        driver,
        upstream,
    ):
        response = await post(driver)
        headers = upstream.requests[-1].headers
    assert (headers["x-api-key"], headers["authorization"]) == ("s3cret", "Bearer s3cret")
    assert response.status == 500
    assert b"s3cret" not in response.body


# llama.cpp's own /v1/messages


@asynccontextmanager
async def over(llama: LlamaServer) -> AsyncIterator[Driver]:
    engine = MessagesEngine(Origin.parse(llama.url))
    try:
        yield Driver(MessagesApp(engine))
    finally:
        await engine.stop()


async def test_llamacpps_text_and_thinking_come_out_by_the_grammar(llama: LlamaServer) -> None:
    async with over(llama) as driver:
        message = await both(driver, thinking={"type": "enabled", "budget_tokens": 50}, max_tokens=200)
        plain = await both(driver, max_tokens=200)
    assert [one["type"] for one in message["content"]] == ["thinking", "text"]
    assert message["content"][0]["thinking"].strip() == THINKING
    assert message["content"][0]["signature"]
    assert message["content"][1]["text"].strip() == ANSWER
    assert plain["content"] == [{"type": "text", "text": ANSWER}]


async def test_llamacpps_stop_sequences_are_reported(llama: LlamaServer) -> None:
    async with over(llama) as driver:
        message = await both(driver, stop_sequences=["hand"], max_tokens=200)
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "hand")
    assert message["content"][0]["text"] == ANSWER.partition("hand")[0]


async def test_llamacpp_calls_a_tool_when_it_must_and_not_when_it_may_not(llama: LlamaServer) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"name": "weather", "input_schema": schema}]
    async with over(llama) as driver:
        called = await both(driver, tools=tools, tool_choice={"type": "any"}, max_tokens=500)
        silent = await both(driver, tools=tools, tool_choice={"type": "none"}, max_tokens=500)
    assert called["stop_reason"] == "tool_use"
    assert called["content"][-1]["name"] == "weather"
    assert isinstance(called["content"][-1]["input"]["city"], str)
    assert [one["type"] for one in silent["content"]] == ["text"]


async def test_llamacpp_counts_what_it_then_uses(llama: LlamaServer) -> None:
    async with over(llama) as driver:
        used, _ = counts(await both(driver, max_tokens=5))
        body = orjson.dumps({key: HELLO[key] for key in ("model", "messages")})
        counted = (await driver.request("POST", "/v1/messages/count_tokens", body=body)).json()
    assert counted["input_tokens"] == used


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = [{"name": "weather", "input_schema": CITY}, {"name": "time", "input_schema": {"type": "object"}}]


@pytest.mark.clause("10.3")
@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 50}},
        {"thinking": {"type": "disabled"}},
        {"tools": WEATHER},
        {"tools": WEATHER, "tool_choice": {"type": "none"}},
        {"tools": WEATHER, "tool_choice": {"type": "any"}},
        {"tools": WEATHER, "tool_choice": {"type": "tool", "name": "time"}},
    ],
    ids=str,
)
async def test_llamacpps_count_is_that_of_the_answer_also_if_a_setting_changes_the_prompt(
    llama: LlamaServer, fields: dict[str, Any]
) -> None:
    async with over(llama) as driver:
        used, _ = counts((await post(driver, max_tokens=5, **fields)).json())
        body = orjson.dumps({key: HELLO[key] for key in ("model", "messages")} | fields)
        counted = (await driver.request("POST", "/v1/messages/count_tokens", body=body)).json()
    assert counted["input_tokens"] == used


async def test_a_client_that_leaves_frees_llamacpps_slot(llama: LlamaServer) -> None:
    engine = MessagesEngine(Origin.parse(llama.url))
    request = parse_request(orjson.dumps({**HELLO, "max_tokens": 4000}))
    async with aclosing(engine.stream(request)) as batches:  # type: ignore[type-var]
        await anext(batches)
    await engine.stop()
    llama.until_idle()


# headers


LIMITS = [
    ("anthropic-ratelimit-requests-remaining", "9"),
    ("anthropic-ratelimit-unified-reset", "2026-12-01T00:00:00Z"),
    ("anthropic-organization-id", "0a1b"),
]
UNSAFE = [("anthropic-ratelimit-tokens-limit", "1\tx: evil"), ("server", "secret"), ("request-id", "req_theirs")]


@pytest.mark.clause("2.4")
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("sent", "version", "beta"),
    [
        ([], "2023-06-01", None),
        ([("anthropic-version", b"2099-01-01")], "2099-01-01", None),
        (
            [("anthropic-beta", b"a-2025-01-01, b-2026-01-01"), ("anthropic-beta", b"c-2026-01-01")],
            "2023-06-01",
            "a-2025-01-01,b-2026-01-01,c-2026-01-01",
        ),
        (
            [("anthropic-beta", b"a b,\xff,," + b"x" * 200), ("anthropic-version", b"1\tx: evil")],
            "2023-06-01",
            None,
        ),
    ],
)
async def test_the_headers_about_the_version_go_up(
    sent: list[tuple[str, bytes]], version: str, beta: str | None, path: str
) -> None:
    answer = json_answer(200, {"input_tokens": 3}) if path.endswith("tokens") else sse(events(start(), *end()))
    async with relaying(answer) as (driver, upstream):
        response = await driver.request("POST", path, headers=sent, body=orjson.dumps(HELLO))
        assert response.status == 200
        got = upstream.requests[-1].headers
    assert (got["anthropic-version"], got.get("anthropic-beta")) == (version, beta)


@pytest.mark.clause("7.11")
@pytest.mark.parametrize("stream", [False, True])
async def test_headers_about_limits_and_the_account_come_down_with_an_answer(stream: bool) -> None:
    body = events(start(), block(0, type="text", text="Hi"), stop(0), *end())
    framed_answer = framed(200, [("content-type", "text/event-stream"), *LIMITS, *UNSAFE], [body], "length")
    async with relaying(framed_answer) as (driver, _):
        response = await post(driver, stream=stream)
    assert response.status == 200
    assert [(name, response.header(name)) for name, _ in LIMITS] == LIMITS
    assert response.header("anthropic-ratelimit-tokens-limit") is None
    assert response.header("server") is None
    assert response.header("request-id") != "req_theirs"


@pytest.mark.clause("7.11")
async def test_headers_about_limits_and_the_account_come_down_with_counts_and_errors() -> None:
    async with relaying(json_answer(200, {"input_tokens": 3}, LIMITS)) as (driver, _):
        counted = await driver.request("POST", "/v1/messages/count_tokens", body=orjson.dumps(HELLO))
    assert [(name, counted.header(name)) for name, _ in LIMITS] == LIMITS
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    async with relaying(json_answer(429, error, [*LIMITS, ("retry-after", "7")])) as (driver, _):
        refused = await post(driver)
    assert (refused.status, refused.header("retry-after")) == (429, "7")
    assert [(name, refused.header(name)) for name, _ in LIMITS] == LIMITS


# what a refusal changes


TOO_LONG = (
    "This model's maximum context length is 32768 tokens. However, you requested {asked} output tokens and your prompt "
    "contains at least {bound} input tokens, for a total of at least 32769 tokens. Please reduce the length of the "
    "input prompt or the number of requested output tokens. (parameter=input_tokens, value={bound})"
)
HI = sse(events(start(), block(0, type="text", text="Hi"), stop(0), *end()))


@asynccontextmanager
async def small_window(prompt: int, lists: list[bytes]) -> AsyncIterator[tuple[Driver, ScriptedUpstream]]:
    """A server that reserves the tokens of the answer, as vLLM does, and counts prompts."""
    left = list(lists)

    async def by_path(wire: Wire) -> None:
        if wire.target.endswith("/models"):
            await wire.send(left.pop(0) if len(left) > 1 else left[0])
            return
        if wire.target.endswith("_tokens"):
            await wire.send(json_answer(200, {"input_tokens": prompt}))
            return
        asked = orjson.loads(wire.body)["max_tokens"]
        said = TOO_LONG.format(asked=asked, bound=32_769 - asked)
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
        await wire.send(HI if prompt + asked <= 32_768 else json_answer(400, error))

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url))
        try:
            yield Driver(MessagesApp(engine)), upstream
        finally:
            await engine.stop()


def posted(upstream: ScriptedUpstream, path: str = "/v1/messages") -> list[dict[str, Any]]:
    return [orjson.loads(one.body) for one in upstream.requests if one.target == path]


@pytest.mark.clause("7.7")
async def test_an_answer_that_does_not_fit_beside_the_prompt_is_shortened_and_so_at_once_in_the_next_turn() -> None:
    words = [{"role": "user", "content": "word " * 16_000}]  # estimated at 20 000 tokens
    async with small_window(20_000, [MODELS]) as (driver, upstream):
        for _ in range(2):
            response = await post(driver, max_tokens=32_000, messages=words)
            assert response.json()["content"] == [{"type": "text", "text": "Hi"}]
        asked = [body["max_tokens"] for body in posted(upstream)]
        assert asked[:2] == [32_000, 12_768]
        assert len(asked) == 3
        assert 10_000 < asked[2] <= 12_768
        assert len(posted(upstream, "/v1/messages/count_tokens")) == 1


@pytest.mark.clause("7.7")
async def test_a_counted_prompt_that_does_not_fit_is_too_long() -> None:
    async with small_window(40_000, [MODELS]) as (driver, _):
        response = await post(driver, max_tokens=100)
    assert response.status == 400
    assert response.json()["error"]["message"].startswith("prompt is too long")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_request_is_sent_again_if_another_server_has_taken_the_place(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Another server may demand its own switch for thinking. The request that found out failed."""
    monkeypatch.setattr("anthro_asgi.engines.messages.engine._DETECTION_VALID", 0.0)
    theirs = json_answer(200, {"data": [{"id": "m", "type": "model", "owned_by": "llamacpp"}]})
    left = [MODELS, theirs]

    async def by_path(wire: Wire) -> None:
        if wire.target.endswith("/models"):
            await wire.send(left.pop(0) if len(left) > 1 else left[0])
        else:
            switched = "chat_template_kwargs" in orjson.loads(wire.body)
            await wire.send(HI if switched else json_answer(400, {"error": {"message": "no thinking here"}}))

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url))
        response = await post(Driver(MessagesApp(engine)), stream=stream, thinking={"type": "disabled"})
        await engine.stop()
    assert response.status == 200
    assert ["chat_template_kwargs" in body for body in posted(upstream)] == [False, True]


# which API it is


@pytest.mark.parametrize(("listed", "asked"), [({"type": "model"}, "/v1/messages"), ({}, "/v1/chat/completions")])
async def test_an_upstream_with_a_messages_model_list_gets_messages_requests(listed: Any, asked: str) -> None:
    async def by_path(wire: Wire) -> None:
        known = wire.target.endswith("/models")
        await wire.send(json_answer(200, {"data": [{"id": "m", **listed}]}) if known else json_answer(418, {}))

    async with ScriptedUpstream(by_path) as upstream:
        origin = Origin.parse(upstream.url)
        driver = Driver(MessagesApp(AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))))
        async with driver.lifespan():
            assert (await post(driver)).status == 400
        assert upstream.requests[-1].target == asked


async def test_an_upstream_that_starts_later_is_recognised_then() -> None:
    async with ScriptedUpstream(b"") as upstream:
        origin = Origin.parse(upstream.url)
    driver = Driver(MessagesApp(AutoEngine(OpenAIEngine(origin), MessagesEngine(origin))))
    async with driver.lifespan():
        assert (await post(driver)).status == 529
        assert (await driver.request("GET", "/readyz")).status == 503


# what only this upstream can do


@pytest.mark.clause("3.14", "3.21")
async def test_an_upstream_receives_server_tools_and_every_field_and_nothing_is_reported_as_ignored() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    fields: dict[str, Any] = {"tools": [search], "mcp_servers": [{"name": "s"}], "speed": "fast"}
    fields["compaction"] = {"trigger": 1}
    content = [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "container_upload", "file_id": "file_2"},
        {"type": "hologram", "depth": {"z": [1]}},
    ]
    searched = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"encrypted_content": "x", "url": "u"}]},
    ]
    fields["messages"] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": searched},
        {"role": "user", "content": "Go on"},
    ]

    async def by_path(wire: Wire) -> None:
        await wire.send(MODELS if wire.target.endswith("/models") else sse(events(start(), *end())))

    async with ScriptedUpstream(by_path) as upstream:
        engine = MessagesEngine(Origin.parse(upstream.url))
        try:
            app = MessagesApp(engine, rules=Rules(pass_server_tools=True))
            response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps({**HELLO, **fields}))
        finally:
            await engine.stop()
        assert (response.status, response.header("anthro-asgi-ignored")) == (200, None)
        sent = orjson.loads(upstream.requests[-1].body)
        assert {key: sent[key] for key in fields} == fields


NEW_DELTAS = [
    start(input_tokens=1),
    block(0, type="thinking", thinking=""),
    delta(0, "thinking_delta", thinking="Hm"),
    delta(0, "mood_delta", mood="un"),
    delta(0, "mood_delta", mood="sure"),
    delta(0, "signature_delta", signature="s"),
    stop(0),
    block(1, type="text", text=""),
    delta(1, "style_delta", style={"bold": True}),
    delta(1, "text_delta", text="a"),
    stop(1),
    *end(),
]


@pytest.mark.clause("5.19")
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
async def test_deltas_of_unknown_types_pass_unchanged_in_their_blocks(streams: bool) -> None:
    async with relaying(sse(events(*NEW_DELTAS))) as (driver, _):
        response = await driver.request("POST", "/v1/messages", body=orjson.dumps(HELLO | {"stream": streams}))
    assert response.status == 200
    if streams:
        sent = [event.data for event in parse_events(response.body) if event.type.startswith("content_block")]
        assert [one["index"] for one in sent] == [0] * 6 + [1] * 4
        assert [one["delta"] for one in sent if "delta" in one] == [
            one["delta"] for one in NEW_DELTAS if one["type"] == "content_block_delta"
        ]
    else:
        assert orjson.loads(response.body)["content"] == [
            {"type": "thinking", "thinking": "Hm", "signature": "s", "mood": "unsure"},
            {"type": "text", "text": "a", "style": {"bold": True}},
        ]
