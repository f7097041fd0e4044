"""Engines that block: generator functions, each stream in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from anthro_asgi import Finish, MessagesApp, Thinking
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.functions import AHEAD, as_engine
from anthro_asgi.http.admission import Admission
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.errors import RateLimited
from anthro_asgi.wire.request import MessagesRequest

HELLO = MessagesRequest("m", 100, [{"role": "user", "content": "Hi"}])
BODY = b'{"model":"m","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'


async def told(engine: Any) -> list[Any]:
    return [delta async for batch in engine.stream(HELLO) for delta in batch]


async def test_a_generators_deltas_are_streamed_in_order_and_returning_ends_the_turn() -> None:
    def engine(request: MessagesRequest) -> Iterator[Any]:
        yield Thinking("hm")
        for number in range(1000):
            yield str(number)
        yield ["a", "b"]

    response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=BODY)
    events = parse_events(response.body)
    check_stream(events)
    message = message_from_events(events)
    assert message["content"][1]["text"] == "".join(map(str, range(1000))) + "ab"
    assert message["stop_reason"] == "end_turn"


async def test_a_stream_method_that_blocks_runs_in_a_thread_too() -> None:
    class Engine:
        def stream(self, request: MessagesRequest) -> Iterator[Any]:
            yield threading.current_thread().name
            yield Finish("max_tokens")

    engine = as_engine(Engine())
    assert await told(engine) == ["anthro-asgi engine", Finish("max_tokens")]


async def test_the_event_loop_runs_while_the_generator_blocks() -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def engine(request: MessagesRequest) -> Iterator[Any]:
        blocked.set()
        assert go_on.wait(10)
        yield "done"

    task = asyncio.create_task(told(as_engine(engine)))
    await asyncio.to_thread(blocked.wait, 10)
    assert not task.done()  # this line runs, so the loop is not blocked
    go_on.set()
    assert await task == ["done"]


async def test_an_error_of_the_generator_follows_the_deltas_it_yielded() -> None:
    def engine(request: MessagesRequest) -> Iterator[Any]:
        yield "half"
        raise RateLimited("slower")

    stream: Any = as_engine(engine).stream(HELLO)
    assert await anext(stream) == ["half"]
    with pytest.raises(RateLimited):
        await anext(stream)


async def test_system_exit_in_the_thread_is_an_error_and_does_not_end_the_service() -> None:
    def engine(request: MessagesRequest) -> Iterator[Any]:
        yield "half"
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await told(as_engine(engine))


async def test_the_generator_is_closed_at_its_next_yield_when_the_client_disconnects() -> None:
    closed = threading.Event()

    def engine(request: MessagesRequest) -> Iterator[Any]:
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    stream: Any = as_engine(engine).stream(HELLO)
    assert (await anext(stream))[0] == "more"
    await stream.aclose()
    assert await asyncio.to_thread(closed.wait, 10)


async def test_no_more_generators_run_than_there_are_slots() -> None:
    """A generator goes on after its client has disconnected, until its next `yield`. So its slot stays taken."""
    running, most = 0, 0
    go_on, lock = threading.Event(), threading.Lock()

    def generator(request: MessagesRequest) -> Iterator[Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            yield "first"
            assert go_on.wait(10)
            yield "second"
        finally:
            with lock:
                running -= 1

    engine, admission = as_engine(generator), Admission(2, 64, 10.0)

    async def client() -> None:
        async with admission.slot():
            stream: Any = engine.stream(HELLO)
            await anext(stream)
            await stream.aclose()

    clients = [asyncio.create_task(client()) for _ in range(20)]
    for _ in range(3):  # every client has come; then two have disconnected, if their threads were quick
        await asyncio.sleep(0)
    assert (admission.running, admission.waiting) == (2, 18)
    go_on.set()
    await asyncio.gather(*clients)
    assert (most, running, admission.running) == (2, 0, 0)


async def test_a_client_that_leaves_while_a_generator_ends_does_not_free_its_slot() -> None:
    ending, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def generator(request: MessagesRequest) -> Iterator[Any]:
        try:
            yield Finish("end_turn")
        finally:
            loop.call_soon_threadsafe(ending.set)
            assert go_on.wait(10)

    engine, admission = as_engine(generator), Admission(1, 0, 10.0)

    async def client() -> None:
        async with admission.slot():
            stream: Any = engine.stream(HELLO)
            await anext(stream)
            await stream.aclose()

    left = asyncio.create_task(client())
    await ending.wait()
    for _ in range(2):  # the client, and then the server that stops
        left.cancel()
        await asyncio.sleep(0)
    assert (left.done(), admission.running) == (False, 1)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert admission.running == 0


async def test_a_generator_is_at_most_a_fixed_number_of_batches_ahead() -> None:
    made = 0

    def engine(request: MessagesRequest) -> Iterator[Any]:
        nonlocal made
        while made < 100_000:
            made += 1
            yield "x"

    stream: Any = as_engine(engine).stream(HELLO)
    read = 0
    for _ in range(20):
        read += len(await anext(stream))
        assert made <= read + 2 * AHEAD
    await stream.aclose()
    assert made < 100_000
