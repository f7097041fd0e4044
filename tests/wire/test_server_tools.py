"""What an engine sees of server tools in the history, and how their calls are read in an answer."""

from typing import Any

import pytest

from anthro_asgi import Block, Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.deltas import MessageFields
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.server_calls import ServerCall, ServerCallReader, UsageSum
from anthro_asgi.wire.server_tools import function_result, tool_search_error, tool_search_result, with_calls

Json = dict[str, Any]
NAMES = frozenset({"tool_search_tool_bm25", "shout"})


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def use(identity: str, name: str = "tool_search_tool_bm25", kind: str = "server_tool_use") -> Json:
    return {"type": kind, "id": identity, "name": name, "input": {"query": "x"}}


def turns(*content: Json) -> list[Json]:
    return run_to_end(with_calls([{"role": "assistant", "content": list(content)}], NAMES))


def shape(messages: list[Json]) -> list[tuple[str, list[str]]]:
    return [(message["role"], [block["type"] for block in message["content"]]) for message in messages]


@pytest.mark.clause("3.47")
def test_calls_and_results_become_turns() -> None:
    content = [text("a"), use("1"), use("2"), tool_search_result("1", ["x"]), tool_search_result("2", []), text("b")]
    messages = turns(*content)
    assert shape(messages) == [
        ("assistant", ["text", "tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result"]),
        ("assistant", ["text"]),
    ]
    assert [block["content"] for block in messages[1]["content"]] == [
        "These tools can be called now: x",
        "No tool matches. Try other words.",
    ]


def test_an_answer_that_ends_in_results_ends_in_a_user_turn() -> None:
    assert shape(turns(use("1"), tool_search_result("1", ["x"]))) == [
        ("assistant", ["tool_use"]),
        ("user", ["tool_result"]),
    ]


def test_a_failure_is_an_error_for_the_model() -> None:
    (result,) = turns(use("1"), tool_search_error("1", "invalid_tool_input", "query: bad"))[1]["content"]
    assert (result["content"], result["is_error"]) == ("invalid_tool_input: query: bad", True)


def test_the_result_of_a_function_keeps_its_blocks() -> None:
    call = use("1", "shout", "mcp_tool_use")
    (result,) = turns(call, function_result("1", "HEY", is_error=False))[1]["content"]
    assert result == {"type": "tool_result", "tool_use_id": "1", "content": [text("HEY")]}
    (failed,) = turns(call, function_result("1", "", is_error=True))[1]["content"]
    assert failed == {"type": "tool_result", "tool_use_id": "1", "content": "", "is_error": True}


@pytest.mark.parametrize(
    "content",
    [
        [text("a")],
        [use("1")],
        [tool_search_result("1", ["x"]), use("1")],
        [use("1", "web_fetch"), tool_search_result("1", ["x"])],
    ],
)
def test_what_is_no_call_with_a_later_result_stays_as_it_is(content: list[Json]) -> None:
    message = {"role": "assistant", "content": content}
    assert run_to_end(with_calls([message], NAMES))[0] is message


def test_a_strange_result_of_a_search_is_readable() -> None:
    contents: list[Any] = [[], {"tool_references": "x"}, {"tool_references": [1, {"tool_name": 2}]}]
    for content in contents:
        block = {"type": "tool_search_tool_result", "tool_use_id": "1", "content": content}
        assert type(turns(use("1"), block)[1]["content"][0]["content"]) is str


# reading an answer


def reader() -> ServerCallReader:
    return ServerCallReader({"find": "server_tool_use", "shout": "mcp_tool_use"}, "us", lambda kind: f"{kind}_1")


def fed(*deltas: Delta) -> tuple[ServerCallReader, list[Delta]]:
    reading = reader()
    out: list[Delta] = []
    for delta in deltas:
        out += reading.feed(delta)
    return reading, out


def test_a_call_becomes_one_whole_block_when_it_ends() -> None:
    reading, out = fed("a", ToolStart("c", "find"), ToolJson('{"query"'), ToolJson(':"x"}'), Usage(1), "b")
    start = {"type": "server_tool_use", "id": "server_tool_use_1", "name": "find", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": '{"query":"x"}'}
    assert out == ["a", Block({**start, "input": {"query": "x"}}, start, [delta]), "b"]
    assert reading.calls == [ServerCall("server_tool_use_1", "find", {"query": "x"})]


def test_a_call_of_a_function_names_the_server() -> None:
    _, out = fed(ToolStart("c", "shout"), Finish("tool_use"))
    block = {"type": "mcp_tool_use", "id": "mcp_tool_use_1", "name": "shout", "input": {}, "server_name": "us"}
    assert out == [Block(block, block, [])]


def test_calls_of_client_tools_pass() -> None:
    deltas: list[Delta] = [Thinking("t"), ToolStart("c", "look"), ToolJson("{}"), MessageFields({"container": 1})]
    reading, out = fed(*deltas, Finish("tool_use"))
    assert out == deltas
    assert (reading.calls, reading.has_client_calls, reading.finish) == ([], True, Finish("tool_use"))


def test_arguments_that_cannot_be_read_are_none() -> None:
    reading, out = fed(ToolStart("c", "find"), ToolJson("]"), Finish("tool_use"))
    assert reading.calls[0].input is None
    assert isinstance(out[0], Block)
    assert out[0].content["input"] == {}


def test_an_open_call_at_max_tokens_is_left_out() -> None:
    reading, out = fed(ToolStart("c", "find"), ToolJson('{"que'), Finish("max_tokens"))
    assert (out, reading.calls) == ([], [])


# usage


def test_a_compaction_is_listed_and_not_summed() -> None:
    usage = UsageSum()
    usage.add(Usage(500, 50), "compaction")
    usage.add(Usage(10, 1, 3, None, 1, {"service_tier": "standard"}))
    usage.add(Usage(20, 2))
    total = usage.total
    assert (total.input_tokens, total.output_tokens, total.cache_read_input_tokens) == (30, 3, 3)
    assert (total.cache_creation_input_tokens, total.thinking_tokens) == (None, 1)
    assert total.details is not None
    assert total.details["service_tier"] == "standard"
    assert [(entry["type"], entry["input_tokens"]) for entry in total.details["iterations"]] == [
        ("compaction", 500),
        ("message", 10),
        ("message", 20),
    ]
    assert total.details["iterations"][2]["cache_read_input_tokens"] == 0


def test_uses_of_a_server_tool_are_counted() -> None:
    usage = UsageSum()
    usage.count_tool_use("web_search_requests")
    usage.add(Usage(1, 1))
    usage.count_tool_use("web_search_requests")
    assert usage.total.details is not None
    assert usage.total.details["server_tool_use"] == {"web_fetch_requests": 0, "web_search_requests": 2}
