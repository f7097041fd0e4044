"""A connection at the moment when the service is about to close it."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
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


class Busy(Turns):
    """No connection may handle what it has read, until `resume` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.added = asyncio.Event()

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        return False

    def add(self, resume: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.resume = resume
        self.added.set()


MOMENTS: dict[str, Callable[[Any], None]] = {
    "the keep-alive timeout": lambda protocol: protocol.timeout_keep_alive_handler(),
    "the shutdown": lambda protocol: protocol.shutdown(),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", CLASSES)
async def test_a_request_that_waits_for_its_turn_is_answered(kind: type[asyncio.Protocol], moment: str) -> None:
    async with connected(kind) as (protocol, client):
        protocol.turns = turns = Busy()
        client.send(ALIVE)
        await turns.added.wait()
        protocol._idle_since -= 3600
        MOMENTS[moment](protocol)
        await asyncio.sleep(0)
        assert not protocol.transport.is_closing()
        turns.resume()
        assert (await asyncio.get_running_loop().sock_recv(client, 10_000)).startswith(b"HTTP/1.1 200 ")


class SometimesBusy(Turns):
    """Lets a connection wait at random, for one to three iterations of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(3)
        self.waited = 0

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self.random.random() < 0.5

    def add(self, resume: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.waited += 1
        self._resume_after(self.random.randint(1, 3), resume, loop)

    def _resume_after(self, iterations: int, resume: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if iterations:
            loop.call_soon(self._resume_after, iterations - 1, resume, loop)
        else:
            resume()


async def echo_digests(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length and the digest of the body."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    text = b"%d %s" % (len(body), sha256(body).hexdigest().encode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("kind", CLASSES)
async def test_bodies_arrive_whole_and_in_order_however_often_their_connection_waits(
    kind: type[asyncio.Protocol],
) -> None:
    loop = asyncio.get_running_loop()
    async with connected(kind, echo_digests) as (protocol, client):
        protocol.turns = turns = SometimesBusy()
        source = random.Random(4)
        for number in range(12):
            body = source.randbytes(source.choice([0, 1, 20_000, 300_000]))
            head = b"POST / HTTP/1.1\r\nHost: a\r\n"
            framed = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            if number % 3 == 2:
                framed = b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 3_000)
            sent = head + framed
            while sent:
                size = source.choice([1, 30, 5_000, 70_000])
                await loop.sock_sendall(client, sent[:size])
                sent = sent[size:]
                await asyncio.sleep(0)
            answer = b""
            while sha256(body).hexdigest().encode() not in answer:
                piece = await asyncio.wait_for(loop.sock_recv(client, 10_000), 10)
                assert piece
                answer += piece
            assert answer.partition(b"\r\n\r\n")[2] == b"%d %b" % (len(body), sha256(body).hexdigest().encode())
        assert turns.waited > 10


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


# --- the head of a response is written with its first body bytes ---


class Recorder:
    """Records what is written to a transport, and writes it."""

    def __init__(self, protocol: Any) -> None:
        self.writes: list[bytes] = []
        self._transport = protocol.transport
        protocol.transport = self

    def write(self, data: bytes) -> None:
        if data:
            self.writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


Steps = list[tuple[str, Any]]


def application(steps: Steps) -> Any:
    """An ASGI application that takes these steps: a head, pieces of a body, an exception, or something to wait for."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step, value in steps:
            if step == "head":
                await send({"type": "http.response.start", "status": value[0], "headers": value[1]})
            elif step == "raise":
                raise ValueError(value)
            elif step == "receive":
                await receive()
            elif step == "wait":
                await value.wait()
            else:
                await send({"type": "http.response.body", "body": value, "more_body": step == "more"})

    return app


LENGTH: Steps = [("head", (200, [(b"content-length", b"4")]))]
CHUNKED: Steps = [("head", (200, []))]
ONE_WRITE: dict[str, tuple[bytes, Steps, bytes]] = {
    "whole": (b"GET / HTTP/1.1", [*LENGTH, ("last", b"body")], b"body"),
    "stream": (b"GET / HTTP/1.1", [*CHUNKED, ("more", b"one"), ("last", b"two")], b"3\r\none\r\n"),
    "empty": (b"GET / HTTP/1.1", [*CHUNKED, ("last", b"")], b"0\r\n\r\n"),
    "no content": (b"GET / HTTP/1.1", [("head", (204, [])), ("last", b"")], b""),
    "HEAD": (b"HEAD / HTTP/1.1", [*LENGTH, ("last", b"")], b""),
    "HTTP/1.0": (b"GET / HTTP/1.0", [*LENGTH, ("last", b"body")], b"body"),
}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("line", "steps", "body"), ONE_WRITE.values(), ids=ONE_WRITE)
async def test_the_head_and_the_first_body_bytes_are_one_write(
    line: bytes, steps: Steps, body: bytes, kind: type[asyncio.Protocol]
) -> None:
    async with connected(kind, application(steps)) as (protocol, client):
        recorder = Recorder(protocol)
        client.send(line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await received(client)
    assert b"".join(recorder.writes) == answer
    head, _, rest = recorder.writes[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 2")
    # h11 ends a chunked body in a write of its own; that of an empty piece is empty, and writes the head
    assert rest in (body, body + b"3\r\ntwo\r\n0\r\n\r\n") or (kind.__name__ == "H11" and not steps[-1][1])


@pytest.mark.parametrize("kind", CLASSES)
async def test_an_empty_first_piece_writes_the_head_at_once(kind: type[asyncio.Protocol]) -> None:
    """ASGI: an application sends it so that the client gets the head before there is a body."""
    goes_on = asyncio.Event()
    steps: Steps = [*CHUNKED, ("more", b""), ("wait", goes_on), ("last", b"")]
    async with connected(kind, application(steps)) as (_, client):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = await asyncio.get_running_loop().sock_recv(client, 1000)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")
        goes_on.set()
        assert await received(client) == b"0\r\n\r\n"


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_connection_writes_each_head_with_its_own_body(kind: type[asyncio.Protocol]) -> None:
    async with connected(kind, application([*LENGTH, ("last", b"body")])) as (protocol, client):
        recorder = Recorder(protocol)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await received(client)
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"\r\n\r\nbody") == 3
    assert len(recorder.writes) == 3


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_100_continue_is_not_held(kind: type[asyncio.Protocol]) -> None:
    steps: Steps = [("receive", None), *LENGTH, ("last", b"body")]
    async with connected(kind, application(steps)) as (_, client):
        loop = asyncio.get_running_loop()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 100 ")
        client.send(b"x")
        answer = b""
        while not answer.endswith(b"\r\n\r\nbody"):
            answer += await loop.sock_recv(client, 1000)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_head_without_a_body_is_written_before_the_connection_is_closed(kind: type[asyncio.Protocol]) -> None:
    for steps in ([*LENGTH], [*LENGTH, ("raise", "no body")]):
        async with connected(kind, application(steps)) as (_, client):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await received(client)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n")
