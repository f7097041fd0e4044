"""The scripted engine: its chunks are those of real engines; pace and back-pressure work."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anthro_asgi.engines.openai.dialects import recognise
from bench.scripted import serving, styles
from bench.scripted.serving import Engine, Settings
from bench.scripted.styles import LLAMACPP, STYLES, VLLM, Script, Style
from tests.replay import Case, cases


def recorded(engine: str, name: str) -> Case:
    (case,) = [case for case in cases(engine) if case.name == name and not case.variant]
    return case


def events(body: bytes) -> list[bytes]:
    return [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]


def script_like(style: Style, chunk: dict[str, Any], every: bool) -> Script:
    """A script with the constants of a recorded chunk, whose prompt had nine tokens."""
    names = {"id": chunk["id"], "created": chunk["created"], "model": chunk["model"]}
    return Script(style, names, 9, every_chunk=every, bare=True)


def neutral(event: bytes) -> bytes:
    """A chunk without what a model says, or how long that took and how much it was."""
    event = event.replace(b'"reasoning":', b'"content":')
    event = re.sub(rb'"content":"(?:[^"\\]|\\.)+"', b'"content":"..."', event)
    return re.sub(rb'("[a-z_]*(?:tokens|_n|_ms|_second)"):[0-9.]+', rb"\1:0", event)


@pytest.mark.parametrize(
    ("style", "name", "every"),
    [
        (VLLM, "02_chat_stream_usage", False),
        (VLLM, "02b_chat_stream_nousage", False),
        (VLLM, "02d_chat_stream_contusage", True),
        (LLAMACPP, "02_chat_stream_usage", False),
        (LLAMACPP, "02b_chat_stream_nousage", False),
        (LLAMACPP, "02d_chat_stream_contusage", True),
    ],
)
def test_every_chunk_is_byte_for_byte_that_of_the_real_engine(style: Style, name: str, every: bool) -> None:
    body = recorded(style.name, name).content
    real = events(body)
    script = script_like(style, json.loads(real[0]), every)
    usage = b'"choices":[]' in body
    mine = events(script.opening() + b"".join(script.token() for _ in range(3)) + script.ending(usage))
    last = 3 if usage else 2
    assert neutral(mine[0]) == neutral(real[0])
    assert {neutral(event) for event in mine[1:-last]} == {neutral(event) for event in real[1:-last]}
    assert [neutral(event) for event in mine[-last:]] == [neutral(event) for event in real[-last:]]


@pytest.mark.parametrize("style", [VLLM, LLAMACPP])
def test_every_chunk_of_a_call_is_that_of_the_real_engine(style: Style) -> None:
    def shape(event: bytes) -> bytes:
        event = re.sub(rb'"arguments":"(?:[^"\\]|\\.)*"', b'"arguments":"..."', neutral(event))
        return re.sub(rb'"(id|name)":"[^"]*"', rb'"\1":"..."', event)

    body = recorded(style.name, "05_tools_auto_stream").content
    real = events(body)
    chunk = json.loads(real[0])
    names = {"id": chunk["id"], "created": chunk["created"], "model": chunk["model"]}
    script = Script(style, names, 9, every_chunk=False, bare=True, calls=True)
    mine = events(script.opening() + b"".join(script.token() for _ in range(3)) + script.ending(usage=True))
    fixed = re.compile(rb'"(system_fingerprint)":"vllm[^"]*"')
    assert [fixed.sub(rb'"\1":""', shape(event)) for event in [mine[0], mine[1], mine[2], *mine[-3:]]] == [
        fixed.sub(rb'"\1":""', shape(event)) for event in [real[0], real[1], real[2], *real[-3:]]
    ]
    assert {shape(event) for event in mine[2:-3]} == {shape(real[2])}
    calls = [call for event in mine[1:-3] for call in json.loads(event)["choices"][0]["delta"]["tool_calls"]]
    arguments = json.loads("".join(call["function"].get("arguments", "") for call in calls))
    assert re.fullmatch(r"( \d+){3}", arguments["a"])


def test_usage_in_every_chunk_increases() -> None:
    script = Script(VLLM, styles.names_of(VLLM, "m", 1, 2), 9, every_chunk=True, bare=True)
    body = script.opening() + b"".join(script.token() for _ in range(12)) + script.ending(usage=True)
    usages = [json.loads(event)["usage"] for event in events(body)[:-1]]
    assert [usage["completion_tokens"] for usage in usages] == [*range(13), 12, 12]
    assert all(usage["total_tokens"] == 9 + usage["completion_tokens"] for usage in usages)


@pytest.mark.parametrize("every", [False, True])
def test_the_size_of_an_http_chunk_follows_the_stamp(every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((9_998, 9_999, 10_000, 10_001, 123_456))
    monkeypatch.setattr(styles, "monotonic_ns", lambda: next(moments))
    script = Script(VLLM, styles.names_of(VLLM, "100 %", 1, 2), 9, every_chunk=every, bare=False)
    for stamp in (" 9998", " 9999", " 10000", " 10001", " 123456"):
        size, _, rest = script.token().partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2
        chunk = json.loads(rest.removeprefix(b"data: "))
        assert chunk["choices"][0]["delta"] == {"content": stamp}
        assert chunk["model"] == "100 %"


def test_the_model_list_lets_our_service_detect_the_dialect() -> None:
    for style in STYLES.values():
        dialect = recognise(json.loads(styles.models(style, "m", 1)), "")
        assert (dialect and dialect.name) == style.name


# ---- over a socket


@asynccontextmanager
async def engine(**settings: Any) -> AsyncIterator[tuple[Engine, int]]:
    """A running engine and its port."""
    made = Engine(Settings(**{"style": VLLM, **settings}))
    server = await asyncio.get_running_loop().create_server(made.connect, "127.0.0.1", 0)
    try:
        yield made, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        made.pace.close()


def request(body: Any, path: str = "/v1/chat/completions", version: str = "1.1", method: str = "POST") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"{method} {path} HTTP/{version}\r\nhost: h\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


async def whole(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, header and body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name: value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    if "content-length" in fields:
        return int(head[0].split()[1]), fields, await reader.readexactly(int(fields["content-length"]))
    body = b""
    if "transfer-encoding" not in fields:
        return int(head[0].split()[1]), fields, await reader.read()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return int(head[0].split()[1]), fields, body


async def ask(port: int, *requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """All on one connection, sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests))
    answers = [await whole(reader) for _ in requests]
    writer.close()
    await writer.wait_closed()
    return answers


def said(body: bytes) -> list[str]:
    chunks = [json.loads(event) for event in events(body)[:-1]]
    return [choice["delta"]["content"] for chunk in chunks[1:] for choice in chunk["choices"] if choice["delta"]]


@pytest.mark.parametrize(("tokens", "together"), [(5, 1), (10, 4), (3, 64), (128, 64)])
async def test_tokens_that_are_written_together_are_all_counted(tokens: int, together: int) -> None:
    async with engine(together=together) as (_, port):
        body = {"model": "m", "stream": True, "max_tokens": tokens, "stream_options": {"include_usage": True}}
        ((status, _, content),) = await ask(port, request({**body, "messages": []}))
    assert status == 200
    assert len(said(content)) == tokens
    assert json.loads(events(content)[-2])["usage"]["completion_tokens"] == tokens


@pytest.mark.parametrize("settings", [{}, {"rate": 2000.0}, {"rate": 2000.0, "lockstep": True}, {"style": LLAMACPP}])
async def test_a_stream_has_max_tokens_tokens_and_each_is_its_time_of_writing(
    settings: dict[str, Any],
) -> None:
    async with engine(**settings) as (_, port):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        bodies = ({"max_tokens": 5, **options}, {"max_completion_tokens": 7, **options})
        answers = await ask(port, *map(request, bodies))
    stamps: list[int] = []
    for (status, fields, body), tokens in zip(answers, (5, 7), strict=True):
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        texts = said(body)
        assert len(texts) == tokens
        assert all(re.fullmatch(r" [0-9]+", text) for text in texts)
        stamps += map(int, texts)
        *chunks, finish, usage, done = events(body)
        assert json.loads(finish)["choices"][0]["finish_reason"] == "stop"
        assert json.loads(usage)["usage"]["completion_tokens"] == tokens
        assert done == b"[DONE]"
        assert len({(chunk["id"], chunk["created"]) for chunk in map(json.loads, chunks)}) == 1
    assert stamps == sorted(set(stamps))


async def test_usage_is_sent_only_on_request() -> None:
    async with engine() as (_, port):
        ((_, _, body),) = await ask(port, request({"max_tokens": 2, "stream": True}))
    assert b"usage" not in body


async def test_an_http_1_0_body_ends_with_the_connection() -> None:
    async with engine() as (_, port):
        ((status, fields, body),) = await ask(port, request({"stream": True, "max_tokens": 3}, version="1.0"))
    assert (status, fields["connection"], len(said(body))) == (200, "close", 3)


async def test_requests_without_streaming_get_one_answer() -> None:
    async with engine(tokens=3) as (_, port):
        answers = await ask(port, request({}), request({}, "/v1/models", method="GET"), request({}, "/v1/nothing"))
    (status, _, body), (models_status, _, models), (unknown, _, error) = answers
    answer = json.loads(body)
    assert (status, models_status, unknown) == (200, 200, 404)
    assert len(answer["choices"][0]["message"]["content"].split()) == 3
    assert answer["usage"]["completion_tokens"] == 3
    assert json.loads(models)["data"][0]["owned_by"] == "vllm"
    assert json.loads(error)["error"]["code"] == 404


@pytest.mark.parametrize("body", [b"no JSON", b"[]", {"max_tokens": "many"}, {"max_tokens": -1}])
async def test_a_bad_request_is_refused_and_the_connection_stays_open(body: Any) -> None:
    async with engine() as (_, port):
        answers = await ask(port, request(body), request({"max_tokens": 1}))
    assert [status for status, _, _ in answers] == [400, 200]


# ---- scheduling and back-pressure


class Wall:
    """A transport that only takes notes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


def begun(made: Engine, tokens: int) -> tuple[serving.Wire, Wall]:
    """A stream on a connection whose transport takes notes."""
    wire, wall = made.connect(), Wall()
    wire.connection_made(wall)  # type: ignore[arg-type]
    wire.data_received(request({"stream": True, "max_tokens": tokens}))
    return wire, wall


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_saturated_streams_alternate_token_by_token() -> None:
    made = Engine(Settings(VLLM))
    walls = [begun(made, 50)[1] for _ in range(5)]
    for _ in range(40):
        await turns(1)
        sizes = [len(wall.written) for wall in walls]
        assert max(sizes) - min(sizes) <= 1
    await turns(20)
    assert [len(wall.written) for wall in walls] == [52] * 5


async def test_a_stream_is_held_while_its_client_does_not_read() -> None:
    made = Engine(Settings(VLLM))
    (slow, held), (_, free) = begun(made, 30), begun(made, 30)
    await turns(5)
    slow.pause_writing()
    slow.resume_writing()  # it stands in the queue still, and must not twice
    await turns(5)
    assert abs(len(held.written) - len(free.written)) <= 1
    slow.pause_writing()
    sofar = len(held.written)
    await turns(40)
    assert (len(held.written), len(free.written)) == (sofar, 32)
    slow.resume_writing()
    slow.pause_writing()
    slow.resume_writing()
    await turns(1)
    assert len(held.written) <= sofar + 1
    await turns(40)
    assert len(held.written) == 32


@pytest.mark.parametrize("rate", [0.0, 1000.0])
async def test_nothing_is_written_after_a_disconnect(rate: float) -> None:
    made = Engine(Settings(VLLM, rate=rate))
    wire, wall = begun(made, 1000)
    await turns(3)
    wire.connection_lost(None)
    written = len(wall.written)
    async with engine(rate=rate) as (_, port):
        await ask(port, request({"stream": True, "max_tokens": 4}))  # there was time for more
    assert len(wall.written) == written
    made.pace.close()


async def test_the_pace_of_streams_that_begin_later_can_be_set() -> None:
    async with engine() as (made, port):
        answers = await ask(
            port, *(request({}, path, method="GET") for path in ("/pace?40&lockstep", "/pace?0", "/pace?40&lockstep"))
        )
        paced = made.pace
        assert [status for status, _, _ in answers] == [200] * 3
        assert paced is not made.unpaced
        await ask(port, request({}, "/pace?0", method="GET"))
        assert made.pace is made.unpaced
        answers = await ask(port, request({"stream": True, "max_tokens": 1}), request({}, "/begun", method="GET"))
        assert answers[1][2] == b"1"
        paced.close()


async def test_all_open_streams_can_be_ended() -> None:
    async with engine(rate=0.001) as (made, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request({"stream": True, "max_tokens": 9}))
        await reader.readuntil(b"\r\n\r\n")
        assert len(made.streams) == 1
        await ask(port, request({}, "/end", method="GET"))
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).count(b"[DONE]") == 1
        assert made.streams == set()
        writer.close()
        await writer.wait_closed()
