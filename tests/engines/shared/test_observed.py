"""What an engine tells of its upstream to whoever counts: failures, mends, connections."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, get_args

import orjson
import pytest

from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import model_list
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Deadlines
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.repairs import REPAIRS, Repair
from anthro_asgi.wire.request import MessagesRequest
from tests.support.chat_requests import request
from tests.support.upstream import Answer, Wire, json_answer, raw_answer
from tests.support.upstream_engines import (
    SPEECHES,
    Chat,
    Engine,
    Messages,
    Speech,
    both_engines,
    endless,
    over,
    said,
    stream,
)

CHAT, MESSAGES = Chat(), Messages()
SHORT = 0.05  # seconds


class Told:
    """Stands where metrics are."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.repairs: Counter[str] = Counter()
        self.learned: list[str] = []

    def __call__(self, what: str, kind: str) -> None:
        match what:
            case "upstream_error":
                self.failures.append(kind)
            case "repair":
                self.repairs[kind] += 1
            case "learned":
                self.learned.append(kind)
            case _:
                raise AssertionError(what)


@asynccontextmanager
async def observed(speech: Speech, *answers: Answer, **options: Any) -> AsyncIterator[tuple[Engine, Told]]:
    async with over(speech, *answers, **options) as (_, engine):
        engine.observe = told = Told()
        yield engine, told


# failures


async def silent(wire: Wire) -> None:
    await wire.gone()


async def without_output(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await wire.gone()


async def stalled(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n")
    await wire.gone()


async def trickle(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    while True:
        await wire.send(b": a\n")
        await asyncio.sleep(SHORT / 10)


async def reset(wire: Wire) -> None:
    wire.reset()


FAILURES: list[tuple[str, Answer, dict[str, Any]]] = [
    ("timeout_first_byte", silent, {"deadlines": Deadlines(first_byte=SHORT)}),
    ("timeout_first_byte", without_output, {"deadlines": Deadlines(first_byte=SHORT, silence=SHORT / 10)}),
    ("timeout_silence", stalled, {"deadlines": Deadlines(silence=SHORT)}),
    ("timeout_total", trickle, {"deadlines": Deadlines(total=SHORT)}),
    ("broken", reset, {}),
    ("broken", b"SSH-2.0\r\n\r\n", {}),
    ("too_large", stream(b"data: " + b"x" * 2000), {"limits": AnswerLimits(max_event=1000)}),
    ("too_large", json_answer(200, "x" * 2000), {"limits": AnswerLimits(max_answer=1000)}),
    ("too_large", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, {}),
    ("status_4xx", json_answer(400, {"error": {"message": "no"}}), {}),
    ("status_4xx", json_answer(401, {}), {}),
    ("status_4xx", json_answer(408, {}), {}),
    ("status_4xx", json_answer(429, {}), {}),
    ("status_5xx", json_answer(500, {}), {}),
    ("status_5xx", json_answer(503, {}), {}),
    ("status_5xx", json_answer(599, {}), {}),
    ("invalid_response", json_answer(600, {}), {}),
    ("invalid_response", json_answer(204, {}), {}),
    ("invalid_response", raw_answer(302, [("location", "http://127.0.0.1:1/"), ("content-length", "0")]), {}),
    ("invalid_response", stream(b"data: {\n\n"), {}),
    ("ended_early", stream(), {}),
    ("invalid_response", raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>"), {}),
]


@both_engines
@pytest.mark.parametrize(("kind", "answer", "options"), FAILURES, ids=[kind for kind, *_ in FAILURES])
async def test_each_failure_is_counted_once_by_its_kind(
    speech: Speech, kind: str, answer: Answer, options: dict[str, Any]
) -> None:
    async with observed(speech, answer, **options) as (engine, told):
        with pytest.raises(ApiError):
            await said(engine)
        assert (told.failures, told.repairs) == ([kind], {})


@pytest.mark.parametrize(
    ("speech", "error", "reason"),
    [
        (CHAT, b'data: {"error":{"message":"no","code":400}}\n\n', "rejected"),
        (CHAT, b'data: {"error":{"message":"no","code":503}}\n\n', "stream_error"),
        (MESSAGES, b'data: {"type":"error","error":{"type":"invalid_request_error"}}\n\n', "rejected"),
        (MESSAGES, b'data: {"type":"error","error":{"type":"overloaded_error"}}\n\n', "stream_error"),
    ],
)
async def test_an_error_inside_a_stream_is_counted_as_a_kind_of_its_own(
    speech: Speech, error: bytes, reason: str
) -> None:
    async with observed(speech, stream(speech.begin(), speech.text("a"), error)) as (engine, told):
        with pytest.raises(ApiError) as caught:
            await said(engine)
        assert (told.failures, caught.value.reason) == (["stream_error"], reason)


@both_engines
async def test_an_unreachable_engine_is_counted(speech: Speech) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    engine = speech.engine(Origin.parse(f"http://127.0.0.1:{port}"))
    engine.observe = told = Told()
    with pytest.raises(ApiError):
        await said(engine)
    assert told.failures == ["connect"]
    await engine.stop()


@both_engines
async def test_an_engine_that_does_not_accept_a_connection_is_counted(speech: Speech) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # and no handshake
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        engine = speech.engine(Origin.parse(url), deadlines=Deadlines(connect=SHORT))
        engine.observe = told = Told()
        with pytest.raises(ApiError):
            await said(engine)
        assert told.failures == ["timeout_connect"]
        await engine.stop()


@pytest.mark.slow
@both_engines
async def test_an_exhausted_pool_is_counted(speech: Speech) -> None:
    flood = endless([speech.begin()], speech.text("a"))
    async with observed(speech, flood, limit=1, deadlines=Deadlines(connect=SHORT)) as (engine, told):
        async with aclosing(engine.stream(request())) as batches:  # type: ignore[type-var]
            await anext(batches)
            with pytest.raises(ApiError):
                await said(engine)
        assert told.failures == ["exhausted"]


@both_engines
async def test_a_request_that_cannot_be_encoded_is_not_an_upstream_failure(speech: Speech) -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    asked = MessagesRequest(
        "m", 1, [{"role": "user", "content": "Hi"}], output_schema=deep, raw={"messages": [], "x": deep}
    )
    async with (
        observed(speech, stream(), dialect="vllm") if speech is CHAT else observed(speech, stream()) as (
            engine,
            told,
        )
    ):
        with pytest.raises(ApiError, match="nested too deeply"):
            await said(engine, asked)
        assert told.failures == []


async def test_a_rejection_that_is_retried_is_counted_too() -> None:
    refusal = json_answer(400, {"error": {"message": "Unknown parameter: 'stream_options'"}})
    async with observed(CHAT, refusal, stream(CHAT.text("a"), CHAT.end())) as (engine, told):
        assert "a" in await said(engine)
        assert told.failures == ["status_4xx"]
        assert told.learned == ["never"]


@both_engines
async def test_an_error_after_the_finish_is_not_a_failure(speech: Speech) -> None:
    async def breaks(wire: Wire) -> None:
        await wire.send(stream(speech.begin(), speech.end().partition(b"data: [DONE]")[0])[:-5])
        wire.reset()

    async with observed(speech, breaks) as (engine, told):
        await said(engine)
        assert told.failures == []


# mends


def test_the_kinds_of_repairs_are_those_that_the_code_makes() -> None:
    assert get_args(Repair) == tuple(REPAIRS)
    assert len(set(REPAIRS)) == len(REPAIRS)


NO_ID = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}\n\n'
OBJECT = NO_ID.replace(b'"{}"', b'{"a":1}')


UNTANGLED = {"call_order": 1}


def called(speech: Speech) -> bytes:
    return speech.call(0) + speech.input(0, "{}")


EACH: list[tuple[Callable[[Speech], list[bytes]], dict[str, int]]] = [
    (lambda own: [own.text("a"), own.end()], {}),
    (lambda own: [called(own), own.end("tool_use")], {}),
    (lambda own: [own.end("max_tokens")], {}),
    (lambda own: [called(own), own.end("end_turn")], {"finish_reason": 1}),
    (lambda own: [own.text("a"), own.end("tool_use")], {"finish_reason": 1}),
    (lambda own: [own.call(0), own.call(1), own.input(1, "{}"), own.input(0, "{}"), own.end("tool_use")], UNTANGLED),
    (lambda own: [own.call(0), own.text("a"), own.input(0, "{}"), own.end("tool_use")], UNTANGLED),
    (lambda own: [called(own), own.call(1), own.input(1, "{}"), own.end("tool_use")], {}),
]


@both_engines
@pytest.mark.parametrize(("made", "repairs"), EACH, ids=lambda value: "made" if callable(value) else str(value))
async def test_each_repair_is_counted_by_its_kind(
    speech: Speech, made: Callable[[Speech], list[bytes]], repairs: dict[str, int]
) -> None:
    async with observed(speech, stream(speech.begin(), *made(speech))) as (engine, told):
        await said(engine)
        assert told.repairs == repairs
        assert told.failures == []


CHATS: list[tuple[list[bytes], dict[str, int]]] = [
    ([NO_ID, CHAT.end("tool_use")], {"call_id": 1}),
    ([CHAT.call(0), CHAT.input(0, "{}"), CHAT.call(1).replace(b"c1", b"c0"), CHAT.end("tool_use")], {"call_id": 1}),
    ([OBJECT, CHAT.end("tool_use")], {"call_id": 1, "call_input": 1}),
    ([CHAT.text("a"), CHAT.end(usage={"a": 1})], {"usage": 1}),
    ([CHAT.text("a"), CHAT.end(usage={"prompt_tokens": 3})], {"usage": 1}),
    ([CHAT.text("a"), CHAT.end(usage={"completion_tokens": 3})], {"usage": 1}),
]


@pytest.mark.parametrize(("events", "repairs"), CHATS)
async def test_each_repair_of_a_chat_stream_is_counted_by_its_kind(
    events: list[bytes], repairs: dict[str, int]
) -> None:
    async with observed(CHAT, stream(*events)) as (engine, told):
        await said(engine)
        assert told.repairs == repairs


async def test_a_shortened_tool_name_is_counted_as_a_repair() -> None:
    async def answer(wire: Wire) -> None:
        name = wire.body.partition(b'"function":{"name":"')[2].partition(b'"')[0].decode()
        await wire.send(stream(CHAT.call(0, name), CHAT.input(0, "{}"), CHAT.end("tool_use")))

    tools = [{"name": "x" * 128, "input_schema": {"type": "object"}}]
    async with observed(CHAT, answer) as (engine, told):
        await said(engine, request(tools=tools))
        assert told.repairs == {"call_name": 1}


def event(**data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def block(index: int, **content: Any) -> bytes:
    return event(type="content_block_start", index=index, content_block=content)


def stop(index: int) -> bytes:
    return event(type="content_block_stop", index=index)


def signature(index: int, value: str) -> bytes:
    return MESSAGES.delta(index, type="signature_delta", signature=value)


SERVED = block(1, type="server_tool_use", id="s", name="web_search", input={})
RELAYED: list[tuple[list[bytes], dict[str, int]]] = [
    ([block(1, type="thinking", thinking="a"), MESSAGES.text("b"), MESSAGES.text("c")], {"block_order": 1}),
    ([stop(0), block(1, type="thinking", thinking="a"), stop(1)], {}),
    (
        [stop(0), block(1, type="thinking", thinking="a"), MESSAGES.delta(1, type="signature_delta", signature="")],
        {"signature": 1},
    ),
    ([stop(0), block(1, type="thinking", thinking="a"), MESSAGES.delta(1, type="signature_delta", signature="s")], {}),
    ([SERVED, MESSAGES.delta(1, type="input_json_delta", partial_json='{"a":1'), stop(1)], {"call_input": 1}),
    ([SERVED, MESSAGES.delta(1, type="input_json_delta", partial_json='{"a":1}'), stop(1)], {}),
]


@pytest.mark.parametrize(("events", "repairs"), RELAYED)
async def test_each_repair_of_a_messages_stream_is_counted_by_its_kind(
    events: list[bytes], repairs: dict[str, int]
) -> None:
    async with observed(MESSAGES, stream(MESSAGES.begin(), *events, MESSAGES.end())) as (engine, told):
        await said(engine)
        assert told.repairs == repairs


async def test_a_messages_server_without_usage_is_counted_as_a_repair() -> None:
    async with observed(MESSAGES, stream(block(0, type="text", text="a"), MESSAGES.end(usage={}))) as (engine, told):
        await said(engine)
        assert told.repairs == {"usage": 1}


async def test_an_unknown_stop_reason_is_counted_as_a_repair() -> None:
    async with observed(MESSAGES, stream(MESSAGES.begin(), MESSAGES.end("tired"))) as (engine, told):
        await said(engine)
        assert told.repairs == {"finish_reason": 1}


async def test_a_dropped_call_is_counted_as_a_repair() -> None:
    asked = request(tools=[{"name": "look"}], tool_choice={"type": "none"})
    answer = stream(MESSAGES.begin(), called(MESSAGES), MESSAGES.end("end_turn"))
    async with observed(MESSAGES, answer) as (engine, told):
        await said(engine, asked)
        assert told.repairs == {"call_dropped": 1}


@both_engines
async def test_repairs_before_the_client_left_are_counted_once(speech: Speech) -> None:
    mended = [speech.begin(), speech.call(0), speech.call(1), speech.input(1, "{}"), speech.input(0, "{}")]
    async with observed(speech, endless(mended, speech.text("a"))) as (engine, told):
        async with aclosing(engine.stream(request())) as batches:  # type: ignore[type-var]
            async for batch in batches:
                if "a" in batch:  # type: ignore[operator]
                    break
        assert told.repairs == {"call_order": 1}


# everybody else


async def test_the_observer_of_an_auto_engine_observes_both_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "_FAILURE_AGE", 0.0)  # the engine and one of its parts share a model list
    origin = Origin.parse("http://127.0.0.1:1")
    chat, messages = OpenAIEngine(origin), MessagesEngine(origin)
    engine = AutoEngine(chat, messages)
    told = Told()
    engine.observe = told
    assert engine.observe is chat.observe is messages.observe is told
    for one in (chat, messages, engine):
        with pytest.raises(ApiError):
            await one.models()
    assert told.failures == ["connect"] * 3
    await engine.stop()


async def test_an_engine_works_without_an_observer() -> None:
    async with over(CHAT, stream(CHAT.text("a"), CHAT.end("tool_use"))) as (_, engine):
        assert "a" in await said(engine)


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
async def test_connections_are_counted_by_their_state(speech: Speech) -> None:
    states = {"idle": 0, "leased": 0, "connecting": 0, "draining": 0, "waiting": 0}
    async with over(speech, endless([speech.begin()], speech.text("a")), limit=1) as (upstream, engine):
        await engine.models()
        assert engine.connections() == {**states, "idle": 1}
        await engine.ready()
        assert engine.connections() == {**states, "idle": 2}
        async with aclosing(engine.stream(request())) as batches:  # type: ignore[type-var]
            await anext(batches)
            assert engine.connections() == {**states, "idle": 1, "leased": 1}
            another = asyncio.create_task(said(engine))
            await upstream.until(lambda: engine.connections() == {**states, "idle": 1, "leased": 1, "waiting": 1})
            another.cancel()
            await asyncio.wait({another})
        detected = AutoEngine(engine, engine)  # type: ignore[arg-type]
        assert detected.connections() == {**states, "idle": 2}
