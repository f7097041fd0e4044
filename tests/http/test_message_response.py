"""Responses to `POST /v1/messages`, chunk by chunk, with clients that disconnect (contract sections 4 and 5)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp, Signature, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.conformance.grammar import Event, check_stream, message_from_events, parse_events
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.errors import ApiError, Overloaded, RateLimited
from tests.support.clock import fake_clock

PATIENCE = 1000.0  # seconds, most of them of the fake clock
HELLO = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def body(**changes: Any) -> bytes:
    return orjson.dumps({**HELLO, **changes})


def app_of(*steps: Any, **options: Any) -> MessagesApp:
    """An app over an engine that yields these steps; an exception is raised, a callable awaited first."""

    class Scripted:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if callable(step):
                    await step()
                else:
                    yield step

    return MessagesApp(Scripted(), **options)


async def streamed(app: MessagesApp, **changes: Any) -> list[Event]:
    response = await Driver(app, PATIENCE).request("POST", "/v1/messages", body=body(stream=True, **changes))
    assert response.status == 200, response.body
    events = parse_events(response.body)
    check_stream(events)
    return events


async def whole(app: MessagesApp, **changes: Any) -> dict[str, Any]:
    response = await Driver(app, PATIENCE).request("POST", "/v1/messages", body=body(**changes))
    assert response.status == 200, response.body
    whole: dict[str, Any] = response.json()
    return whole


def content_of(message: dict[str, Any]) -> tuple[Any, ...]:
    return message["content"], message["stop_reason"], message["stop_sequence"], message["usage"]


SCRIPTS: dict[str, list[Any]] = {
    "text": ["Hel", "lo", Finish("end_turn")],
    "batches": [["Hel", "lo"], [" there", Usage(3, 4), Finish("max_tokens")]],
    "thinking": [Thinking("hm"), Thinking("m"), "yes", Finish("end_turn")],
    "signed thinking": [Thinking("hm"), Signature("c2ln"), "yes", Finish("end_turn")],
    "tool": ["let me", ToolStart("toolu_1", "w"), ToolJson('{"a":'), ToolJson("1}"), Finish("end_turn")],
    "two tools and text": [
        ToolStart("toolu_1", "w"),
        ToolJson('{"a":[1,"}"]}'),
        "between",
        ToolStart("toolu_2", "v"),
        [ToolJson("{}"), "after", Finish("tool_use")],
    ],
    "tool without arguments": [ToolStart("toolu_1", "w"), Finish("tool_use")],
    "multibyte": ["caf", "é ", "漢字", "🙂", Finish("end_turn")],
    "empty text only": ["", Finish("end_turn")],
    "nothing": [Finish("end_turn")],
    "refusal": ["I can't", Finish("refusal")],
    "early usage": [Usage(11, None, 5), "a", [Usage(output_tokens=1), Finish("end_turn")]],
    "stop told by the engine": ["abc", Finish("stop_sequence", "END")],
}


@pytest.mark.clause("5.17")
@pytest.mark.parametrize("name", SCRIPTS)
async def test_streaming_and_non_streaming_answers_to_the_same_output_are_equal(name: str) -> None:
    app = app_of(*SCRIPTS[name])
    folded = message_from_events(await streamed(app))
    assert content_of(folded) == content_of(await whole(app))


@pytest.mark.clause("4.1")
async def test_a_message_has_all_its_keys() -> None:
    message = await whole(app_of("Hello", Usage(5, 1), Finish("end_turn")))
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 1},
    }


async def test_each_batch_of_the_engine_is_one_send() -> None:
    app = app_of("a", ["b", "c"], "d", Finish("end_turn"))
    async with Driver(app).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        chunks = []
        while (chunk := await exchange.chunk()) is not None:
            chunks.append(chunk.count(b"event: "))
    assert chunks == [3, 2, 1, 3]  # message_start, block start and delta; two deltas; a delta; the three ends


@pytest.mark.clause("5.1")
async def test_the_head_of_a_stream_has_the_headers_that_proxies_need() -> None:
    response = await Driver(app_of("a", Finish("end_turn"))).request("POST", "/v1/messages", body=body(stream=True))
    assert response.header("content-type") == "text/event-stream; charset=utf-8"
    assert response.header("cache-control") == "no-cache"
    assert response.header("x-accel-buffering") == "no"
    assert (response.header("request-id") or "").startswith("req_")


# errors


@pytest.mark.clause("5.14")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", [[], [Usage(3)], ["", Usage(3)]], ids=["nothing", "usage", "an empty text"])
async def test_an_error_before_the_first_output_keeps_its_own_status(stream: bool, before: list[Any]) -> None:
    limited = RateLimited("slow down", headers=(("retry-after", "7"),))
    app = app_of(*before, limited)
    response = await Driver(app).request("POST", "/v1/messages", body=body(stream=stream))
    assert (response.status, response.header("retry-after")) == (429, "7")
    assert response.json()["error"] == {"type": "rate_limit_error", "message": "slow down"}
    assert response.json()["request_id"] == response.header("request-id")


@pytest.mark.clause("7.12")
async def test_an_error_in_mid_stream_is_an_event_and_the_end() -> None:
    response = await Driver(app_of("a", Overloaded())).request("POST", "/v1/messages", body=body(stream=True))
    events = parse_events(response.body)
    check_stream(events)
    assert events[-1].data["error"]["type"] == "overloaded_error"
    assert events[-1].data["request_id"] == response.header("request-id")


@pytest.mark.clause("5.16")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_ends_without_finish_has_failed(stream: bool) -> None:
    response = await Driver(app_of("a")).request("POST", "/v1/messages", body=body(stream=stream))
    if stream:
        assert parse_events(response.body)[-1].data["error"]["type"] == "api_error"
        assert b"end_turn" not in response.body
    else:
        assert response.status == 502


@pytest.mark.clause("7.4")
async def test_a_bug_of_the_engine_is_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    response = await Driver(app_of(ValueError("secret prompt"))).request("POST", "/v1/messages", body=body())
    assert response.status == 500
    assert response.json()["error"] == {"type": "api_error", "message": "internal error"}
    assert "ValueError" in caplog.text
    assert "secret prompt" not in caplog.text


@pytest.mark.parametrize("nonsense", [42, ToolJson("{}"), None, [7]], ids=repr)
async def test_an_invalid_delta_in_mid_stream_ends_it_with_an_error(nonsense: Any) -> None:
    app = app_of("a", nonsense, Finish("end_turn"))
    response = await Driver(app).request("POST", "/v1/messages", body=body(stream=True))
    assert parse_events(response.body)[-1].type == "error"


# function engines


async def test_a_generator_function_is_a_complete_engine() -> None:
    async def engine(request: Any) -> AsyncIterator[str]:
        yield "Hel"
        yield "lo"

    message = await whole(MessagesApp(engine))
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["output_tokens"] == 2
    assert message_from_events(await streamed(MessagesApp(engine)))["content"] == message["content"]


# stop sequences


@pytest.mark.clause("4.7")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_sequence_is_found_across_deltas_and_closes_the_engine(stream: bool) -> None:
    closed = asyncio.Event()

    async def engine(request: Any) -> AsyncIterator[str]:
        try:
            for piece in ("one ", "t", "w", "o three", " four"):
                yield piece
            raise AssertionError("asked for more after the match")
        finally:
            closed.set()

    app = MessagesApp(engine)
    message = (
        message_from_events(await streamed(app, stop_sequences=["two"]))
        if stream
        else await whole(app, stop_sequences=["two"])
    )
    assert message["content"] == [{"type": "text", "text": "one "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "two")
    assert closed.is_set()


async def test_text_held_back_for_a_stop_sequence_that_does_not_come_is_sent() -> None:
    app = app_of("ab", "c<en", Finish("end_turn"))
    for message in (
        message_from_events(await streamed(app, stop_sequences=["<end>"])),
        await whole(app, stop_sequences=["<end>"]),
    ):
        assert message["content"] == [{"type": "text", "text": "abc<en"}]
        assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)


# hidden thinking


@pytest.mark.clause("3.10")
@pytest.mark.parametrize(("kind", "hidden"), [("disabled", True), ("adaptive", False)])
async def test_thinking_is_hidden_only_by_option_and_only_when_the_request_disabled_it(kind: str, hidden: bool) -> None:
    app = app_of(Thinking("hm"), Signature("x"), "yes", Finish("end_turn"), hide_thinking=True)
    message = await whole(app, thinking={"type": kind})
    assert [block["type"] for block in message["content"]] == (["text"] if hidden else ["thinking", "text"])


# clients that disconnect


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_disconnects_closes_the_engine(stream: bool) -> None:
    running, closed = asyncio.Event(), asyncio.Event()

    async def engine(request: Any) -> AsyncIterator[str]:
        try:
            yield "a"
            running.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Driver(MessagesApp(engine)).open("POST", "/v1/messages", body=body(stream=stream)) as exchange:
        await running.wait()
        exchange.disconnect()
        await closed.wait()


async def test_a_client_that_disconnects_before_the_first_output_closes_the_engine() -> None:
    running, closed = asyncio.Event(), asyncio.Event()

    async def engine(request: Any) -> AsyncIterator[str]:
        try:
            running.set()
            await asyncio.Event().wait()
            yield "never"
        finally:
            closed.set()

    async with Driver(MessagesApp(engine)).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        await running.wait()
        exchange.disconnect()
        await closed.wait()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["a", "", Thinking("hidden")], ids=["text", "nothing", "hidden"])
async def test_a_disconnect_is_noticed_although_the_engine_never_waits(first: Any, stream: bool) -> None:
    begun = asyncio.Event()

    async def engine(request: Any) -> AsyncIterator[Any]:
        while True:
            begun.set()
            yield first

    app = MessagesApp(engine, hide_thinking=True)
    asked = body(stream=stream, thinking={"type": "disabled"})
    async with Driver(app).open("POST", "/v1/messages", body=asked) as exchange:
        await begun.wait()
        exchange.disconnect()


async def test_a_slow_client_stops_reading_from_the_engine() -> None:
    pulled = 0

    async def engine(request: Any) -> AsyncIterator[str]:
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield "a"

    async with Driver(MessagesApp(engine)).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        exchange.hold()
        await exchange.blocked()
        assert pulled <= 2
        exchange.release()
        await exchange.rest()
    assert pulled == 1000


# pings


def wait(seconds: float) -> Callable[[], Any]:
    return lambda: asyncio.sleep(seconds)


@pytest.mark.clause("5.15")
@fake_clock
async def test_a_long_prefill_commits_the_stream_with_message_start_and_pings() -> None:
    app = app_of(wait(35), "a", Finish("end_turn"), ping_interval=10)
    types = [event.type for event in await streamed(app)]
    assert types[:5] == ["message_start", "ping", "ping", "ping", "content_block_start"]


@fake_clock
async def test_an_answer_that_starts_within_the_interval_has_no_ping() -> None:
    assert "ping" not in [
        event.type for event in await streamed(app_of(wait(9.9), "a", wait(9.9), "b", Finish("end_turn")))
    ]


@pytest.mark.clause("5.15")
@fake_clock
async def test_silence_in_mid_stream_is_filled_with_pings() -> None:
    types = [event.type for event in await streamed(app_of("a", wait(25), "b", Finish("end_turn"), ping_interval=10))]
    assert types == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "ping",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@fake_clock
async def test_pings_count_from_the_last_send_and_not_from_the_start() -> None:
    steps = [step for _ in range(5) for step in (wait(7), "a")]
    assert "ping" not in [event.type for event in await streamed(app_of(*steps, Finish("end_turn"), ping_interval=10))]


@pytest.mark.clause("5.15")
@fake_clock
async def test_an_error_after_pings_is_an_event() -> None:
    app = app_of(wait(15), Overloaded(), ping_interval=10)
    assert [event.type for event in await streamed(app)] == ["message_start", "ping", "error"]


@fake_clock
async def test_no_ping_is_sent_into_a_send_that_waits_for_a_slow_client() -> None:
    app = app_of("a", "b", Finish("end_turn"), ping_interval=10)
    async with Driver(app, PATIENCE).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        exchange.hold()
        await exchange.blocked()
        await asyncio.sleep(60)
        exchange.release()
        events = parse_events(await exchange.rest())
    check_stream(events)
    assert [event.type for event in events].count("ping") <= 1


@fake_clock
async def test_the_early_usage_of_a_long_prefill_is_in_message_start() -> None:
    app = app_of(Usage(1234), wait(15), "a", Finish("end_turn"), ping_interval=10)
    events = await streamed(app)
    assert events[0].data["message"]["usage"]["input_tokens"] == 1234


@fake_clock
async def test_a_whole_answer_has_no_pings_and_waits() -> None:
    assert (await whole(app_of(wait(100), "a", Finish("end_turn"))))["content"] == [{"type": "text", "text": "a"}]


# what engines raise


def test_every_error_an_engine_may_raise_has_its_own_status() -> None:
    def family(root: type[ApiError]) -> set[type[ApiError]]:
        return {root}.union(*map(family, root.__subclasses__()))

    kinds = family(ApiError)
    assert {kind.status for kind in kinds} == {
        400,
        401,
        402,
        403,
        404,
        405,
        408,
        413,
        415,
        429,
        431,
        500,
        502,
        504,
        529,
    }


async def test_an_engine_that_begins_with_a_misplaced_delta_still_gives_a_stream_by_the_grammar() -> None:
    response = await Driver(app_of(ToolJson("{}"))).request("POST", "/v1/messages", body=body(stream=True))
    assert [event.type for event in parse_events(response.body)] == ["message_start", "error"]


async def test_an_engine_that_begins_with_an_object_that_is_no_delta_is_an_internal_error() -> None:
    response = await Driver(app_of(42)).request("POST", "/v1/messages", body=body(stream=True))
    assert (response.status, response.json()["error"]["type"]) == (500, "api_error")


async def test_a_stream_the_server_cancels_ends_with_an_error_event() -> None:
    async def engine(request: Any) -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    app = MessagesApp(engine)
    task: asyncio.Task[Any] | None = None

    async def served(scope: Any, receive: Any, send: Any) -> None:
        nonlocal task
        task = asyncio.current_task()
        with pytest.raises(asyncio.CancelledError):
            await app(scope, receive, send)

    async with Driver(served).open("POST", "/v1/messages", body=body(stream=True)) as exchange:
        first = await exchange.chunk()
        assert task is not None
        task.cancel()
        events = parse_events((first or b"") + await exchange.rest())
    check_stream(events)
    assert events[-1].data["error"]["type"] == "overloaded_error"
