"""Both parsers of requests accept and refuse the same bytes of a client, however the bytes are cut.

The protocol classes of the service run on a real socket. The application echoes what it receives.
"""

import asyncio
import json
import random
import re
import socket
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.server.http_protocol import h11_class, protocol_class
from anthro_asgi.server.read_control import Turns
from anthro_asgi.settings.loader import load_settings

REQUESTS = 1000
SETTLED = 12  # iterations of the event loop after which nothing more happens without new bytes
SETTINGS = load_settings({}, {"max_head": "2KiB"})
MEMBERS = {"settings": SETTINGS, "metrics": Metrics(())}
CLASSES = (
    protocol_class(SETTINGS, MEMBERS["metrics"]),  # type: ignore[arg-type]  # the values of the dict differ
    type("H11", (h11_class(),), {**MEMBERS, "turns": Turns()}),
)
LINES = (
    b"POST /a?b=c HTTP/1.1",
    b"POST /a HTTP/1.1",
    b"GET / HTTP/1.1",
    b"GET /%41%zz HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"POST /a HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
    b"BREW / HTTP/1.1",
    b"GET http://a/b HTTP/1.1",
    b"GET /a#b HTTP/1.1",
    b"GET  / HTTP/1.1",
    b"GET / HTTP/2.0",
    b"get / HTTP/1.1",
)
FIELDS = (
    b"Connection: close",
    b"Connection: keep-alive",
    b"X-A: b",
    b"X-A:",
    b"X-A: \xe9",
    b"Expect: 100-continue",
    b"Upgrade: websocket",
    b"Transfer-Encoding: gzip",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Content-Length: +5",
    b"X-A : b",
    b" folded",
    b"X-A: \x00",
    b"X-A: b\rc",
    b"X-B: " + b"b" * 2048,
)
SIZES = (b"5", b"5", b"05", b"5;a=b", b"5;", b" 5", b"5 ", b"0x5", b"g", b"", b"f" * 16)
DATA = (b"hello", b"hello", b"hello", b"hell", b"hello!", b"a\r\nbc")
TRAILERS = (b"", b"", b"A: b\r\n", b"A : b\r\n", b" A\r\n", b"A\r\n", b"Content-Length: 5\r\n")


class Outcome(NamedTuple):
    """Statuses and bodies of the responses, without request ids, and whether the service has ended its side."""

    statuses: list[bytes]
    bodies: list[bytes]
    ended: bool


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if message["type"] == "http.disconnect":
        return
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    seen = [scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body.decode("latin-1")]
    told = json.dumps(seen).encode()
    length = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else told})


async def outcome(kind: type[asyncio.Protocol], pieces: list[bytes]) -> Outcome:
    config = Config(echo, http=kind, ws="none", interface="asgi3", lifespan="off", log_config=None, access_log=False)
    config.load()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    state = ServerState()
    transport, _ = await loop.connect_accepted_socket(
        lambda: kind(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]  # uvicorn's classes
        ours,
    )
    data = bytearray()
    ended = False
    with theirs:
        for piece in [*pieces, b""]:
            if not ended:
                try:
                    theirs.send(piece)
                except OSError:
                    ended = True
            for _ in range(SETTLED):
                await asyncio.sleep(0)
        try:
            while received := theirs.recv(65536):
                data += received
            ended = True
        except BlockingIOError:
            pass
        transport.abort()
        for _ in range(SETTLED):
            await asyncio.sleep(0)
        if state.tasks:
            await asyncio.wait(state.tasks)
    return told(bytes(data), ended=ended)


def told(data: bytes, *, ended: bool) -> Outcome:
    statuses = re.findall(rb"^HTTP/1\.[01] (\d+)", data, re.MULTILINE)
    bodies = re.findall(rb'^(?:\{.*\}|\[".*\])', data, re.MULTILINE)
    return Outcome(statuses, [re.sub(rb"req_[\w-]+", b"", body) for body in bodies], ended)


def random_request(drawn: random.Random) -> bytes:
    wild = drawn.random() < 0.5
    line = drawn.choice(LINES if wild else LINES[:6])
    fields = drawn.choices(FIELDS if wild else FIELDS[:5], k=drawn.randint(0, 3))
    host = drawn.choice([[b"Host: a"]] * 5 + [[], [b"Host: a", b"Host: b"]])
    body = b""
    kind = drawn.choice(["none", "length", "chunks", "chunks"])
    if kind == "length":
        fields.append(b"Content-Length: 5")
        body = drawn.choice(DATA)
    elif kind == "chunks":
        fields.append(b"Transfer-Encoding: chunked")
        for _ in range(drawn.randint(0, 3)):
            body += (
                drawn.choice(SIZES if wild else SIZES[:4]) + b"\r\n" + drawn.choice(DATA[: 6 if wild else 2]) + b"\r\n"
            )
        body += b"0\r\n" + drawn.choice(TRAILERS[: 7 if wild else 3]) + b"\r\n"
    drawn.shuffle(fields)
    return b"\r\n".join([line, *host, *fields, b"", body])


def random_bytes(drawn: random.Random) -> list[bytes]:
    """Up to three requests, perhaps with a byte that was changed, in pieces."""
    data = drawn.choice([b"", b"", b"", b"\r\n"]) + b"".join(random_request(drawn) for _ in range(drawn.randint(1, 3)))
    if drawn.random() < 0.3:
        at = drawn.randrange(len(data))
        data = data[:at] + drawn.choice([b"", b"\r", b"\n", b" ", bytes([drawn.randrange(256)])]) + data[at + 1 :]
    cuts = sorted({0, len(data), *(drawn.randrange(len(data)) for _ in range(drawn.choice([0, 1, 3, 8])))})
    return [data[begin:end] for begin, end in pairwise(cuts)]


@pytest.mark.parametrize("seed", range(4))
async def test_both_parsers_answer_and_refuse_the_same_bytes(seed: int) -> None:
    drawn = random.Random(seed)
    answered = refused = 0
    for _ in range(REQUESTS // 4):
        pieces = random_bytes(drawn)
        first, second = [await outcome(kind, pieces) for kind in CLASSES]
        assert first == second, pieces
        answered += first.statuses[:1] == [b"200"]
        refused += first.statuses[-1:] > [b"200"]
    assert answered > REQUESTS / 40
    assert refused > REQUESTS / 40
