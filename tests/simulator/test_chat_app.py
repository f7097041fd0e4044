"""Chat completions over an engine, from the outside: streams, whole ones, errors, lists."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.simulator.chat_app import CompletionsApp
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.sse import SSEParser
from anthro_asgi.wire.deltas import Batch, Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import ContextTooLong, Overloaded, RateLimited

PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello?"}]}
ALL: list[Batch] = [
    [Usage(input_tokens=10, cache_read_input_tokens=32), Thinking("Let me ")],
    Thinking("see."),
    "Look: ",
    ["a", "b"],
    [ToolStart("toolu_1", "f"), ToolJson('{"a":')],
    ToolJson("1}"),
    [ToolStart("toolu_2", "g")],
    [Usage(output_tokens=9), Finish("tool_use")],
]


def engine_of(*batches: Batch | Exception) -> Callable[[Any], AsyncIterator[Batch]]:
    async def engine(request: Any) -> AsyncIterator[Batch]:
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    return engine


async def post(engine: Any, **more: Any) -> Response:
    body = orjson.dumps({**HELLO, **more})
    return await Driver(CompletionsApp(engine)).request("POST", PATH, body=body)


async def streamed(engine: Any, **more: Any) -> list[Any]:
    """The payloads of a stream, the last of which is "[DONE]"."""
    response = await post(engine, stream=True, **more)
    assert response.status == 200
    assert response.header("content-type") == "text/event-stream; charset=utf-8"
    *events, end = response.body.split(b"\n\n")
    assert end == b""
    assert all(event.startswith(b"data: ") for event in events)
    return [event[6:] if event == b"data: [DONE]" else orjson.loads(event[6:]) for event in events]


def deltas(chunks: list[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk != b"[DONE]" and chunk["choices"]]


# streams


async def test_a_stream_has_the_role_the_deltas_the_finish_reason_and_done() -> None:
    chunks = await streamed(engine_of(*ALL))
    assert chunks[-1] == b"[DONE]"
    call = {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let me "},
        {"reasoning_content": "see."},
        {"content": "Look: "},
        {"content": "a"},
        {"content": "b"},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {"tool_calls": [{**call, "index": 1, "id": "toolu_2", "function": {"name": "g", "arguments": ""}}]},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * 10 + ["tool_calls"]
    heads = {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks[:-1]}
    assert len(heads) == 1
    assert heads.pop()[1] == "chat.completion.chunk"
    assert not any("usage" in chunk for chunk in chunks[:-1])


async def test_requested_counts_are_in_a_chunk_of_their_own() -> None:
    chunks = await streamed(engine_of(*ALL), stream_options={"include_usage": True})
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"] == {
        "prompt_tokens": 42,
        "completion_tokens": 9,
        "total_tokens": 51,
        "prompt_tokens_details": {"cached_tokens": 32},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert [chunk["usage"] for chunk in chunks[:-2]] == [None] * (len(chunks) - 2)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (Finish("end_turn"), "stop"),
        (Finish("max_tokens"), "length"),
        (Finish("stop_sequence", "x"), "stop"),
        (Finish("refusal"), "content_filter"),
    ],
)
async def test_the_stop_reason_is_translated_to_a_finish_reason(finish: Finish, reason: str) -> None:
    chunks = await streamed(engine_of("Hi", finish))
    assert chunks[-2]["choices"][0]["finish_reason"] == reason
    whole = (await post(engine_of("Hi", finish))).json()
    assert whole["choices"][0]["finish_reason"] == reason


async def test_a_stop_string_ends_the_answer_before_it() -> None:
    chunks = await streamed(engine_of("one t", "wo th", "ree", Finish("end_turn")), stop=["two"])
    assert "".join(delta.get("content", "") for delta in deltas(chunks)) == "one "
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    whole = (await post(engine_of("one t", "wo th", "ree", Finish("end_turn")), stop="two")).json()
    assert whole["choices"][0]["message"]["content"] == "one "


async def test_lone_surrogates_are_replaced() -> None:
    chunks = await streamed(engine_of("a", "\ud83d", Finish("end_turn")))
    assert deltas(chunks)[2] == {"content": "\ufffd"}


async def test_our_own_chunk_reader_reads_what_the_engine_yielded() -> None:
    response = await post(engine_of(*ALL), stream=True, stream_options={"include_usage": True})
    reader = ChunkReader((), lambda: "toolu_new")
    heard = reader.feed(SSEParser().feed(response.body)) + reader.end()
    said: list[Delta] = [delta for batch in ALL for delta in (batch if isinstance(batch, list) else [batch])]
    read, yielded = (
        [delta for delta in some if delta and not isinstance(delta, Usage | Finish)] for some in (heard, said)
    )
    assert read == yielded


# whole ones


async def test_a_whole_completion_has_the_content_of_the_stream() -> None:
    response = await post(engine_of(*ALL))
    completion = response.json()
    assert (response.status, completion["object"], completion["model"]) == (200, "chat.completion", "m")
    (choice,) = completion["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Look: ab",
        "reasoning_content": "Let me see.",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert completion["usage"]["total_tokens"] == 51


async def test_an_answer_without_text_has_no_content() -> None:
    completion = (await post(engine_of(ToolStart("t", "f"), Finish("tool_use")))).json()
    assert completion["choices"][0]["message"]["content"] is None


# errors


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RateLimited("slower", headers=(("retry-after", "3"),)), 429, "rate_limit_error"),
        (Overloaded("full"), 503, "server_error"),
        (ContextTooLong(9, 8), 400, "invalid_request_error"),
        (ZeroDivisionError("secret"), 500, "server_error"),
    ],
)
async def test_a_failure_before_the_first_token_has_its_status(
    error: Exception, status: int, kind: str, stream: bool
) -> None:
    response = await post(engine_of(Usage(input_tokens=3), error), stream=stream)
    assert response.status == status
    said = response.json()["error"]
    assert (said["type"], said["code"]) == (kind, status)
    assert "secret" not in said["message"]
    assert (response.header("retry-after") is not None) is (status in (429, 503))


async def test_a_failure_in_mid_stream_is_an_error_chunk_and_ends_it() -> None:
    chunks = await streamed(engine_of("Hel", Overloaded("gone")))
    assert deltas(chunks[:2]) == [{"role": "assistant", "content": ""}, {"content": "Hel"}]
    error = {"message": "gone", "type": "server_error", "param": None, "code": 503}
    assert chunks[2:] == [{"error": error}, b"[DONE]"]


async def test_an_engine_that_must_send_a_finish_and_does_not_has_failed() -> None:
    class Engine:
        async def stream(self, request: Any) -> AsyncIterator[Batch]:
            yield "Hel"

    chunks = await streamed(Engine())
    assert chunks[-2]["error"]["code"] == 502
    assert (await post(Engine())).status == 502


async def test_a_generator_function_ends_its_answer_by_returning() -> None:
    chunks = await streamed(engine_of("Hel"))
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    choice = (await post(engine_of("Hel"))).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hel", "stop")


async def test_an_invalid_request_is_refused_with_its_field() -> None:
    response = await post(engine_of("Hi"), n=2)
    assert response.status == 400
    said = response.json()["error"]
    assert (said["param"], said["type"]) == ("n", "invalid_request_error")
    assert said["message"].startswith("n: must be 1")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", PATH, 405), ("POST", "/v1/models", 405), ("GET", "/v1/nothing", 404), ("POST", "/v1/messages", 404)],
)
async def test_a_wrong_path_or_method_is_an_error_in_openais_format(method: str, path: str, status: int) -> None:
    response = await Driver(CompletionsApp(engine_of("Hi"))).request(method, path)
    assert response.status == status
    assert response.json()["error"]["code"] == status


async def test_a_key_is_required_when_keys_are_configured() -> None:
    driver = Driver(CompletionsApp(engine_of("Hi", Finish("end_turn")), keys=["sk-right"]))
    body = orjson.dumps(HELLO)
    for key, status in ((b"Bearer sk-wrong", 401), (b"Bearer sk-right", 200)):
        response = await driver.request("POST", PATH, body=body, headers=[("authorization", key)])
        assert response.status == status
    assert (await driver.request("GET", "/v1/models")).status == 401
    assert (await driver.request("GET", "/health")).status == 200


async def test_a_body_that_is_too_large_is_refused() -> None:
    app = CompletionsApp(engine_of("Hi"), max_body=10)
    assert (await Driver(app).request("POST", PATH, body=orjson.dumps(HELLO))).status == 413


# models, and the rest


async def test_the_models_of_the_engine_are_listed_and_found_by_name() -> None:
    driver = Driver(CompletionsApp(SimulatedEngine(model="org/tiny")))
    (model,) = (await driver.request("GET", "/v1/models")).json()["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("org/tiny", "model", "anthro-asgi")
    assert (await driver.request("GET", "/v1/models/org/tiny")).json() == model
    assert (await driver.request("GET", "/v1/models/other")).status == 404
    nameless = Driver(CompletionsApp(engine_of("Hi")))
    assert (await nameless.request("GET", "/models")).json() == {"object": "list", "data": []}


async def test_requests_are_counted_and_it_is_ready_until_it_drains() -> None:
    app = CompletionsApp(engine_of("Hi", Finish("end_turn")))
    driver = Driver(app)
    await driver.request("POST", PATH, body=orjson.dumps(HELLO))
    assert b'route="/v1/chat/completions",status="200"' in (await driver.request("GET", "/metrics")).body
    assert (await driver.request("GET", "/readyz")).status == 200
    app.draining = True
    assert (await driver.request("GET", "/readyz")).status == 503
    app.replace_keys(["sk-new"])
    assert (await driver.request("GET", "/v1/models")).status == 401


async def test_its_engine_starts_and_stops_with_it() -> None:
    class Engine:
        life: list[str] = []  # noqa: RUF012

        async def start(self) -> None:
            self.life.append("start")

        async def stop(self) -> None:
            self.life.append("stop")

        async def stream(self, request: Any) -> AsyncIterator[Batch]:
            yield "Hi"

    driver = Driver(CompletionsApp(Engine()))
    async with driver.lifespan():
        assert Engine.life == ["start"]
    assert Engine.life == ["start", "stop"]


async def test_a_client_that_disconnects_closes_the_engine() -> None:
    engine = SimulatedEngine(ttft=0, itl=60)
    driver = Driver(CompletionsApp(engine))
    body = orjson.dumps({**HELLO, "stream": True})
    async with driver.open("POST", PATH, body=body) as exchange:
        await exchange.started()
        assert engine.streaming == 1
        exchange.disconnect()
    assert engine.streaming == 0
    await engine.stop()


async def test_other_tasks_run_while_a_fast_engine_streams() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for stream in (True, False):
        before = turns
        await post(engine_of(*["x"] * 1000, Finish("end_turn")), stream=stream)
        assert turns - before > 1000 // 32
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
