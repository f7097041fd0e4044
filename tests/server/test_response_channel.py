"""The channel that the server offers beside ASGI: direct writes of a body, and a call when the client leaves."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.server.http_protocol import Channel, HeadHolder
from anthro_asgi.server.read_control import ReadControl
from anthro_asgi.wire.response_channel import CHANNEL, ResponseChannel
from tests.server.test_http_protocol import CLASSES, connected, received

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
Responder = Callable[[ResponseChannel, Any], Awaitable[None]]


def post(**changes: Any) -> bytes:
    body = json.dumps({**BODY, **changes}).encode()
    return b"POST /v1/messages HTTP/1.1\r\nHost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def responding(respond: Responder) -> Any:
    """An application that sends a head and an empty piece, lets `respond` write to the channel, and ends the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert not scope[CHANNEL].write(b"before the head")
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await respond(scope[CHANNEL], send)
        await send({"type": "http.response.body", "body": b""})

    return app


async def read_until(client: Any, end: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(end):
        piece = await loop.sock_recv(client, 10_000)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("kind", CLASSES)
async def test_pieces_that_are_written_directly_are_framed_as_those_that_are_sent(kind: Any) -> None:
    pieces = [b"a", b"\r\n", b"x" * 300, "é".encode()]

    async def directly(channel: ResponseChannel, send: Any) -> None:
        for piece in pieces:
            assert channel.write(piece)

    async def sent(_: ResponseChannel, send: Any) -> None:
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def in_turn(channel: ResponseChannel, send: Any) -> None:
        for number, piece in enumerate(pieces):
            await (directly_one(channel, piece) if number % 2 else sent_one(send, piece))

    async def directly_one(channel: ResponseChannel, piece: bytes) -> None:
        assert channel.write(piece)

    async def sent_one(send: Any, piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    bodies = []
    for respond in (directly, sent, in_turn):
        async with connected(kind, responding(respond)) as (_, client):
            client.send(GET)
            response = await read_until(client, b"0\r\n\r\n")
            bodies.append(response.partition(b"\r\n\r\n")[2])
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0].startswith(b"1\r\na\r\n2\r\n\r\n\r\n12c\r\n")


@pytest.mark.parametrize("kind", CLASSES)
async def test_an_empty_piece_is_left_to_send_because_it_would_end_the_body(kind: Any) -> None:
    async def respond(channel: ResponseChannel, send: Any) -> None:
        assert not channel.write(b"")
        assert channel.write(b"end")

    async with connected(kind, responding(respond)) as (_, client):
        client.send(GET)
        assert (await read_until(client, b"0\r\n\r\n")).endswith(b"\r\n\r\n3\r\nend\r\n0\r\n\r\n")


@pytest.mark.parametrize("kind", CLASSES)
async def test_nothing_is_written_directly_while_the_client_reads_nothing(kind: Any) -> None:
    refused = asyncio.Event()

    async def respond(channel: ResponseChannel, send: Any) -> None:
        while channel.write(b"x" * 100_000):
            pass
        refused.set()
        await send({"type": "http.response.body", "body": b"waited", "more_body": True})

    async with connected(kind, responding(respond)) as (_, client):
        client.send(GET)
        await refused.wait()
        assert b"waited" in await read_until(client, b"0\r\n\r\n")


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_client_that_leaves_is_reported_once_and_nothing_is_written_to_it(kind: Any) -> None:
    told: list[str] = []
    left = asyncio.Event()

    async def respond(channel: ResponseChannel, send: Any) -> None:
        def lost() -> None:
            told.append("lost")
            left.set()

        channel.on_lost = lost
        await left.wait()
        assert channel.lost
        assert not channel.write(b"more")

    async with connected(kind, responding(respond)) as (_, client):
        client.send(GET)
        await read_until(client, b"\r\n\r\n")
        client.close()
        await left.wait()
        await asyncio.sleep(0)
        assert told == ["lost"]


async def test_a_client_is_lost_once() -> None:
    told: list[str] = []
    transport = asyncio.Transport()
    channel = Channel(transport, ReadControl(transport, asyncio.get_running_loop()), HeadHolder(transport))
    channel.on_lost = lambda: told.append("lost")
    channel.lose()
    channel.lose()
    assert told == ["lost"]


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_client_that_leaves_after_the_response_is_not_reported(kind: Any) -> None:
    told: list[str] = []

    async def respond(channel: ResponseChannel, send: Any) -> None:
        channel.on_lost = lambda: told.append("lost")

    async with connected(kind, responding(respond)) as (protocol, client):
        closed = asyncio.Event()

        def connection_lost(exc: Exception | None) -> None:
            kind.connection_lost(protocol, exc)
            closed.set()

        protocol.connection_lost = connection_lost
        client.send(GET)
        await read_until(client, b"0\r\n\r\n")
        client.close()
        await closed.wait()
    assert told == []


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("request_head", [b"HEAD / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.0\r\n"])
async def test_a_response_that_is_not_chunked_has_no_channel(kind: Any, request_head: bytes) -> None:
    found: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(CHANNEL in scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    async with connected(kind, app) as (_, client):
        client.send(request_head + b"connection: close\r\n\r\n")
        assert (await received(client)).startswith(b"HTTP/1.1 200")
    assert found == [False]


@pytest.mark.parametrize("kind", CLASSES)
async def test_the_engine_is_closed_when_the_client_of_a_stream_leaves(kind: Any) -> None:
    closed = asyncio.Event()

    async def endless(_: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield "more "
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with connected(kind, MessagesApp(endless)) as (_, client):
        client.send(post())
        await read_until_contains(client, b"more ")
        client.close()
        await closed.wait()


async def read_until_contains(client: Any, part: bytes) -> None:
    data = b""
    while part not in data:
        data += await asyncio.get_running_loop().sock_recv(client, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
async def test_requests_on_one_connection_leave_nothing_to_the_garbage_collector(kind: Any) -> None:
    async def brief(_: Any) -> AsyncIterator[str]:
        yield "one"
        yield "two"

    async with connected(kind, MessagesApp(brief)) as (_, client):

        async def ask() -> None:
            client.send(post())
            await read_until(client, b"0\r\n\r\n")

        for _ in range(3):
            await ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await ask()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = {type(thing).__qualname__ for thing in gc.garbage if is_about_a_response(thing)}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert found == set()


def is_about_a_response(thing: Any) -> bool:
    with suppress(Exception):
        return type(thing).__module__.startswith("anthro_asgi") or type(thing).__qualname__ == "RequestResponseCycle"
    return False
