"""A connection at the moment when the service is about to close it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.server.http_protocol import h11_class, protocol_class
from anthro_asgi.server.read_control import Turns
from anthro_asgi.settings.loader import load_settings
from tests.server.engines import large

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
SETTINGS = load_settings({}, {})
METRICS = Metrics(())
CLASSES = (
    protocol_class(SETTINGS, METRICS),
    type("H11", (h11_class(),), {"settings": SETTINGS, "metrics": METRICS, "turns": Turns()}),
)


@asynccontextmanager
async def connected(kind: type[asyncio.Protocol], app: Any = None) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A protocol on a real socket, and the client's end of the socket."""
    config = Config(app or MessagesApp(large), http=kind, ws="none", interface="asgi3", lifespan="off", log_config=None)
    config.load()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_accepted_socket(
        lambda: kind(config=config, server_state=ServerState(), app_state={}),  # type: ignore[call-arg]
        ours,
    )
    with theirs:
        yield protocol, theirs
        transport.abort()
        await asyncio.sleep(0)


async def received(client: socket.socket) -> bytes:
    """All bytes until the service closes the connection."""
    loop = asyncio.get_running_loop()
    data_so_far = b""
    while data := await loop.sock_recv(client, 10_000):
        data_so_far += data
    return data_so_far


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_request_that_is_still_in_the_kernel_is_answered(kind: type[asyncio.Protocol]) -> None:
    async with connected(kind) as (protocol, client):
        protocol._idle_since -= 3600
        client.send(ALIVE)
        protocol.shutdown()
        assert (await received(client)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_connection_that_was_idle_for_long_is_closed_without_a_response(kind: type[asyncio.Protocol]) -> None:
    async with connected(kind) as (protocol, client):
        protocol._idle_since -= 3600
        protocol.shutdown()
        assert await received(client) == b""


@pytest.mark.parametrize("kind", CLASSES)
async def test_empty_lines_do_not_keep_a_connection_open(kind: type[asyncio.Protocol]) -> None:
    async with connected(kind) as (protocol, client):
        protocol._idle_since -= 3600
        client.send(b"\r\n")
        protocol.shutdown()
        assert await received(client) == b""


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("stream", [b"true", b"false"])
async def test_an_http_1_0_client_gets_no_chunks(kind: type[asyncio.Protocol], stream: bytes) -> None:
    body = b'{"model":"5","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"stream":%s}' % stream
    async with connected(kind) as (_, client):
        client.send(b"POST /v1/messages HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        head, _, answer = (await received(client)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"chunked" not in head.lower()
    if stream == b"true":
        assert message_from_events(parse_events(answer))["content"] == [{"type": "text", "text": "xxxxx"}]
    else:
        assert json.loads(answer)["content"] == [{"type": "text", "text": "xxxxx"}]


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_server_without_memory_for_a_body_says_500(kind: type[asyncio.Protocol]) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    full = type("Full", (kind,), {"on_body": exhausted, "handle_events": exhausted})  # of httptools, and of h11
    async with connected(full) as (_, client):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na")
        answer = await received(client)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"out of memory" in answer
