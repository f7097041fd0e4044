"""The byte relay: forwarding, back-pressure and closing."""

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any

import uvloop

from bench.relay import Front, Side


def on_uvloop(test: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a test to be run on the relay's own loop; see tests/conftest.py."""
    test.loop_factory = uvloop.new_event_loop  # type: ignore[attr-defined]
    return test


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.reading = True
        self.closed = False
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True


def pair() -> tuple[Side, Wire, Side, Wire]:
    one, other = Side(), Side()
    wires = Wire(), Wire()
    for side, wire in zip((one, other), wires, strict=True):
        side.connection_made(wire)  # type: ignore[arg-type]  # a fake has the methods that are called
    one.other, other.other = other, one
    return one, wires[0], other, wires[1]


def test_bytes_are_forwarded_unchanged() -> None:
    one, wire, other, far = pair()
    one.data_received(b"ask")
    other.data_received(b"an")
    other.data_received(b"swer")
    assert (far.written, wire.written) == (b"ask", b"answer")


def test_a_full_write_buffer_pauses_reading_on_the_other_side() -> None:
    one, _, _, far = pair()
    one.pause_writing()
    assert not far.reading
    one.resume_writing()
    assert far.reading


def test_a_lost_connection_closes_the_other_side() -> None:
    one, _, _, far = pair()
    one.connection_lost(None)
    assert far.closed


class Relaying:
    """A relay on uvloop in front of a listening socket; `ask` is a client of it."""

    async def __aenter__(self) -> "Relaying":
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.upstream.setblocking(False)
        host, port = self.upstream.getsockname()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Front(f"{host}:{port}"), "127.0.0.1", 0)
        return self

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._server.sockets[0].getsockname())

    async def accept(self) -> socket.socket:
        accepted, _ = await asyncio.get_running_loop().sock_accept(self.upstream)
        accepted.setblocking(False)
        return accepted

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()
        self.upstream.close()


@on_uvloop
async def test_bytes_before_the_upstream_connection_are_kept() -> None:
    loop = asyncio.get_running_loop()
    async with Relaying() as relay:
        reader, writer = await relay.connect()
        writer.write(b"early")
        with await relay.accept() as engine:
            assert await loop.sock_recv(engine, 16) == b"early"
            await loop.sock_sendall(engine, b"answer")
            assert await reader.readexactly(6) == b"answer"
            writer.write(b"late")
            assert await loop.sock_recv(engine, 16) == b"late"
            writer.close()
            assert await loop.sock_recv(engine, 16) == b""
            await writer.wait_closed()


@on_uvloop
async def test_a_client_is_closed_when_the_engine_cannot_be_reached() -> None:
    async with Relaying() as relay:
        relay.upstream.close()
        reader, writer = await relay.connect()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
