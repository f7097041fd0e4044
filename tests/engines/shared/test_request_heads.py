"""The head of a request to an engine: what is in it, and that nothing a client says ever is."""

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import ApiError
from tests.support.chat_requests import request, use, user
from tests.support.upstream import Request, Wire, json_answer
from tests.support.upstream_engines import Messages, Speech, both_engines, endless, over, said, stream

MESSAGES = Messages()
EVIL = "x\r\nevil: 1\r\n\r\nGET /evil HTTP/1.1\r\nhost: h\r\n\r\n\x00\n\r\t\x7f\u2028é🙂"
ASCII = EVIL.encode("ascii", "replace").decode()
TRACE = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tracestate", "a=1,b=2"))


Head = tuple[str, str, dict[str, str]]


def head(asked: Request, host: str = "\0") -> Head:
    """All of it but what depends on the body's length and on the port."""
    fields = {name: value.replace(host, "h") for name, value in asked.headers.items() if name != "content-length"}
    return asked.method, asked.target, fields


def ended(speech: Speech) -> bytes:
    return stream(speech.begin(), speech.text("a"), speech.end())


# what a client says


def body(word: str) -> dict[str, Any]:
    """A request that has `word` wherever a client may say what it likes."""
    tool = {"name": "look", "description": word, "input_schema": {"type": "object", "title": word}}
    turns = [
        user(word, {"type": "document", "title": word, "context": word, "source": {"type": "text", "data": word}}),
        {"role": "assistant", "content": [use(word, word, **{word: word})]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": word, "content": word}]},
        {"role": "system", "content": word},
    ]
    return {
        "model": word,
        "max_tokens": 9,
        "messages": turns,
        "system": word,
        "stop_sequences": [word],
        "metadata": {"user_id": word, word: word},
        "tools": [tool],
        "output_config": {"effort": word, "format": {"type": "json_schema", "schema": {"title": word}}},
        "thinking": {"type": "enabled", "budget_tokens": 9, "display": word},
        "service_tier": word,
        "container": word,
        word: word,
    }


async def heads(speech: Speech, path: str, word: str, query: bytes, **more: Any) -> list[Head]:
    """Those of all requests to the engine for one that says `word` everywhere."""
    fields = [(name, word.encode()) for name in ("user-agent", "x-request-id", "anthropic-client-version")]
    async with over(speech, ended(speech)) as (upstream, engine):
        driver = Driver(MessagesApp(engine))
        sent = orjson.dumps({**body(word), **more})
        response = await driver.request("POST", path, query=query, headers=fields, body=sent)
        assert response.status == 200
        posted = [json.loads(asked.body) for asked in upstream.requests if asked.body]
        assert posted
        assert all(sent["model"] == word for sent in posted), "it went up in the body"
        return [head(asked, upstream.url.removeprefix("http://")) for asked in upstream.requests]


@both_engines
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_no_client_text_gets_into_the_head_of_a_request(speech: Speech, streams: bool) -> None:
    meek = await heads(speech, "/v1/messages", "word", b"", stream=streams)
    query = b"beta=true%0d%0aevil:%201&\r\nevil: 1\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"
    assert await heads(speech, "/v1/messages", EVIL, query, stream=streams) == meek
    assert "word" not in str(meek)


async def test_no_client_text_gets_into_the_head_of_a_count() -> None:
    """A Messages server counts by an address of its own."""
    counted = json_answer(200, {"input_tokens": 3})
    found = []
    for word in ("word", EVIL):
        async with over(MESSAGES, counted) as (upstream, engine):
            driver = Driver(MessagesApp(engine))
            response = await driver.request("POST", "/v1/messages/count_tokens", body=orjson.dumps(body(word)))
            assert response.json() == {"input_tokens": 3}
            found.append([head(asked, upstream.url.removeprefix("http://")) for asked in upstream.requests])
    assert found[0] == found[1]


@both_engines
@pytest.mark.parametrize(
    "name", ["m", "%0d%0aevil: 1", "a/b/../../c", EVIL.encode("ascii", "replace").decode()], ids=ascii
)
async def test_a_model_name_is_not_part_of_a_request_target(speech: Speech, name: str) -> None:
    async with over(speech, b"") as (upstream, engine):
        response = await Driver(MessagesApp(engine)).request("GET", f"/v1/models/{name}")
        assert response.status == (200 if name == "m" else 404)
        assert {(asked.method, asked.target) for asked in upstream.requests} == {("GET", "/v1/models")}


# a trace


@both_engines
async def test_trace_headers_are_sent_only_with_a_trace(speech: Speech) -> None:
    async with over(speech, ended(speech)) as (upstream, engine):
        await said(engine)
        await said(engine, replace(request(), trace_headers=TRACE))
        plain, traced = [asked for asked in upstream.requests if asked.method == "POST"]
    assert head(traced)[2] == {**head(plain)[2], **dict(TRACE)}
    assert traced.body == plain.body


@both_engines
@pytest.mark.parametrize(
    "trace",
    [
        (("traceparent", "00-1\r\nevil: 1"),),
        (("traceparent", "00-1\nevil: 1"),),
        (("traceparent", "00-1\x00"),),
        (("tracestate", "é"),),
        (("tracestate", " \r\n"),),
        (("evil: 1\r\nx", "1"),),
        (("", "1"),),
        (("transfer-encoding", "chunked"),),
        (("Content-Length", "0"),),
        (("host", "elsewhere"),),
        (("connection", "close"),),
    ],
    ids=repr,
)
async def test_an_invalid_trace_is_not_sent(speech: Speech, trace: tuple[tuple[str, str], ...]) -> None:
    async with over(speech, ended(speech)) as (upstream, engine):
        await said(engine)
        with pytest.raises(ValueError, match="header"):
            await said(engine, replace(request(), trace_headers=trace))
        await said(engine)
        assert [asked.method for asked in upstream.requests].count("POST") == 2
        assert not any("evil" in str(asked.headers) for asked in upstream.requests)


# keys


@both_engines
async def test_a_new_key_is_used_for_the_next_request(speech: Speech) -> None:
    async with over(speech, ended(speech), key="old-key") as (upstream, engine):
        keys = ["old-key", "new-key", None, "old-key"]
        for key in keys:
            engine.replace_key(key)
            await said(engine)
            await engine.ready()
        sent = [(asked.method, asked.headers.get("authorization")) for asked in upstream.requests]
    for method in ("GET", "POST"):
        told = [value for verb, value in sent if verb == method]
        assert list(dict.fromkeys(told)) == ["Bearer old-key", "Bearer new-key", None]
        assert told[-1] == "Bearer old-key"


@both_engines
@pytest.mark.parametrize("key", ["", "a b", "k\r\nevil: 1", "é"])
async def test_an_invalid_new_key_leaves_the_old_one(speech: Speech, key: str) -> None:
    async with over(speech, ended(speech), key="old-key") as (upstream, engine):
        with pytest.raises(ValueError, match="upstream key") as caught:
            engine.replace_key(key)
        assert not key or key not in str(caught.value)
        await said(engine)
        assert upstream.requests[-1].headers["authorization"] == "Bearer old-key"


@both_engines
@pytest.mark.parametrize("parrot", ["old-key", "new-key"])
async def test_an_error_of_a_running_request_shows_neither_key(speech: Speech, parrot: str) -> None:
    refusal = json_answer(400, {"error": {"message": f"no: {parrot}"}})
    began: list[Callable[[], None]] = []

    async def late(wire: Wire) -> None:
        began[0]()
        await wire.send(refusal)

    async with over(speech, late, key="old-key") as (_, engine):
        began.append(lambda: engine.replace_key("new-key"))
        with pytest.raises(ApiError) as caught:
            await said(engine)
    assert caught.value.message == "no: …"


@both_engines
async def test_a_stream_runs_on_while_the_key_is_replaced(speech: Speech) -> None:
    async with (
        over(speech, endless([speech.begin()], speech.text("a")), key="old-key") as (_, engine),
        aclosing(engine.stream(request())) as batches,  # type: ignore[type-var]
    ):
        await anext(batches)
        engine.replace_key("new-key")
        assert await anext(batches)


def test_both_engines_of_an_auto_engine_get_the_new_key() -> None:
    origin = Origin.parse("http://127.0.0.1:1")
    chat, messages = OpenAIEngine(origin, key="old-key"), MessagesEngine(origin, key="old-key")
    engine = AutoEngine(chat, messages)
    engine.replace_key("new-key")
    assert all(b"old-key" not in str(one._headers).encode() for one in (chat, messages))
    with pytest.raises(ValueError, match="upstream key"):
        engine.replace_key("")
    assert all("new-key" in str(one._headers) for one in (chat, messages))


# what an engine says of when to ask again


@both_engines
@pytest.mark.parametrize("value", [b"\xff", b"1\x01", b"x" * 300], ids=["not ASCII", "control", "long"])
async def test_invalid_retry_headers_are_left_out(speech: Speech, value: bytes) -> None:
    refusal = b"HTTP/1.1 429 No\r\nretry-after: %b\r\nretry-after-ms: 7\r\ncontent-length: 0\r\n\r\n" % value
    async with over(speech, refusal) as (_, engine):
        with pytest.raises(ApiError) as caught:
            await said(engine)
    if caught.value.status == 429:  # else a parser has refused it
        assert caught.value.headers == (("retry-after-ms", "7"),)
    else:
        assert caught.value.status == 502
