"""Large requests are read, checked, converted and sent in steps, and freed once the engine answers."""

import asyncio
import base64
import gc
import gzip
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.engines.auto import AutoEngine
from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai import encoded_request
from anthro_asgi.engines.openai.chat_request import encode, to_chat
from anthro_asgi.engines.openai.dialects import PLAIN
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http import messages_app
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.large.cooperative import LARGE_BODY
from anthro_asgi.wire.request import MessagesRequest, parse_request
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer, sse

pytestmark = pytest.mark.slow

Json = dict[str, Any]


def image(size: int, seed: int = 0) -> Json:
    data = base64.b64encode(random.Random(seed).randbytes(size)).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": list(blocks)}


def large() -> bytes:
    """A request of several megabytes: texts, calls and results, small and large images, one huge text."""
    chance = random.Random(4)
    messages: list[Json] = [user({"type": "text", "text": "What is this? 漢字 🙂\n" * 40_000}, image(600_000))]
    for number in range(60):
        text = "def größe(x):\n\treturn \"x\" + '\\n'\n" * chance.randrange(1_000)
        call = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {"path": "/x", "edits": [text] * 2}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": [{"type": "text", "text": text}]}
        messages += [{"role": "assistant", "content": [call]}, user(result, image(number + 1, number))]
    body = {"model": "m", "max_tokens": 9, "stream": True, "system": text, "messages": messages}
    return orjson.dumps(body)


BODY = large()
SMALL = orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})


def cut(body: bytes) -> list[bytes]:
    return [body[start : start + 65_536] for start in range(0, len(body), 65_536)]


async def post(application: MessagesApp, body: bytes, **how: Any) -> Response:
    return await Driver(application, 30.0).request("POST", "/v1/messages", body=cut(body), **how)


class Keeping:
    """An engine that keeps its requests."""

    def __init__(self) -> None:
        self.asked: list[MessagesRequest] = []

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Any]:
        self.asked.append(request)
        yield ["Hello", Finish("end_turn")]


def test_the_body_is_large() -> None:
    assert len(BODY) > 4_000_000 > LARGE_BODY


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_a_large_request_parses_to_the_same_request_as_in_one_step(encoding: str) -> None:
    engine = Keeping()
    encoders: dict[str, Callable[[bytes], bytes]] = {
        "identity": bytes,
        "gzip": lambda body: gzip.compress(body, 1),
        "deflate": _deflated,
    }
    written = encoders[encoding](BODY)
    assert (await post(MessagesApp(engine), written, headers=[("content-encoding", encoding)])).status == 200
    whole = parse_request(BODY)
    assert repr(engine.asked[0]) == repr(whole)
    assert repr(engine.asked[0].raw) == repr(whole.raw)
    assert engine.asked[0].body_size == len(BODY)


def _deflated(body: bytes) -> bytes:
    return zlib.compress(body, 1)[2:-4]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (BODY[:-1], "body: not valid JSON: "),
        (BODY[:-2] + b',"role":1]}', "body: not valid JSON: "),
        (BODY.replace(b'"t59"', b'"t60"', 1), "messages.120.content.0.tool_result.tool_use_id: no earlier tool_use"),
        (BODY.replace(b"==", b"=!"), "messages.2.content.1.image.source.data: could not process image: must be base64"),
        (BODY.replace(b'"max_tokens":9', b'"max_tokens":-1'), "max_tokens: must be 0 or more"),
    ],
    ids=["cut short", "broken", "an id", "base64", "an option"],
)
async def test_an_error_in_a_large_request_has_the_usual_text(wrong: bytes, reason: str) -> None:
    response = await post(MessagesApp(Keeping()), wrong)
    assert response.status == 400
    assert response.json()["error"]["message"].startswith(reason)
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(wrong)
    assert response.json()["error"]["message"] == refusal.value.message


# steps


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many seconds pass with every reading of the clock, for work in steps."""

    def set_to(seconds: float) -> None:
        now = [0.0]

        def clock() -> float:
            now[0] += seconds
            return now[0]

        for module in (messages_app, encoded_request):
            monkeypatch.setattr(module, "perf_counter", clock)

    return set_to


async def turns(work: Any) -> int:
    """How many iterations of the event loop the coroutine takes."""
    task = asyncio.ensure_future(work)
    count = 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    task.result()
    return count


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_other_tasks_run_between_the_steps(encoding: str, ticking: Callable[[float], None]) -> None:
    body = BODY if encoding == "identity" else gzip.compress(BODY, 1)
    how: Json = {"headers": [("content-encoding", encoding)]}
    ticking(0.0)
    at_once = await turns(post(MessagesApp(Keeping()), body, **how))
    ticking(0.002)
    assert await turns(post(MessagesApp(Keeping()), body, **how)) > at_once + len(BODY) // 262_144


async def test_a_small_request_is_parsed_in_one_step(ticking: Callable[[float], None]) -> None:
    ticking(0.0)
    at_once = await turns(post(MessagesApp(Keeping()), SMALL))
    ticking(0.002)
    assert await turns(post(MessagesApp(Keeping()), SMALL)) == at_once


# to an engine


def chunk(content: str | None, finish: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


ANSWER = sse(chunk("Hel"), chunk("lo"), chunk(None, "stop"))


@asynccontextmanager
async def in_front_of(*answers: Answer) -> AsyncIterator[tuple[ScriptedUpstream, MessagesApp]]:
    async with ScriptedUpstream(*answers) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect="openai")
        try:
            yield upstream, MessagesApp(engine)
        finally:
            await engine.stop()


async def test_the_engine_gets_the_same_bytes(ticking: Callable[[float], None]) -> None:
    ticking(0.002)
    async with in_front_of(ANSWER) as (upstream, application):
        assert (await post(application, BODY)).status == 200
        sent = upstream.requests[0].body
    assert sent == encode(to_chat(parse_request(BODY), PLAIN))
    assert b'"url":"data:image/png;base64,' in sent


async def test_an_engine_that_refuses_gets_the_whole_request_again() -> None:
    refusal = json_answer(400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}})
    async with in_front_of(refusal, ANSWER) as (upstream, application):
        assert (await post(application, BODY)).status == 200
        first, second = (orjson.loads(request.body) for request in upstream.requests)
    assert first.pop("stream_options")
    assert first == second


def test_a_large_image_of_a_request_made_in_this_process_is_encoded() -> None:
    request = MessagesRequest("m", 9, [user(image(900_000))])
    assert request.body_size == 0
    part = orjson.loads(encode(to_chat(request, PLAIN)))["messages"][0]["content"][0]
    data = request.messages[0]["content"][0]["source"]["data"]
    assert part == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


# memory


CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
CHAT_END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
MESSAGES = b"".join(
    b"event: %b\ndata: %b\n\n" % (str(data["type"]).encode(), orjson.dumps(data))
    for data in (
        {"type": "message_start", "message": {"id": "x", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    )
)
MESSAGES_END = b"".join(
    b"event: %b\ndata: %b\n\n" % (str(data["type"]).encode(), orjson.dumps(data))
    for data in (
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    )
)
HEAD = [("content-type", "text/event-stream"), ("connection", "close")]


class Halting(ScriptedUpstream):
    """Answers with `first` and, when the test allows it, `last`. It does not keep the request."""

    def __init__(self, models: Json, first: bytes, last: bytes) -> None:
        super().__init__(self._answer)
        self._models = json_answer(200, models)
        self._first, self._last = first, last
        self.go_on = asyncio.Event()

    async def _answer(self, wire: Wire) -> None:
        wire.body = self.requests[-1].body = b""
        if wire.target.endswith("/models"):
            return await wire.send(self._models)
        await wire.send(raw_answer(200, HEAD, self._first))
        await self.go_on.wait()
        await wire.send(self._last)
        return wire.close()


ENGINES: dict[str, tuple[Callable[[Origin], Any], Json, bytes, bytes]] = {
    "chat": (lambda origin: OpenAIEngine(origin, dialect="openai"), {"data": []}, CHAT, CHAT_END),
    "messages": (MessagesEngine, {"data": [{"id": "m", "type": "model"}]}, MESSAGES, MESSAGES_END),
    "detected": (
        lambda origin: AutoEngine(OpenAIEngine(origin, dialect="openai"), MessagesEngine(origin)),
        {"data": [{"id": "m"}]},
        CHAT,
        CHAT_END,
    ),
}
KEPT = 0.1  # times the size of the body, at most


def held() -> set[int]:
    """All requests in this process, by identity."""
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, MessagesRequest)}


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("size", [250_000, 3_000_000])
async def test_an_open_stream_does_not_keep_its_prompt(kind: str, size: int) -> None:
    make, models, first, last = ENGINES[kind]
    prompt = [{"role": "user", "content": "word " * (size // 50)} for _ in range(10)]
    body = cut(orjson.dumps({"model": "m", "max_tokens": 9, "stream": True, "messages": prompt}))
    others = held()
    async with Halting(models, first, last) as upstream:
        engine = make(Origin.parse(upstream.url))
        await engine.start()
        app = Driver(MessagesApp(engine), 30.0)
        small = orjson.dumps({**orjson.loads(SMALL), "stream": True})
        upstream.go_on.set()
        first_answer = await app.request("POST", "/v1/messages", body=small)  # fills the caches
        assert b"message_stop" in first_answer.body
        upstream.go_on.clear()
        tracemalloc.start()
        try:
            async with app.open("POST", "/v1/messages", body=body) as exchange:
                said = b""
                while b"Hel" not in said:
                    said += await exchange.chunk() or b""
                await upstream.until(lambda: held() == others)
                assert tracemalloc.get_traced_memory()[0] < KEPT * size + 150_000
                upstream.go_on.set()
                assert b"message_stop" in await exchange.rest()
        finally:
            tracemalloc.stop()
            await engine.stop()
