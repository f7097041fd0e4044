"""The memory that an open stream takes while the thread relays it."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import orjson
import pytest

from anthro_asgi.bench.processes import resident
from tests.native.test_relay import HEAD, token
from tests.support.service import Service
from tests.support.upstream import ThreadedUpstream, Wire

pytestmark = pytest.mark.slow
STREAMS = 400
LARGEST = 31.0  # KiB; it was 36.7 when the objects of a connection had what only some requests need
BODY = orjson.dumps(
    {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "x " * 50}]}
)


async def endless(wire: Wire) -> None:
    await wire.send(HEAD)
    for number in range(20):
        await wire.send(token(f" {number}"))
    await asyncio.Event().wait()


def opened(service: Service, number: int) -> Iterator[socket.socket]:
    """Streams that have begun, one after the other."""
    address = urlsplit(service.url)
    for _ in range(number):
        sock = socket.create_connection((address.hostname or "", address.port or 0), 20)
        sock.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))
        received = b""
        while b'" 19"' not in received:
            data = sock.recv(65536)
            assert data
            received += data
        yield sock


def test_an_open_stream_takes_little_memory() -> None:
    with ThreadedUpstream(endless) as upstream, ExitStack() as stack:
        options = ("--upstream", f"{upstream.url}/v1", "--upstream-api", "chat", "--dialect", "vllm")
        service = stack.enter_context(Service(*options, "--native", "on", "--max-concurrency", "1000"))
        for sock in opened(service, 40):  # so that all code is loaded; their memory counts before and after
            stack.enter_context(sock)
        before = resident(service.pid)
        for sock in opened(service, STREAMS):
            stack.enter_context(sock)
        kib = (resident(service.pid) - before) / 1024 / STREAMS
        assert kib <= LARGEST
