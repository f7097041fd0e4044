"""An OpenAI-compatible engine over real sockets: answers in every framing and cut, failures, slots, detection, key."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.shared import remote as module
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Deadlines
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart, Usage, deltas_of
from anthro_asgi.wire.errors import (
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    UpstreamTimeout,
)
from anthro_asgi.wire.request import MessagesRequest
from tests.replay import cases
from tests.support.chat_requests import request, use, user
from tests.support.upstream import Answer, ScriptedUpstream, Wire, fragmented, framed, json_answer, raw_answer, sse

KEY = "sk-secret-0123456789"
PLAIN = request()


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}]}


HELLO = [chunk(None, role="assistant"), chunk("Hel"), chunk("lo"), chunk(None, "stop")]
ANSWER = sse(*HELLO)
CUT_SHORT = sse(*HELLO[:-1], framing="close", done=False)
MODELS = json_answer(200, {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 64}]})


@asynccontextmanager
async def served(
    *answers: Answer, dialect: str | None = "openai", **options: Any
) -> AsyncIterator[tuple[ScriptedUpstream, OpenAIEngine]]:
    async with ScriptedUpstream(*answers) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect=dialect, **options)
        try:
            yield upstream, engine
        finally:
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"
            await engine.stop()


async def answer(engine: OpenAIEngine, asked: MessagesRequest = PLAIN) -> list[Delta]:
    async with aclosing(engine.stream(asked)) as batches:  # type: ignore[type-var]
        return [delta async for batch in batches for delta in deltas_of(batch)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta for delta in deltas if isinstance(delta, str))


async def failed(engine: OpenAIEngine, kind: type[ApiError]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await answer(engine)
    assert type(caught.value) is kind
    return caught.value


# whole answers, however they come


@pytest.mark.clause("6.10")
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_every_framing_and_every_cut_gives_the_same_deltas(framing: str) -> None:
    tail = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}}
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"q":"é"}'}}
    whole = sse(
        chunk("a\u2028", reasoning="Hm 🙂"), chunk(tool_calls=[call]), chunk(None, "stop"), tail, framing=framing
    )
    chance = random.Random(framing)
    cuts = [range(len(whole)), *(chance.sample(range(len(whole)), 7) for _ in range(6)), ()]
    async with served(*(fragmented(whole, cut) for cut in cuts)) as (_, engine):
        for _cut in cuts:
            assert await answer(engine) == [
                Thinking("Hm 🙂"),
                "a\u2028",
                Usage(9, None, None),
                ToolStart("c", "look"),
                ToolJson('{"q":"é"}'),
                Usage(9, 7, None),
                Finish("end_turn"),
            ]


PIECES = [json.dumps(said).encode() for said in HELLO]


@pytest.mark.slow
@pytest.mark.clause("6.9")
@pytest.mark.parametrize(
    "stream",
    [
        b"".join(b"data: %b\r\n\r\n" % piece for piece in PIECES) + b"data: [DONE]\r\n\r\n",
        b"".join(b"data:%b\n\n" % piece for piece in PIECES) + b"data:[DONE]\n\n",
        b"".join(b": ping\nevent: chunk\nid: 7\nretry: 9\ndata: %b\n\n" % piece for piece in PIECES),
        b"\xef\xbb\xbf" + b"".join(b"data: %b\n\n" % piece for piece in PIECES),
        b"".join(b"data: %b\n\n" % json.dumps(said, indent=1).encode().replace(b"\n", b"\ndata: ") for said in HELLO),
        b"\n\n".join(b"data: " + piece for piece in PIECES),
    ],
    ids=["crlf", "no space", "other lines", "bom", "many data lines", "no last blank line"],
)
async def test_every_way_to_write_events_is_read(stream: bytes) -> None:
    events = framed(200, [("content-type", "text/event-stream")], [stream], "length")
    async with served(events, fragmented(events, range(len(events)))) as (_, engine):
        for _ in range(2):
            assert (await answer(engine))[-1] == Finish("end_turn")
            assert text(await answer(engine)) == "Hello"


async def test_a_json_completion_is_an_answer() -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning": "Hm."}
    whole = {"choices": [{"message": message, "finish_reason": "length"}], "usage": {"prompt_tokens": 1}}
    async with served(json_answer(200, whole)) as (_, engine):
        deltas = await answer(engine)
    assert (deltas[1:3], deltas[-1]) == ([Thinking("Hm."), "Hello"], Finish("max_tokens"))


async def test_an_answer_that_arrives_at_once_is_passed_on_at_once() -> None:
    async with served(ANSWER) as (_, engine), aclosing(engine.stream(PLAIN)) as batches:  # type: ignore[type-var]
        assert [list(deltas_of(batch)) async for batch in batches] == [
            ["Hel", "lo", Usage(None, 2), Finish("end_turn")]
        ]


@pytest.mark.parametrize(
    ("dialect", "thought", "ending"),
    [
        ("vllm", chunk(reasoning="I "), {**chunk(None, "stop")["choices"][0], "stop_reason": "count"}),
        ("openai", chunk(reasoning="I "), chunk(None, "tool_calls")["choices"][0]),
    ],
)
async def test_output_that_arrives_with_an_invalid_end_is_passed_on_before_the_error(
    dialect: str, thought: dict[str, Any], ending: dict[str, Any]
) -> None:
    asked = request(stop_sequences=["count"])
    cut = {"choices": [ending]}
    answers = [ANSWER, sse(thought, cut)]
    async with served(*answers, dialect=dialect) as (_, engine):
        await answer(engine, asked)  # shows that the model does not think, so the stop sequences are sent
        batches = engine.stream(asked)
        assert deltas_of(await anext(batches)) == [Thinking("I ")]
        with pytest.raises(BadUpstream):
            await anext(batches)


async def test_tokens_are_passed_on_as_they_arrive() -> None:
    async def slowly(wire: Wire) -> None:
        head = framed(200, [("content-type", "text/event-stream")], [], "chunked").removesuffix(b"0\r\n\r\n")
        event = b"data: " + json.dumps(chunk("a")).encode() + b"\n\n"
        await wire.send(head + b"%x\r\n%b\r\n" % (len(event), event))
        await wire.gone()

    async with served(slowly) as (_, engine), aclosing(engine.stream(PLAIN)) as batches:  # type: ignore[type-var]
        assert await anext(batches) == ["a"]


async def test_a_call_id_of_the_history_is_not_used_again() -> None:
    call = {"index": 0, "id": "call_0", "function": {"name": "look", "arguments": "{}"}}
    history = request(user("a"), {"role": "assistant", "content": [use("call_0")]}, user("b"))
    async with served(sse(chunk(tool_calls=[call]), chunk(None, "tool_calls"))) as (_, engine):
        assert [delta for delta in await answer(engine) if isinstance(delta, ToolStart)] == [
            ToolStart("call_0", "look")
        ]
        (start,) = [delta for delta in await answer(engine, history) if isinstance(delta, ToolStart)]
        assert start.id.startswith("toolu_")


# responses that are not of the API


@pytest.mark.clause("6.14", "7.5")
@pytest.mark.parametrize(
    "nonsense",
    [
        raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>"),
        raw_answer(200, [("content-type", "text/event-stream"), ("content-length", "0")]),
        raw_answer(200, [("content-type", "application/json"), ("content-length", "0")]),
        raw_answer(302, [("location", "http://x"), ("content-length", "0")]),
        json_answer(200, {"choices": []}),
        json_answer(200, []),
        sse(b"data: {oops\n\n", *HELLO),
        sse(),
        sse(*HELLO[:-1]),
        sse(*HELLO[:-1], done=False),
        CUT_SHORT,
        raw_answer(200, [("transfer-encoding", "chunked")], b"no size\r\n"),
        b"SSH-2.0-x\r\n\r\n",
    ],
    ids=[
        *("html", "empty", "empty json", "redirect", "no choices", "json list", "bad chunk", "only done"),
        *("no finish", "neither", "eof", "bad framing", "ssh"),
    ],
)
async def test_an_invalid_or_incomplete_answer_is_an_error(nonsense: bytes) -> None:
    async with served(nonsense, ANSWER) as (_, engine):
        await failed(engine, BadUpstream)
        assert text(await answer(engine)) == "Hello"


def then(sent: bytes, end: Callable[[Wire], None]) -> Answer:
    async def breaks(wire: Wire) -> None:
        await wire.send(sent)
        end(wire)
        await wire.gone()

    return breaks


WITH_FINISH = ANSWER[: ANSWER.index(b"data: [DONE]") - 3]  # up to the size of the next chunk
NO_FINISH = ANSWER[: ANSWER.index(b'"lo"')]
ENDS = pytest.mark.parametrize("end", [Wire.reset, Wire.close], ids=["reset", "eof"])


@ENDS
async def test_a_connection_lost_in_mid_stream_is_an_error(end: Callable[[Wire], None]) -> None:
    async with served(then(NO_FINISH, end)) as (_, engine):
        await failed(engine, BadUpstream)


@ENDS
async def test_a_connection_lost_after_the_finish_is_no_error(end: Callable[[Wire], None]) -> None:
    async with served(then(WITH_FINISH, end)) as (_, engine):
        deltas = await answer(engine)
    assert (text(deltas), deltas[-1]) == ("Hello", Finish("end_turn"))


@pytest.mark.clause("7.5")
@pytest.mark.parametrize("before", [b'{"choices"', b'"Hel"'], ids=["head", "head and role"])
async def test_an_engine_may_read_a_long_prompt_before_its_first_output(before: bytes) -> None:
    first = WITH_FINISH[: WITH_FINISH.index(before)]

    async def reads_long(wire: Wire) -> None:
        await wire.send(first)
        await asyncio.sleep(0.3)
        await wire.send(WITH_FINISH.removeprefix(first))
        wire.reset()

    async with served(reads_long, deadlines=Deadlines(silence=0.05)) as (_, engine):
        assert text(await answer(engine)) == "Hello"


@pytest.mark.clause("7.5")
async def test_a_stall_in_mid_stream_is_an_error() -> None:
    async with served(then(NO_FINISH, lambda _: None), deadlines=Deadlines(silence=0.05)) as (_, engine):
        await failed(engine, UpstreamTimeout)


async def test_a_stall_after_the_finish_ends_the_answer_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRAILER_TIMEOUT", 0.05)
    async with served(then(WITH_FINISH, lambda _: None)) as (_, engine):
        assert (await answer(engine))[-1] == Finish("end_turn")


@pytest.mark.clause("7.5")
async def test_no_first_byte_is_a_timeout() -> None:
    async with served(then(b"", lambda _: None), deadlines=Deadlines(first_byte=0.05)) as (_, engine):
        await failed(engine, UpstreamTimeout)


@pytest.mark.clause("7.5")
async def test_an_unreachable_engine_gives_an_overloaded_error_with_retry_after() -> None:
    async with ScriptedUpstream(ANSWER) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect="openai")
    error = await failed(engine, Overloaded)
    assert error.headers == (("retry-after", "1"),)
    assert not await engine.ready()
    await engine.stop()


@pytest.mark.clause("7.5")
async def test_an_exhausted_pool_gives_an_overloaded_error() -> None:
    async def endless(wire: Wire) -> None:
        await wire.send(NO_FINISH)
        await wire.gone()

    async with served(endless, limit=1, deadlines=Deadlines(connect=0.05)) as (_, engine):
        batches = engine.stream(PLAIN)
        await anext(batches)
        await failed(engine, Overloaded)
        await batches.aclose()  # type: ignore[attr-defined]


@pytest.mark.clause("7.5", "7.11")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, EngineFailed),
        (403, EngineFailed),
        (404, NotFound),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, EngineFailed),
        (502, Overloaded),
        (503, Overloaded),
        (504, UpstreamTimeout),
        (529, Overloaded),
    ],
)
async def test_a_status_becomes_its_error_with_retry_after(status: int, kind: type[ApiError]) -> None:
    refusal = json_answer(status, {"error": {"message": "words"}}, [("Retry-After", "7")])
    async with served(refusal) as (upstream, engine):
        error = await failed(engine, kind)
        assert error.headers == ((("retry-after", "7"),) if kind in (RateLimited, Overloaded) else ())
        await failed(engine, kind)
        assert upstream.accepted == 1, "the connection was good for another request"


@pytest.mark.clause("7.11")
@pytest.mark.parametrize("when", ["7", "Wed, 21 Oct 2026 07:28:00 GMT"], ids=["seconds", "a date"])
async def test_an_engines_retry_headers_are_passed_on(when: str) -> None:
    advice = (("retry-after", when), ("retry-after-ms", "250"), ("x-should-retry", "true"))
    async with served(json_answer(429, {"error": {"message": "words"}}, advice)) as (_, engine):
        body = b'{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}'
        response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=body)
    assert response.status == 429
    assert tuple((name, response.header(name)) for name, _ in advice) == advice


async def test_a_recorded_overflow_reaches_the_client_in_its_words() -> None:
    (case,) = cases("sglang", name="07b_ctx_exceeded_stream")
    async with served(json_answer(400, json.loads(case.content))) as (_, engine):
        assert (await failed(engine, ContextTooLong)).message == "prompt is too long: 2314 tokens > 1024 maximum"


async def test_a_status_stands_when_its_body_is_cut_short() -> None:
    async with served(raw_answer(429, [("content-length", "99"), ("connection", "close")], b"{")) as (_, engine):
        await failed(engine, RateLimited)


# connections


@pytest.mark.parametrize("behind", [(), (len(ANSWER) - 5,)], ids=["with its end", "before its end"])
async def test_a_connection_is_reused_after_done(behind: tuple[int, ...]) -> None:
    async with served(fragmented(ANSWER, behind)) as (upstream, engine):
        for _ in range(3):
            await answer(engine)
            await upstream.until(lambda: "idle=1" in repr(engine))
        assert (upstream.accepted, len(upstream.requests)) == (1, 3)


async def test_a_client_that_leaves_ends_the_upstream_connection_and_frees_the_slot() -> None:
    left = []

    async def endless(wire: Wire) -> None:
        await wire.send(NO_FINISH)
        await wire.gone()
        left.append(True)

    async with served(endless, limit=1) as (upstream, engine):
        batches = engine.stream(PLAIN)
        await anext(batches)
        assert "leased=1" in repr(engine)
        await batches.aclose()  # type: ignore[attr-defined]
        assert "idle=0 leased=0 connecting=0 draining=0" in repr(engine)
        await upstream.until(lambda: left)
