"""Request bodies that are being read or wait for a slot take a bounded memory, in total and for each API key."""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp
from anthro_asgi.http.body_memory import BodyMemory
from anthro_asgi.testing.driver import Driver
from anthro_asgi.wire.errors import Overloaded

KIB = 1024
KEYS = ("key-one", "key-two")


class Echo:
    """An engine that answers with one word."""

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        yield ["Hi", Finish("end_turn")]


def body(size: int) -> bytes:
    return orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * size}]})


def with_key(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-api-key", key.encode())]


class Uploads:
    """Requests that have sent `size` bytes of their body and wait."""

    def __init__(self, app: MessagesApp) -> None:
        self.app = app
        self.tasks: list[asyncio.Task[int]] = []
        self._end = asyncio.Event()

    async def begin(self, size: int, key: str | None = None, path: str = "/v1/messages") -> None:
        status = 0
        sent = asyncio.Event()
        pieces = [bytes(size)]

        async def receive() -> dict[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(), "more_body": True}
            sent.set()
            await self._end.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        async def upload() -> int:
            scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "query_string": b""}
            headers = [] if key is None else with_key(key)
            await self.app({**scope, "headers": headers}, receive, send)
            sent.set()
            return status

        self.tasks.append(asyncio.create_task(upload()))
        await sent.wait()

    async def statuses(self) -> list[int]:
        """Of a request that was not answered, 0."""
        self._end.set()
        return await asyncio.gather(*self.tasks)


async def test_unfinished_uploads_of_one_key_take_a_bounded_memory() -> None:
    """Their number alone does not bound it: 24 uploads of 32 MiB took 846 MiB."""
    app = MessagesApp(Echo(), keys=KEYS, max_body_memory=9000 * KIB, max_body_memory_per_key=1000 * KIB)
    uploads = Uploads(app)
    tracemalloc.start()
    try:
        for _ in range(24):
            await uploads.begin(300 * KIB, KEYS[0])
        assert tracemalloc.get_traced_memory()[0] < 1300 * KIB
    finally:
        tracemalloc.stop()
    other = await Driver(app).request("POST", "/v1/messages", headers=with_key(KEYS[1]), body=body(300 * KIB))
    assert other.status == 200
    assert await uploads.statuses() == [0] * 3 + [529] * 21
    assert app._bodies.used == 0
    assert b'admission_refusals_total{reason="bodies_of_key"} 21' in app.metrics.exposition()[0]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_uploads_without_a_key_take_a_bounded_memory(path: str) -> None:
    app = MessagesApp(Echo(), max_body_memory=1000 * KIB)
    uploads = Uploads(app)
    tracemalloc.start()
    try:
        for _ in range(24):
            await uploads.begin(300 * KIB, path=path)
        assert tracemalloc.get_traced_memory()[0] < 1300 * KIB
    finally:
        tracemalloc.stop()
    refused = await Driver(app).request("POST", path, body=body(300 * KIB))
    assert (refused.status, refused.json()["error"]["type"]) == (529, "overloaded_error")
    assert await uploads.statuses() == [0] * 3 + [529] * 21
    assert (await Driver(app).request("POST", path, body=body(300 * KIB))).status == 200
    assert app._bodies.used == 0


async def test_a_client_that_sends_slowly_takes_what_it_has_sent_and_not_what_it_announced() -> None:
    app = MessagesApp(Echo(), max_body_memory=1000 * KIB)
    uploads = Uploads(app)
    for _ in range(24):
        await uploads.begin(1)
    assert app._bodies.used == 24
    assert (await Driver(app).request("POST", "/v1/messages", body=body(900 * KIB))).status == 200
    assert await uploads.statuses() == [0] * 24


async def test_a_decompressed_body_counts_too() -> None:
    app = MessagesApp(Echo(), max_body_memory=1000 * KIB)
    bomb = gzip.compress(body(3000 * KIB))
    refused = await Driver(app).request("POST", "/v1/messages", body=bomb, headers=[(b"content-encoding", b"gzip")])
    assert refused.status == 529
    assert app._bodies.used == 0


async def test_a_request_that_has_a_slot_counts_no_more() -> None:
    used = []

    class Looking:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            used.append(app._bodies.used)
            yield ["Hi", Finish("end_turn")]

    app = MessagesApp(Looking())
    assert (await Driver(app).request("POST", "/v1/messages", body=body(300 * KIB))).status == 200
    assert used == [0]


async def test_a_request_that_waits_for_a_slot_still_counts() -> None:
    opened, waiting = asyncio.Event(), asyncio.Event()

    class Slow:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            waiting.set()
            await opened.wait()
            yield ["Hi", Finish("end_turn")]

    app = MessagesApp(Slow(), max_concurrency=1)
    first = asyncio.create_task(Driver(app).request("POST", "/v1/messages", body=body(10 * KIB)))
    await waiting.wait()
    second = asyncio.create_task(Driver(app).request("POST", "/v1/messages", body=body(10 * KIB)))
    for _ in range(20):
        await asyncio.sleep(0)  # until the second waits
    assert app._admission.waiting == 1
    assert app._bodies.used > 10 * KIB
    opened.set()
    assert [(await task).status for task in (first, second)] == [200, 200]
    assert app._bodies.used == 0


def test_a_refused_byte_is_not_counted() -> None:
    memory = BodyMemory(10, 5)
    with memory.share(b"a") as one, memory.share(b"b") as two:
        one.take(5)
        with pytest.raises(Overloaded):
            one.take(1)
        two.take(5)
        with pytest.raises(Overloaded), memory.share(b"c") as three:
            three.take(1)
        assert memory.used == 10
        one.release()
        one.release()
        assert memory.used == 5
    assert memory.used == 0
