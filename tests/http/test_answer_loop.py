"""The answer loop: several answers of the engine are one answer for the client (contract 3.47 to 3.49)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import orjson
import pytest
from anthropic.types.beta import BetaMessage

from anthro_asgi import (
    BaseEngine,
    Batch,
    Finish,
    MessagesApp,
    MessagesRequest,
    Overloaded,
    RateLimited,
    Thinking,
    ToolFailed,
    Usage,
)
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.http.answer_loop import MAX_ROUNDS
from anthro_asgi.testing.driver import Driver
from anthro_asgi.testing.in_process import InProcessApp
from tests.support.scripted_engine import ScriptedAnswers, call, calling, saying

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True])


def tool(name: str, description: str, **properties: Json) -> Json:
    schema = {"type": "object", "properties": properties}
    return {"name": name, "description": description, "input_schema": schema, "defer_loading": True}


SEARCH: Json = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
BY_PATTERN: Json = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
WEATHER = tool("get_weather", "Tells the weather of a city.", city={"type": "string", "description": "The city."})
MAIL = tool("send_mail", "Sends an e-mail.", to={"type": "string"}, text={"type": "string"})
FOUND = call("tool_search_tool_bm25", {"query": "weather in Rome"})
ASKED: Json = {
    "model": "m",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
    "tools": [SEARCH, WEATHER, MAIL],
}


async def ask(app: MessagesApp, body: Json, *, stream: bool) -> BetaMessage:
    """The Message by Anthropic's SDK, which raises for what its types do not describe."""
    async with InProcessApp(app) as running:
        options: Any = {"max_retries": 0, "_strict_response_validation": True}
        async with running.client(anthropic.AsyncAnthropic, **options) as client:
            if not stream:
                whole: BetaMessage = await client.beta.messages.create(**body)
                return whole
            async with client.beta.messages.stream(**body) as events:
                final: BetaMessage = await events.get_final_message()
                return final


async def answered(engine: BaseEngine, body: Json, *, stream: bool = False, **options: Any) -> Json:
    """The Message as JSON. A stream is checked against the grammar."""
    app = MessagesApp(engine, **options)
    response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps({**body, "stream": stream}))
    assert response.status == 200, response.body
    if not stream:
        message: Json = response.json()
        return message
    events = parse_events(response.body)
    check_stream(events)
    return message_from_events(events)


def kinds(message: Json) -> list[str]:
    return [block["type"] for block in message["content"]]


def searching() -> ScriptedAnswers:
    return ScriptedAnswers(
        calling(FOUND, text="Let me look."), calling(call("get_weather", {"city": "Rome"}), counts=(300, 30))
    )


@pytest.mark.clause("3.47", "3.48")
@BOTH
async def test_a_search_and_the_call_of_a_found_tool_are_one_answer(stream: bool) -> None:
    engine = searching()
    message = await ask(MessagesApp(engine), ASKED, stream=stream)
    text, search, result, use = message.content
    assert text.type == "text"
    assert search.type == "server_tool_use"
    assert (search.name, search.input) == ("tool_search_tool_bm25", {"query": "weather in Rome"})
    assert result.type == "tool_search_tool_result"
    assert result.tool_use_id == search.id
    assert result.content.type == "tool_search_tool_search_result"
    assert [found.tool_name for found in result.content.tool_references] == ["get_weather"]
    assert use.type == "tool_use"
    assert (use.name, use.input, message.stop_reason) == ("get_weather", {"city": "Rome"}, "tool_use")
    assert engine.open == 0


@pytest.mark.clause("3.48")
def test_the_sync_client_streams_the_search_block_by_block() -> None:
    options: Any = {"max_retries": 0, "_strict_response_validation": True}
    with InProcessApp(MessagesApp(searching())) as running, running.client(anthropic.Anthropic, **options) as client:
        events = list(client.beta.messages.create(**ASKED, stream=True))
    starts = [event.content_block.type for event in events if event.type == "content_block_start"]
    assert starts == ["text", "server_tool_use", "tool_search_tool_result", "tool_use"]
    assert [event.type for event in events].count("message_delta") == 1
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


@pytest.mark.clause("3.48")
async def test_only_found_tools_are_offered() -> None:
    engine = searching()
    await answered(engine, ASKED)
    assert [[tool.name for tool in request.tools] for request in engine.requests] == [
        ["tool_search_tool_bm25"],
        ["tool_search_tool_bm25", "get_weather"],
    ]


@pytest.mark.clause("3.47")
async def test_the_engine_sees_the_search_as_a_call_and_its_result() -> None:
    engine = searching()
    await answered(engine, ASKED)
    question, turn, results = engine.requests[1].messages
    assert question == ASKED["messages"][0]
    assert [block["type"] for block in turn["content"]] == ["text", "tool_use"]
    assert turn["content"][1]["input"] == {"query": "weather in Rome"}
    (result,) = results["content"]
    assert result["type"] == "tool_result"
    assert result["content"] == "These tools can be called now: get_weather"
    assert engine.requests[1].raw["messages"] == engine.requests[1].messages
    assert [entry["name"] for entry in engine.requests[1].raw["tools"]] == ["tool_search_tool_bm25", "get_weather"]


@pytest.mark.clause("3.47")
@BOTH
async def test_usage_is_the_sum_and_lists_each_answer_of_the_engine(stream: bool) -> None:
    usage = (await ask(MessagesApp(searching()), ASKED, stream=stream)).usage
    assert (usage.input_tokens, usage.output_tokens) == (400, 40)
    assert usage.iterations is not None
    assert [(entry.type, entry.input_tokens, entry.output_tokens) for entry in usage.iterations] == [
        ("message", 100, 10),
        ("message", 300, 30),
    ]


async def test_message_start_has_the_count_of_the_first_answer() -> None:
    app = MessagesApp(ScriptedAnswers([Usage(input_tokens=77), *calling(FOUND)], saying("Sunny.")))
    response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps({**ASKED, "stream": True}))
    assert parse_events(response.body)[0].data["message"]["usage"]["input_tokens"] == 77


async def test_an_engine_that_counts_nothing_is_counted_here() -> None:
    engine = ScriptedAnswers([FOUND, Finish("tool_use")], ["Sun", "ny.", Finish("end_turn")])
    usage = (await answered(engine, ASKED))["usage"]
    assert [entry["output_tokens"] for entry in usage["iterations"]] == [3, 2]
    assert usage["input_tokens"] == sum(entry["input_tokens"] for entry in usage["iterations"]) > 0
    assert usage["output_tokens"] == 5


@pytest.mark.clause("3.48")
async def test_the_next_request_offers_what_an_earlier_one_has_found() -> None:
    engine = searching()
    content = (await answered(engine, ASKED))["content"]
    result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "Sunny."}
    turns = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    engine.answers.append(saying("It is sunny."))
    await answered(engine, {**ASKED, "messages": [*ASKED["messages"], *turns]})
    last = engine.requests[2]
    assert [tool.name for tool in last.tools] == [tool.name for tool in engine.requests[1].tools]
    assert last.messages[:3] == engine.requests[1].messages, "the prefix cache of the engine holds them"
    assert last.messages[3:] == [{"role": "assistant", "content": content[3:]}, {"role": "user", "content": [result]}]


async def test_a_history_with_a_search_needs_no_search_tool() -> None:
    engine = searching()
    content = (await answered(engine, ASKED))["content"]
    result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "Sunny."}
    turns = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    engine.answers.append(saying("It is sunny."))
    await answered(engine, {**ASKED, "messages": [*ASKED["messages"], *turns], "tools": [WEATHER, MAIL]})
    assert [tool.name for tool in engine.requests[2].tools] == ["get_weather"]


@BOTH
async def test_several_searches_are_answered_in_their_order(stream: bool) -> None:
    mail = call("tool_search_tool_regex", {"query": "(?i)SEND.*"}, "call_2")
    engine = ScriptedAnswers(calling(FOUND, mail), saying("Done."))
    message = await answered(engine, {**ASKED, "tools": [SEARCH, BY_PATTERN, WEATHER, MAIL]}, stream=stream)
    assert kinds(message) == ["server_tool_use"] * 2 + ["tool_search_tool_result"] * 2 + ["text"]
    uses, results = message["content"][:2], message["content"][2:4]
    found = [[entry["tool_name"] for entry in block["content"]["tool_references"]] for block in results]
    assert found == [["get_weather"], ["send_mail"]]
    assert [block["id"] for block in uses] == [block["tool_use_id"] for block in results]
    assert (message["stop_reason"], message["content"][4]["text"]) == ("end_turn", "Done.")


@BOTH
async def test_a_call_of_a_client_tool_beside_a_search_ends_the_answer(stream: bool) -> None:
    look = {"name": "look", "input_schema": {"type": "object"}}
    engine = ScriptedAnswers(calling(FOUND, call("look", {"at": 1}, "call_2")))
    message = await answered(engine, {**ASKED, "tools": [*ASKED["tools"], look]}, stream=stream)
    assert kinds(message) == ["server_tool_use", "tool_use", "tool_search_tool_result"]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", [{"query": "("}, {}, "]"])
async def test_a_search_that_fails_is_a_result_that_the_model_reads(arguments: object) -> None:
    engine = ScriptedAnswers(calling(call("tool_search_tool_regex", arguments)), saying("Sorry."))
    message = await ask(MessagesApp(engine), {**ASKED, "tools": [BY_PATTERN, WEATHER]}, stream=False)
    result = message.content[1]
    assert result.type == "tool_search_tool_result"
    assert result.content.type == "tool_search_tool_result_error"
    assert result.content.error_code == "invalid_tool_input"
    assert engine.requests[1].messages[-1]["content"][0]["is_error"] is True


@pytest.mark.clause("3.47")
@BOTH
async def test_an_engine_that_never_stops_searching_pauses_the_turn(stream: bool) -> None:
    engine = ScriptedAnswers(*[calling(FOUND)] * MAX_ROUNDS)
    message = await answered(engine, ASKED, stream=stream)
    assert message["stop_reason"] == "pause_turn"
    assert len(engine.requests) == MAX_ROUNDS
    assert kinds(message) == ["server_tool_use", "tool_search_tool_result"] * MAX_ROUNDS


@pytest.mark.clause("3.47")
async def test_all_answers_of_the_engine_share_max_tokens() -> None:
    engine = ScriptedAnswers(calling(FOUND, counts=(100, 40)), calling(FOUND, counts=(100, 60)))
    message = await answered(engine, {**ASKED, "max_tokens": 100})
    assert [request.max_tokens for request in engine.requests] == [100, 60]
    assert message["stop_reason"] == "max_tokens"


@BOTH
async def test_a_search_that_max_tokens_cuts_is_left_out(stream: bool) -> None:
    engine = ScriptedAnswers(["Let me", FOUND[:2], [Usage(9, 9), Finish("max_tokens")]])
    message = await answered(engine, ASKED, stream=stream)
    assert kinds(message) == ["text"]
    assert message["stop_reason"] == "max_tokens"


async def test_a_choice_that_forces_a_call_holds_for_the_first_answer_only() -> None:
    engine = ScriptedAnswers(calling(FOUND), saying("Done."))
    choice = {"type": "tool", "name": "tool_search_tool_bm25", "disable_parallel_tool_use": True}
    await answered(engine, {**ASKED, "tool_choice": choice})
    choices = [request.tool_choice for request in engine.requests]
    assert [(one.type, one.name, one.parallel) for one in choices if one is not None] == [
        ("tool", "tool_search_tool_bm25", False),
        ("auto", None, False),
    ]


@BOTH
async def test_a_stop_sequence_matches_in_any_answer_and_ends_the_loop(stream: bool) -> None:
    engine = ScriptedAnswers(calling(FOUND, text="one"), saying("two STOP three"))
    message = await answered(engine, {**ASKED, "stop_sequences": ["STOP"]}, stream=stream)
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "STOP")
    assert message["content"][-1] == {"type": "text", "text": "two "}


async def test_the_engine_gets_its_thinking_back_also_if_the_client_does_not() -> None:
    engine = ScriptedAnswers([Thinking("Hm"), *calling(FOUND)], saying("Done."))
    message = await answered(engine, {**ASKED, "thinking": {"type": "adaptive", "display": "omitted"}})
    assert message["content"][0]["thinking"] == ""
    assert engine.requests[1].messages[1]["content"][0]["thinking"] == "Hm"


# failures


async def test_a_failure_of_the_first_answer_has_its_own_status() -> None:
    with pytest.raises(anthropic.RateLimitError):
        await ask(MessagesApp(ScriptedAnswers([RateLimited("later")])), ASKED, stream=True)


async def test_a_failure_of_a_later_answer_ends_the_stream_with_an_error() -> None:
    engine = ScriptedAnswers(calling(FOUND), [Overloaded("busy")])
    driver = Driver(MessagesApp(engine))
    response = await driver.request("POST", "/v1/messages", body=orjson.dumps({**ASKED, "stream": True}))
    events = parse_events(response.body)
    check_stream(events)
    assert (events[-1].type, events[-1].data["error"]["type"]) == ("error", "overloaded_error")
    assert engine.open == 0


class Endless(BaseEngine):
    """Searches, and then never says anything. `waiting` is set while it does."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.closed = False
        self._asked = False

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        if not self._asked:
            self._asked = True
            yield [*FOUND, Finish("tool_use")]
            return
        try:
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True
        yield ""


@pytest.mark.clause("3.47")
async def test_a_client_that_leaves_in_a_later_answer_closes_the_engines_stream() -> None:
    engine = Endless()
    app = MessagesApp(engine, max_concurrency=1)
    async with Driver(app).open("POST", "/v1/messages", body=orjson.dumps({**ASKED, "stream": True})) as client:
        await engine.waiting.wait()
        client.disconnect()
    assert engine.closed
    engine._asked = False
    assert (await Driver(app).request("POST", "/v1/messages", body=orjson.dumps({**ASKED, "tools": []}))).status == 200


@pytest.mark.clause("3.47")
async def test_one_deadline_holds_for_all_answers_of_the_engine() -> None:
    app = MessagesApp(Endless(), total_deadline=0.01)
    response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps(ASKED))
    assert (response.status, response.json()["error"]["type"]) == (504, "timeout_error")


# functions of the embedding application


async def shout(arguments: Json) -> str:
    return str(arguments["text"]).upper()


SHOUT: Json = {**tool("shout", "Shouts.", text={"type": "string"}), "defer_loading": False}


@pytest.mark.clause("3.49")
@BOTH
async def test_a_function_of_the_application_runs_a_call_inside_the_answer(stream: bool) -> None:
    engine = ScriptedAnswers(calling(call("shout", {"text": "hey"})), saying("HEY it is."))
    app = MessagesApp(engine, server_tools={"shout": shout})
    message = await ask(app, {**ASKED, "tools": [SHOUT]}, stream=stream)
    use, result, text = message.content
    assert use.type == "mcp_tool_use"
    assert (use.name, use.server_name, use.input) == ("shout", "anthro-asgi", {"text": "hey"})
    assert result.type == "mcp_tool_result"
    assert isinstance(result.content, list)
    assert ([block.text for block in result.content], result.is_error) == (["HEY"], False)
    assert text.type == "text"
    assert engine.requests[1].messages[-1]["content"][0]["content"] == [{"type": "text", "text": "HEY"}]


@pytest.mark.clause("3.49")
async def test_a_deferred_function_is_found_and_run_in_the_same_answer() -> None:
    find = call("tool_search_tool_bm25", {"query": "shout"})
    engine = ScriptedAnswers(calling(find), calling(call("shout", {"text": "hey"})), saying("HEY it is."))
    body = {**ASKED, "tools": [SEARCH, WEATHER, {**SHOUT, "defer_loading": True}]}
    message = await answered(engine, body, server_tools={"shout": shout})
    assert kinds(message) == [
        "server_tool_use",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "text",
    ]


@pytest.mark.clause("3.49")
async def test_a_function_runs_only_for_requests_that_declare_its_tool() -> None:
    engine = ScriptedAnswers(saying("Hi."))
    message = await answered(engine, {**ASKED, "tools": []}, server_tools={"shout": shout})
    assert engine.requests[0].server_tools == {}
    assert "iterations" not in message["usage"]


async def refuse(arguments: Json) -> str:
    raise ToolFailed("too loud")


async def crash(arguments: Json) -> str:
    raise ValueError("secret")


@pytest.mark.clause("3.49")
@pytest.mark.parametrize(("function", "text"), [(refuse, "too loud"), (crash, "the tool failed")])
async def test_the_model_reads_why_a_function_failed(
    function: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedAnswers(calling(call("shout")), saying("Sorry."))
    message = await answered(engine, {**ASKED, "tools": [SHOUT]}, server_tools={"shout": function})
    assert message["content"][1]["is_error"] is True
    assert message["content"][1]["content"] == [{"type": "text", "text": text}]
    assert ("secret" in caplog.text) is (function is crash)
    assert engine.requests[1].messages[-1]["content"][0]["is_error"] is True


async def test_a_request_without_server_tools_reaches_the_engine_unchanged() -> None:
    engine = ScriptedAnswers(saying("Hi."))
    message = await answered(engine, {**ASKED, "tools": [{**MAIL, "defer_loading": False}]})
    assert message["usage"] == {"input_tokens": 200, "output_tokens": 20}
