"""Counting a prompt by the engine, a tokenizer or an estimate, as clients see it (contract section 10)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.http import prompt_tokens
from anthro_asgi.http.prompt_tokens import PromptCounter
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.request import MessagesRequest

BODY: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi there, you."}]}
REQUEST = MessagesRequest(model="m", max_tokens=1, messages=BODY["messages"])


class Silent:
    """Reports no usage. `count_tokens` returns the given number, raises the given error, or is not implemented."""

    def __init__(self, count: Any = NotImplementedError()) -> None:  # noqa: B008 - it is only raised
        self.count = count

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Any]:
        yield "Hello"
        yield Finish("end_turn")

    async def count_tokens(self, request: MessagesRequest) -> int:
        if isinstance(self.count, Exception):
            raise self.count
        return int(self.count)


async def bare(request: MessagesRequest) -> AsyncIterator[str]:
    yield "Hello"


def forty_two(request: MessagesRequest) -> int:
    return 42


def broken(request: MessagesRequest) -> int:
    raise ValueError("out of ink")


async def counted(app: MessagesApp) -> Response:
    return await Driver(app).request("POST", "/v1/messages/count_tokens", body=orjson.dumps(BODY))


@pytest.mark.clause("10.4")
@pytest.mark.parametrize(
    ("engine", "tokenizer", "tokens", "mark"),
    [
        (Silent(7), None, 7, None),
        (Silent(7), forty_two, 7, None),
        (Silent(), forty_two, 42, "tokenizer"),
        (bare, forty_two, 42, "tokenizer"),
        (Silent(), None, estimate_tokens(REQUEST), "estimate"),
        (bare, None, estimate_tokens(REQUEST), "estimate"),
    ],
)
async def test_the_most_exact_count_is_used_and_marked_unless_it_is_the_engines(
    engine: Any, tokenizer: Any, tokens: int, mark: str | None
) -> None:
    response = await counted(MessagesApp(engine, tokenizer=tokenizer))
    assert response.json() == {"input_tokens": tokens}
    assert response.header("anthro-asgi-token-count") == mark


async def test_an_error_of_the_engine_is_not_replaced_by_an_estimate() -> None:
    response = await counted(MessagesApp(Silent(InvalidRequest("messages: too odd")), tokenizer=forty_two))
    assert (response.status, response.json()["error"]["message"]) == (400, "messages: too odd")


async def usage(app: MessagesApp, *, stream: bool) -> dict[str, Any]:
    """The usage of a whole answer; of a stream, that of its `message_start`."""
    response = await Driver(app).request("POST", "/v1/messages", body=orjson.dumps(BODY | {"stream": stream}))
    if not stream:
        return dict(response.json()["usage"])
    first = response.body.split(b"\n\n")[0].split(b"data: ")[1]
    return dict(orjson.loads(first)["message"]["usage"])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_reported_usage_has_the_estimate(stream: bool) -> None:
    assert (await usage(MessagesApp(Silent()), stream=stream))["input_tokens"] == estimate_tokens(REQUEST)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_has_the_tokenizers_count_if_it_is_ready_in_time(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_tokens, "_THREADS", 1)  # one thread: first come, first served

    async def engine(request: MessagesRequest) -> AsyncIterator[str]:
        await app._prompt_counter.count(request)
        yield "Hello"

    app = MessagesApp(engine, tokenizer=forty_two)
    assert (await usage(app, stream=stream))["input_tokens"] == 42


async def test_an_answer_does_not_wait_for_a_slow_tokenizer() -> None:
    may_end = threading.Event()

    def slow(request: MessagesRequest) -> int:
        may_end.wait()
        return 42

    try:
        told = await usage(MessagesApp(Silent(), tokenizer=slow), stream=True)
        assert told["input_tokens"] == estimate_tokens(REQUEST)
    finally:
        may_end.set()


async def test_an_answer_does_not_fail_with_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_tokens, "_THREADS", 1)
    counter = PromptCounter(as_engine(bare), broken)
    soon = counter.start_estimate(REQUEST)
    with pytest.raises(ValueError, match="out of ink"):
        await counter.count(REQUEST)
    assert soon() == estimate_tokens(REQUEST)
    assert (await usage(MessagesApp(Silent(), tokenizer=broken), stream=True))["input_tokens"]


async def test_a_slow_tokenizer_does_not_occupy_the_default_executor() -> None:
    """Names are resolved in the default executor."""
    may_end, threads = threading.Event(), set()

    def slow(request: MessagesRequest) -> int:
        threads.add(threading.current_thread().name)
        may_end.wait(10)
        return 42

    counter = PromptCounter(as_engine(bare), slow)
    estimates = [counter.start_estimate(REQUEST) for _ in range(100)]
    try:
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "resolved") == "resolved"
    finally:
        for estimate in estimates:
            estimate.release_request()
        may_end.set()
    assert await counter.count(REQUEST) == (42, (("anthro-asgi-token-count", "tokenizer"),))
    assert 1 <= len(threads) <= 2


async def test_a_count_that_nothing_needs_any_more_is_not_made() -> None:
    made: list[MessagesRequest] = []
    may_end = threading.Event()

    def slow(request: MessagesRequest) -> int:
        made.append(request)
        may_end.wait(10)
        return 42

    counter = PromptCounter(as_engine(bare), slow)
    for _ in range(50):
        counter.start_estimate(REQUEST).release_request()
    await asyncio.sleep(0)  # asyncio passes a cancellation on in the next iteration
    may_end.set()
    assert await counter.count(REQUEST) == (42, (("anthro-asgi-token-count", "tokenizer"),))
    assert len(made) <= 3


async def test_uploads_and_counts_take_part_in_the_limit_of_their_key() -> None:
    """24 unfinished uploads of one key with a limit of 1 took 846 MiB."""
    app = MessagesApp(Silent(7), keys=["secret"], max_concurrency_per_key=1)
    key = app._keys.authenticate([(b"x-api-key", b"secret")])
    headers = [(b"x-api-key", b"secret")]
    for upload in (app._admission.uploading(key), app._counting.uploading(key)):
        with upload:
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                response = await Driver(app).request("POST", path, headers=headers, body=orjson.dumps(BODY))
                assert response.status == 529
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            response = await Driver(app).request("POST", path, headers=headers, body=orjson.dumps(BODY))
            assert response.status == 200
