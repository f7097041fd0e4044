"""Admission and draining through the whole application."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.conformance.grammar import check_stream, parse_events
from anthro_asgi.testing.driver import Driver
from tests.support.clock import fake_clock

HELLO = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
KEYS = ("key-one", "key-two")


class Gated:
    """An engine whose answers end when the test opens its gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self._asks: asyncio.Queue[None] = asyncio.Queue()

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        self.asked += 1
        self._asks.put_nowait(None)
        yield "first"
        await self.gate.wait()
        yield Finish("end_turn")

    async def busy(self, count: int = 1) -> None:
        """Wait until the engine has received `count` more requests."""
        for _ in range(count):
            await self._asks.get()


def body(**changes: Any) -> bytes:
    return orjson.dumps({**HELLO, **changes})


def with_key(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-api-key", key.encode())]


async def test_a_request_beyond_the_limits_is_refused_at_once_and_open_streams_continue() -> None:
    engine = Gated()
    app = MessagesApp(engine, max_concurrency=2, max_queue=1)
    driver = Driver(app)
    open_ones = [asyncio.create_task(driver.request("POST", "/v1/messages", body=body(stream=True))) for _ in "ab"]
    await engine.busy(2)
    waiting = asyncio.create_task(driver.request("POST", "/v1/messages", body=body(stream=True)))
    await asyncio.sleep(0.01)
    began = perf_counter()
    refused = await driver.request("POST", "/v1/messages", body=b"not even read")
    assert perf_counter() - began < 0.1
    assert (refused.status, refused.json()["error"]["type"]) == (529, "overloaded_error")
    assert int(refused.header("retry-after") or 0) >= 1
    assert engine.asked == 2
    engine.gate.set()
    for task in [*open_ones, waiting]:
        events = parse_events((await task).body)
        check_stream(events)
        assert events[-1].type == "message_stop"
    assert engine.asked == 3


@fake_clock
async def test_a_request_that_waits_too_long_is_refused_with_its_own_status() -> None:
    engine = Gated()
    driver = Driver(MessagesApp(engine, max_concurrency=1, queue_timeout=4.0), 1000.0)
    first = asyncio.create_task(driver.request("POST", "/v1/messages", body=body()))
    await engine.busy()
    for stream in (True, False):
        response = await driver.request("POST", "/v1/messages", body=body(stream=stream))
        assert (response.status, response.json()["error"]["type"]) == (529, "overloaded_error")
    engine.gate.set()
    assert (await first).status == 200


@fake_clock
async def test_a_stream_that_waits_in_the_queue_gets_pings_and_then_an_error_event() -> None:
    engine = Gated()
    driver = Driver(MessagesApp(engine, max_concurrency=1, queue_timeout=25.0, ping_interval=10.0), 1000.0)
    first = asyncio.create_task(driver.request("POST", "/v1/messages", body=body()))
    await engine.busy()
    response = await driver.request("POST", "/v1/messages", body=body(stream=True))
    events = parse_events(response.body)
    check_stream(events)
    assert [event.type for event in events] == ["message_start", "ping", "ping", "error"]
    assert events[-1].data["error"]["type"] == "overloaded_error"
    engine.gate.set()
    await first


async def test_model_lists_counts_and_probes_need_no_slot() -> None:
    engine = Gated()
    driver = Driver(MessagesApp(engine, max_concurrency=1, max_queue=0))
    first = asyncio.create_task(driver.request("POST", "/v1/messages", body=body()))
    await engine.busy()
    assert (await driver.request("POST", "/v1/messages/count_tokens", body=body())).status == 200
    for path in ("/v1/models", "/healthz", "/readyz"):
        assert (await driver.request("GET", path)).status == 200
    engine.gate.set()
    await first


async def test_one_key_at_its_limit_does_not_block_another_key() -> None:
    engine = Gated()
    app = MessagesApp(engine, keys=KEYS, max_concurrency_per_key=1)
    driver = Driver(app)
    first = asyncio.create_task(driver.request("POST", "/v1/messages", headers=with_key(KEYS[0]), body=body()))
    await engine.busy()
    again = await driver.request("POST", "/v1/messages", headers=with_key(KEYS[0]), body=body())
    assert (again.status, again.json()["error"]["type"]) == (529, "overloaded_error")
    engine.gate.set()
    assert (await driver.request("POST", "/v1/messages", headers=with_key(KEYS[1]), body=body())).status == 200
    assert (await first).status == 200
    assert (await driver.request("POST", "/v1/messages", headers=with_key(KEYS[0]), body=body())).status == 200


async def test_a_client_that_disconnects_gives_its_slot_back() -> None:
    engine = Gated()
    app = MessagesApp(engine, max_concurrency=1, max_queue=1)
    driver = Driver(app)
    for _ in range(3):
        task = asyncio.create_task(driver.request("POST", "/v1/messages", body=body(stream=True)))
        await engine.busy()
        task.cancel()
        await asyncio.wait({task})
    engine.gate.set()
    assert (await driver.request("POST", "/v1/messages", body=body())).status == 200


@pytest.mark.clause("1.5")
async def test_a_draining_service_is_not_ready_and_closes_connections_after_their_response() -> None:
    engine = Gated()
    app = MessagesApp(engine)
    driver = Driver(app)
    engine.gate.set()
    assert "connection" not in (await driver.request("POST", "/v1/messages", body=body())).headers
    app.draining = True
    ready = await driver.request("GET", "/readyz")
    assert (ready.status, ready.json()) == (503, {"status": "draining"})
    assert (await driver.request("GET", "/healthz")).status == 200
    for stream in (True, False):
        response = await driver.request("POST", "/v1/messages", body=body(stream=stream))
        assert (response.status, response.header("connection")) == (200, "close")


async def test_replaced_keys_are_accepted_and_old_ones_are_not() -> None:
    engine = Gated()
    engine.gate.set()
    app = MessagesApp(engine, keys=KEYS)
    driver = Driver(app)
    app.replace_keys(("key-three",))
    for key, status in ((KEYS[0], 401), ("key-three", 200)):
        assert (await driver.request("POST", "/v1/messages", headers=with_key(key), body=body())).status == status
