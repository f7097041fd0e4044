"""`python -m bench request`: what one whole request costs, from the client's bytes to the last byte for the client.

Measured is everything but the kernel's part: the connection of the server, the application, the connection to the
engine, the log line and the metrics. Sockets are replaced by transports in the same process, so the figures do not
scatter with the machine's other work. An answer has two tokens, and arrives from the engine in four reads. The time is
CPU time of the thread, so a preemption does not count.

The floor is a raw ASGI application on the same uvicorn: it drops the body, and sends a prepared answer in two pieces.

A second comparison shows what optional features cost a request that uses none of them: batches and files, PDFs, web
search, server tools and cache diagnostics are configured for the subject, and are off for the floor.
"""

import argparse
import asyncio
import io
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import thread_time_ns
from typing import Any, Final
from unittest.mock import patch

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from anthro_asgi import MessagesApp
from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.bench.options import positive
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.observability import logs
from anthro_asgi.server.http_protocol import protocol_class
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.upstream.connect import Dialer
from anthro_asgi.upstream.origin import Origin

from . import bodies
from .in_process import END, HEAD, REQUEST, Sink, chunked, connection
from .micro.case import Comparison, collector_off
from .micro.streams import STYLES, stream
from .peers.raw_asgi import Raw

RATIOS: Final = {"small": 14.0, "agent, 86 KB": 25.0}
"""Bars."""
UNUSED: Final = 0.03
"""The bar of what unused features add, as a share of the request's cost."""
_ROUNDS: Final = 41
_BATCH: Final = 20  # requests in a row, of one round
_TOKENS: Final = (" Hello", " there")
_AGENT: Final = 86_000


def requests() -> dict[str, bytes]:
    """The requests by name: a greeting, and a coding agent's with 20 tools."""
    named = {"small": bodies.hello(), "agent, 86 KB": bodies.agent(_AGENT, messages=6)}
    return {name: REQUEST % len(body) + body for name, body in named.items()}


class _Client(Sink):
    """A client's end of a connection: `ask` sends a request, and waits for the end of the response."""

    def __init__(self, protocol: Any) -> None:
        self.response: asyncio.Future[bytes] | None = None
        self._written: list[bytes] = []
        super().__init__(protocol)

    async def ask(self, request: bytes) -> bytes:
        """The bytes of the response."""
        self.response = asyncio.get_running_loop().create_future()
        self._protocol.data_received(request)
        return await self.response

    def write(self, data: Any) -> None:
        self._written.append(bytes(data))
        if data.endswith(END) and self.response is not None:
            response, self._written = b"".join(self._written), []
            self.response.set_result(response)


class _Engine(Sink):
    """The engine's end of a connection. It answers when a request is complete."""

    def __init__(self, protocol: Any, reads: list[bytes], idle: socket.socket) -> None:
        self._reads = reads
        self._idle = idle
        self._left = 0  # bytes of the request that have not been written
        super().__init__(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._idle if name == "socket" else super().get_extra_info(name, default)

    def write(self, data: Any) -> None:
        if not self._left:
            head, _, _ = bytes(data).partition(b"\r\n\r\n")
            self._left = len(head) + 4 + int(head.rpartition(b"content-length: ")[2].partition(b"\r\n")[0])
        self._left -= len(data)
        if not self._left:
            asyncio.get_running_loop().call_soon(self._answer, iter(self._reads))

    def _answer(self, left: Any) -> None:
        data = next(left, None)
        if data is not None and self._protocol is not None:
            self._protocol.data_received(data)
            asyncio.get_running_loop().call_soon(self._answer, left)


def _reads() -> list[bytes]:
    """An answer of two tokens as the engine writes it."""
    answer = stream(STYLES[0], "text", _TOKENS)
    head = [HEAD, *map(chunked, answer.head)]
    return [b"".join(head), *map(chunked, answer.chunks), b"".join([*map(chunked, answer.tail), END])]


async def _never(_: Any) -> Any:
    raise AssertionError("a request that uses no feature has called one")


def features() -> dict[str, Any]:
    """Arguments of a MessagesApp with every feature that a request has to ask for. Nothing of them is opened."""
    return {
        "batch_store": SqlBatchStore(SqliteDatabase("unused.db")),
        "cache_diagnostics": "asked",
        "pdf": "both",
        "server_tools": {"unused": _never},
        "web_search": _never,
    }


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[_Client]:
    """A client's connection to the service, as `anthro-asgi serve` with an upstream builds it."""
    settings = load_settings({}, {})
    engine = OpenAIEngine(Origin.parse("http://127.0.0.1:9/v1"), dialect="vllm")
    app = MessagesApp(engine, keys=["sk-bench"], **options)
    idle, other = socket.socketpair()

    async def dial(_: Dialer, connection: Any) -> None:
        _Engine(connection, _reads(), idle)

    with idle, other, patch.object(Dialer, "dial", dial), _logging(_Nowhere()):
        client = _Client(connection(app, protocol_class(settings, app.metrics)))
        yield client
        client.close()
        await engine.stop()


@asynccontextmanager
async def raw() -> AsyncIterator[_Client]:
    """A client's connection to the floor."""
    client = _Client(connection(Raw(len(_TOKENS)), HttpToolsProtocol))
    yield client
    client.close()


class _Nowhere(io.TextIOBase):
    """Takes the bytes of the log and drops them."""

    def write(self, text: str) -> int:
        return len(text)


class _logging:  # noqa: N801 - used as a function
    """The log of the command, at the default level, to `stream`. What was configured before is put back."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        root, ours = logging.getLogger(), logging.getLogger("anthro_asgi")
        self._before = root.handlers[:], root.level, ours.level
        logs.configure("info", "json", self._stream)

    def __exit__(self, *_: object) -> None:
        root, ours = logging.getLogger(), logging.getLogger("anthro_asgi")
        root.handlers[:], level, own = self._before
        root.setLevel(level)
        ours.setLevel(own)


async def _measured(
    request: bytes, rounds: int, without: AbstractAsyncContextManager[_Client], having: dict[str, Any]
) -> Comparison:
    pairs: list[tuple[float, float]] = []
    async with without as floor, served(**having) as service:
        answers = [await client.ask(request) for client in (floor, service)]
        assert all(b"message_stop" in answer for answer in answers), answers
        while len(pairs) <= rounds:
            pairs.append((await _batch(floor, request), await _batch(service, request)))
    return Comparison.of(pairs[1:])  # the first round warms up


async def _batch(client: _Client, request: bytes) -> float:
    """CPU nanoseconds of each request."""
    began = thread_time_ns()
    for _ in range(_BATCH):
        await client.ask(request)
    return (thread_time_ns() - began) / _BATCH


def measure(name: str, rounds: int = _ROUNDS) -> Comparison:
    """Nanoseconds of a request of `requests` to the floor and to the service, and the ratio."""
    with collector_off():
        return uvloop.run(_measured(requests()[name], rounds, raw(), {}))


def measure_unused(name: str, rounds: int = _ROUNDS) -> Comparison:
    """The same for a service without optional features, and for one with them."""
    without = served(cache_diagnostics="off", pdf="refuse")
    with collector_off():
        return uvloop.run(_measured(requests()[name], rounds, without, features()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--rounds", type=positive, default=_ROUNDS, help=f"pairs of measurements (default {_ROUNDS})")


def main(options: argparse.Namespace) -> int:
    """Measure and print."""
    for name in requests():
        cost = measure(name, options.rounds)
        print(
            f"{name:<16} {cost.subject_ns / 1e3:7.0f} µs, raw ASGI application {cost.floor_ns / 1e3:5.0f} µs:"
            f" {cost.ratio:5.2f} x (bar {RATIOS[name]:g})"
        )
    for name in requests():
        added = measure_unused(name, options.rounds).ratio - 1
        print(f"{name:<16} unused features add {added:7.2%} (bar {UNUSED:.0%})")
    return 0
