"""The scripted application: what clients get, and what it records of their requests."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from anthro_asgi import Finish, MessagesApp, Overloaded, Thinking, Usage
from anthro_asgi.conformance.grammar import Event, check_stream, message_from_events, parse_events
from anthro_asgi.testing import Cut, ScriptedApp, ScriptedEngine, SeenRequest, Stall, ToolCall, error, matching
from anthro_asgi.testing.driver import ConnectionDropped, Driver, Response
from tests.support.clock import fake_clock


def body(text: Any = "Hi", **changes: Any) -> bytes:
    return json.dumps(
        {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **changes}
    ).encode()


async def ask(app: Any, text: Any = "Hi", **changes: Any) -> Response:
    return await Driver(app).request("POST", "/v1/messages", body=body(text, **changes))


async def ask_stream(app: Any, text: Any = "Hi", **changes: Any) -> list[Event]:
    response = await ask(app, text, stream=True, **changes)
    assert response.status == 200, response.body
    events = parse_events(response.body)
    check_stream(events)
    return events


# replies


async def test_the_replies_of_an_agent_run_come_in_order() -> None:
    call = ToolCall("get_weather", {"city": "Paris"})
    app = ScriptedApp(error(429, "slower", retry_after=2), call, "It is sunny.")
    refused = await ask(app)
    assert (refused.status, refused.header("retry-after")) == (429, "2")
    assert refused.json()["error"] == {"type": "rate_limit_error", "message": "slower"}
    called = (await ask(app)).json()
    assert called["stop_reason"] == "tool_use"
    (block,) = called["content"]
    assert (block["type"], block["id"], block["name"], block["input"]) == (
        "tool_use",
        call.id,
        "get_weather",
        {"city": "Paris"},
    )
    said = (await ask(app)).json()
    assert (said["content"], said["stop_reason"]) == ([{"type": "text", "text": "It is sunny."}], "end_turn")
    app.check_all_used()


REPLIES: dict[str, Any] = {
    "text": "one two three",
    "steps": [Thinking("hm"), "He", "llo", Usage(7, 9), Finish("max_tokens")],
    "call": ["Let me look.", ToolCall("look", {"at": ["sky", 1]}, id="toolu_1"), ToolCall("wait", id="toolu_2")],
}


@pytest.mark.parametrize("name", REPLIES)
async def test_a_reply_is_the_same_message_streamed_and_whole(name: str) -> None:
    app = ScriptedApp(REPLIES[name], REPLIES[name])
    streamed = message_from_events(await ask_stream(app))
    whole = (await ask(app)).json()
    for message in (streamed, whole):
        message.pop("id")
    assert streamed == whole


async def test_a_text_is_streamed_word_by_word() -> None:
    events = await ask_stream(ScriptedApp("one two three"))
    deltas = [event.data["delta"]["text"] for event in events if event.type == "content_block_delta"]
    assert deltas == ["one", " two", " three"]


async def test_an_error_after_content_is_an_error_event_in_a_stream_and_a_status_otherwise() -> None:
    app = ScriptedApp(["Hel", error(529, "busy")], ["Hel", error(529, "busy")])
    response = await ask(app, stream=True)
    assert response.status == 200
    last = parse_events(response.body)[-1]
    assert (last.type, last.data["error"]) == ("error", {"type": "overloaded_error", "message": "busy"})
    assert (await ask(app)).status == 529


async def test_an_error_can_be_used_again() -> None:
    app = ScriptedApp()
    app.otherwise(Overloaded())
    assert [(await ask(app)).status for _ in range(3)] == [529, 529, 529]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_before_any_content_gives_no_response(stream: bool) -> None:
    app = ScriptedApp(Cut())
    with pytest.raises(ConnectionDropped, match="before the response began"):
        await ask(app, stream=stream)
    assert (app.requests[0].status, app.requests[0].client_left) == (None, False)


async def test_a_cut_in_a_stream_ends_it_after_what_was_sent() -> None:
    app = ScriptedApp(["Hel", "lo", Cut(), "never"])
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        assert (await exchange.started()).status == 200
        received = [await exchange.chunk() or b"" for _ in range(2)]
        with pytest.raises(ConnectionDropped, match="before the response was complete"):
            await exchange.chunk()
    assert b'"Hel"' in received[0]
    assert b'"lo"' in received[1]


async def test_a_server_without_a_way_to_cut_gets_an_incomplete_response() -> None:
    """As uvicorn does, the server then closes the connection."""
    app = ScriptedApp(["Hel", Cut()])
    sent: list[Any] = []
    pieces = [{"type": "http.request", "body": body(stream=True)}]

    async def receive() -> Any:
        return pieces.pop() if pieces else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/v1/messages", "headers": []}, receive, send)
    assert (sent[0]["type"], sent[0]["status"]) == ("http.response.start", 200)
    assert all(message["more_body"] for message in sent[1:])


@fake_clock
async def test_a_stall_lasts_as_long_as_it_says_and_gets_pings() -> None:
    app = ScriptedApp(["Hel", Stall(25), "lo"], ping_interval=10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await Driver(app, timeout=1000).request("POST", "/v1/messages", body=body(stream=True))
    assert loop.time() - began == pytest.approx(25)
    events = parse_events(response.body)
    assert [event.type for event in events].count("ping") >= 2
    assert message_from_events(events)["content"] == [{"type": "text", "text": "Hello"}]


async def test_a_stall_without_an_end_lasts_until_the_client_leaves() -> None:
    app = ScriptedApp(["Hel", Stall(), "never"])
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        await exchange.started()
        assert b"Hel" in (await exchange.chunk() or b"")
        exchange.disconnect()
    app.requests[0].wait_ended(0)
    assert app.requests[0].client_left


# which reply


async def test_replies_can_be_chosen_by_the_request() -> None:
    app = ScriptedApp()
    app.when(matching(text="weather"), "Sunny.")
    app.when(lambda request: "stream" in request.headers.get("x-mode", ""), lambda request: request.headers["x-mode"])
    app.otherwise("Hello.")
    assert (await ask(app, "The weather?")).json()["content"][0]["text"] == "Sunny."
    assert (await ask(app)).json()["content"][0]["text"] == "Hello."
    special = await Driver(app).request("POST", "/v1/messages", headers=[("X-Mode", "stream 2")], body=body())
    assert special.json()["content"][0]["text"] == "stream 2"


async def test_while_nothing_is_scripted_the_simulator_answers() -> None:
    app = ScriptedApp()
    assert (await ask(app)).json()["content"][0]["text"]
    app.check()


async def test_a_request_beyond_the_script_is_refused_and_fails_the_check() -> None:
    app = ScriptedApp("one")
    assert (await ask(app)).status == 200
    app.check()
    refused = await ask(app, "and more?")
    assert (refused.status, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "no reply left" in refused.json()["error"]["message"]
    with pytest.raises(AssertionError, match=r"1 request had no reply in the script: 'and more\?'"):
        app.check()


async def test_the_simulator_may_answer_beyond_the_script() -> None:
    app = ScriptedApp("one")
    app.simulate(output_tokens=3)
    assert (await ask(app)).json()["content"][0]["text"] == "one"
    assert (await ask(app)).json()["usage"]["output_tokens"] == 3
    app.check()


async def test_an_exception_in_a_function_of_the_script_fails_the_check_and_is_not_retried() -> None:
    def reply(request: SeenRequest) -> str:
        assert request.model == "claude"
        return "never"

    app = ScriptedApp(reply)
    assert (await ask(app)).status == 400
    with pytest.raises(AssertionError, match="the script failed") as caught:
        app.check()
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_unused_replies_are_named() -> None:
    app = ScriptedApp("one", ToolCall("look"))
    await ask(app)
    app.check()
    with pytest.raises(AssertionError, match=r"1 reply was not used: ToolCall\(name='look'"):
        app.check_all_used()


async def test_reset_forgets_the_script_and_the_requests() -> None:
    app = ScriptedApp("one")
    await ask(app)
    await ask(app)
    app.reset()
    app.check()
    assert app.all_requests == []
    assert (await ask(app)).status == 200


# what was asked


async def test_a_request_is_recorded_with_its_headers_and_its_parsed_form() -> None:
    app = ScriptedApp("one")
    headers = [("X-Api-Key", "k"), ("Anthropic-Beta", "a"), ("anthropic-beta", "b")]
    await Driver(app).request("POST", "/v1/messages", query=b"beta=true", headers=headers, body=body("x"))
    (seen,) = app.requests
    assert (seen.method, seen.path, seen.query, seen.status) == ("POST", "/v1/messages", "beta=true", 200)
    assert (seen.headers["x-api-key"], seen.headers["anthropic-beta"]) == ("k", "a, b")
    assert seen.raw_body == body("x")
    assert seen.body == json.loads(body("x"))
    assert seen.parsed is not None
    assert seen.parsed.messages == [{"role": "user", "content": "x"}]
    assert not seen.client_left


async def test_a_request_that_is_refused_is_recorded_too() -> None:
    app = ScriptedApp(keys=["sk-right"])
    await ask(app)
    (unauthenticated,) = app.requests
    assert (unauthenticated.status, unauthenticated.parsed) == (401, None)
    response = await Driver(app).request("POST", "/v1/messages", headers=[("x-api-key", "sk-right")], body=b"[1]")
    assert response.status == 400
    assert (app.requests[1].status, app.requests[1].body, app.requests[1].raw_body) == (400, {}, b"[1]")


async def test_the_body_of_a_compressed_request_is_its_json() -> None:
    app = ScriptedApp("one")
    headers = [("content-encoding", "gzip")]
    await Driver(app).request("POST", "/v1/messages", headers=headers, body=gzip.compress(body("zipped")))
    assert app.requests[0].text == "zipped"


async def test_a_body_in_pieces_is_recorded_whole() -> None:
    app = ScriptedApp("one")
    whole = body("in pieces")
    await Driver(app).request("POST", "/v1/messages", body=[whole[:10], whole[10:30], whole[30:]])
    assert app.requests[0].raw_body == whole
    assert app.requests[0].text == "in pieces"


async def test_other_routes_are_recorded_apart() -> None:
    app = ScriptedApp(models=["claude-test"])
    driver = Driver(app)
    listed = await driver.request("GET", "/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == ["claude-test"]
    counted = await driver.request("POST", "/v1/messages/count_tokens", body=body("Count me"))
    assert counted.json()["input_tokens"] > 0
    assert app.requests == []
    assert [(seen.path, seen.text) for seen in app.all_requests] == [
        ("/v1/models", ""),
        ("/v1/messages/count_tokens", "Count me"),
    ]


async def test_waiting_for_requests_is_bounded() -> None:
    app = ScriptedApp("one")
    await ask(app)
    assert len(app.wait_for_requests(1)) == 1
    with pytest.raises(TimeoutError, match=r"1 of 2 requests arrived within 0\.01 s"):
        app.wait_for_requests(2, timeout=0.01)


async def test_the_engine_can_be_used_in_an_application_of_ones_own() -> None:
    engine = ScriptedEngine()
    engine.script.when(matching(text="weather"), "Sunny.")
    app = MessagesApp(engine)
    assert (await ask(app, "weather?")).json()["content"][0]["text"] == "Sunny."
    assert (await ask(app, "time?")).status == 400
    assert [seen.text for seen in engine.script.unexpected] == ["time?"]
    assert repr(engine) == "<ScriptedEngine unused=0>"


async def test_the_lifespan_is_that_of_the_application() -> None:
    app = ScriptedApp("one")
    async with Driver(app).lifespan():
        assert (await ask(app)).status == 200
    assert app.all_requests[0].status == 200
