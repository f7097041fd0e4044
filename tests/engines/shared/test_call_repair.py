"""The calls of an engine in this process: the same object streaming and not, whatever the engine writes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.shared.call_repair import CallRepair
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.deltas import Batch, Delta, Finish, StopReason, ToolJson, ToolStart, Usage
from anthro_asgi.wire.request import MessagesRequest

Json = dict[str, Any]
WRITTEN = {
    "an object": ('{"a": 1}', {"a": 1}),
    "nothing": ("", {}),
    "encoded twice": (json.dumps('{"a": 1}'), {"a": 1}),
    "null": ("null", {"value": None}),
    "an array": ("[1, 2]", {"value": [1, 2]}),
    "white space": (" \n", {}),
    "a surplus brace": ('{"a": 1}}', {"a": 1}),
    "a missing brace": ('{"a": {"b": 1}', {"a": {"b": 1}}),
    "a placeholder first": ('{}{"a": 1}', {"a": 1}),
    "a code fence": ('```json\n{"a": 1}\n```', {"a": 1}),
    "Python": ("{'a': True}", {"a": True}),
    "a raw newline": ('{"a": "b\nc"}', {"a": "b\nc"}),
}


def engine_writing(text: str, size: int, reason: StopReason = "tool_use") -> Any:
    async def engine(request: MessagesRequest) -> AsyncIterator[Batch]:
        yield "I look."
        yield ToolStart("toolu_1", "look")
        for begin in range(0, len(text), size):
            yield ToolJson(text[begin : begin + size])
        yield [Usage(output_tokens=3), Finish(reason)]

    return engine


async def answered(engine: Any, *, stream: bool) -> Json:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}], "stream": stream}
    driver = Driver(MessagesApp(engine))
    async with driver.lifespan():
        response = await driver.request(
            "POST", "/v1/messages", body=json.dumps(body | {"tools": [{"name": "look", "input_schema": {}}]}).encode()
        )
    assert response.status == 200, response.body
    if not stream:
        return dict(json.loads(response.body))
    events = parse_events(response.body)
    check_stream(events)
    return message_from_events(events)


@pytest.mark.clause("5.18", "4.6")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("text", "expected"), WRITTEN.values(), ids=WRITTEN)
async def test_the_input_is_the_object_that_the_engine_means(
    text: str, expected: Json, size: int, stream: bool
) -> None:
    message = await answered(engine_writing(text, size), stream=stream)
    assert message["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": expected},
    ]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_call_whose_input_cannot_be_read_is_left_out(stream: bool) -> None:
    message = await answered(engine_writing("look at it", 4), stream=stream)
    assert message["content"] == [{"type": "text", "text": "I look."}]
    assert message["stop_reason"] == "end_turn"


def fed(*deltas: Delta) -> tuple[list[Delta], dict[Any, int]]:
    repair = CallRepair()
    return [out for delta in deltas for out in repair.feed(delta)], dict(repair.repairs)


def test_valid_pieces_pass_as_they_come_and_nothing_is_counted() -> None:
    start, pieces = ToolStart("t", "look"), [ToolJson('{"a'), ToolJson('": [1'), ToolJson("]}")]
    assert fed(start, *pieces, Finish("tool_use")) == ([start, *pieces, Finish("tool_use")], {})


def test_an_input_that_the_token_limit_cut_stays_cut() -> None:
    start = ToolStart("t", "look")
    out, counted = fed(start, ToolJson('{"a": "b'), Finish("max_tokens"))
    assert out == [start, ToolJson('{"a": "b'), Finish("max_tokens")]
    assert counted == {}


def test_repairs_are_counted() -> None:
    assert fed(ToolStart("t", "look"), ToolJson("null"), Finish("tool_use"))[1] == {"call_input": 1}
    assert fed(ToolStart("t", "look"), ToolJson("look"), Finish("tool_use"))[1] == {"call_dropped": 1}
    two = fed(ToolStart("t", "look"), ToolJson("{}"), ToolStart("u", "leap"), "text")[0]
    assert [type(delta).__name__ for delta in two] == ["ToolStart", "ToolJson", "ToolStart", "str"]
