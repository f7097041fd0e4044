"""Back-pressure in both directions, and responses that arrive before the request is written completely."""

import asyncio
import socket
import struct
import threading

import pytest

from anthro_asgi.upstream.connection import HIGH_WATER, Connection, State
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import Wire, json_answer, raw_answer
from tests.upstream.test_exchange import served

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


@both
async def test_a_reader_that_does_not_read_stops_the_engine(parser: ParserFactory) -> None:
    size = 64 << 20

    async def fast(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", str(size))]))
        for _ in range(size >> 16):
            await wire.send(b"x" * (1 << 16))

    async with served(fast, parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            connection = response._connection
            assert connection is not None
            await upstream.until(lambda: connection.state is State.PAUSED and upstream.wires[0].blocked)
            assert HIGH_WATER < connection._buffered < HIGH_WATER + (256 << 10) + 1
            assert upstream.wires[0].sent < size // 2
            received = 0
            while chunk := await response.read():
                received += len(chunk)
                assert len(chunk) <= HIGH_WATER + (256 << 10)
        assert received == size
        assert "idle=1" in repr(pool)


@both
async def test_after_pause_reading_the_next_read_returns_everything_that_arrived(parser: ParserFactory) -> None:
    go, gone = asyncio.Event(), asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", "9")], b"one"))
        await go.wait()
        for piece in (b"two", b"six"):
            await wire.send(piece)
        gone.set()

    async with served(answer, parser=parser) as (_, pool), pool.exchange("GET", "/") as response:
        connection = response._connection
        assert connection is not None
        assert await response.read() == b"one"
        response.pause_reading()
        assert connection.state is State.PAUSED
        go.set()
        await gone.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert connection._buffered == 0
        assert await response.read() == b"twosix"
        assert await response.read() == b""
        response.pause_reading()  # has no effect after the end


@both
async def test_a_large_request_body_is_written_as_fast_as_the_engine_reads_it(parser: ParserFactory) -> None:
    body = bytes(range(256)) * (32 << 10)
    received = bytearray()
    go = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await go.wait()
        while len(received) < len(body):
            received.extend(await wire.receive(1 << 20))
        await wire.send(json_answer(200, "thanks"))

    async with served(answer, parser=parser, reads_bodies=False) as (upstream, pool):

        async def upload() -> bytes:
            async with pool.exchange("POST", "/", body=body) as response:
                return await response.read_all(100)

        task = asyncio.create_task(upload())
        await upstream.until(lambda: upstream.requests)
        (connection,) = pool._leased
        await upstream.until(lambda: connection._write_paused)
        assert connection._unsent
        assert connection._transport.get_write_buffer_size() <= 3 * HIGH_WATER
        go.set()
        assert await task == b'"thanks"'
        assert bytes(received) == body
        assert "idle=1" in repr(pool)


@both
async def test_a_response_that_arrives_before_the_body_is_written_is_read(parser: ParserFactory) -> None:
    async def refuse(wire: Wire) -> None:
        await wire.send(json_answer(413, {"error": "too large"}))
        await wire.gone()

    async with served(refuse, parser=parser, reads_bodies=False) as (upstream, pool):
        async with pool.exchange("POST", "/", body=b"x" * (64 << 20)) as response:
            assert response.status == 413
            assert await response.read_all(100) == b'{"error": "too large"}'
        assert pool.slots_used == 0  # the request was written in part, so nothing can follow it
        await upstream.until(lambda: upstream.open == 0)


@both
async def test_an_early_success_response_does_not_stop_the_body(parser: ParserFactory) -> None:
    body = b"x" * (16 << 20)

    async def echo(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", str(len(body)))]))
        for _ in range(len(body) >> 16):
            received = 0
            while received < 1 << 16:
                received += len(await wire.receive((1 << 16) - received))
            await wire.send(b"x" * received)

    async with served(echo, parser=parser, reads_bodies=False) as (_, pool):
        async with pool.exchange("POST", "/", body=body) as response:
            assert await response.read_all(len(body)) == body
        assert "idle=1" in repr(pool)


def refusing_server(rounds: int) -> tuple[int, threading.Thread]:
    """A server in a thread that answers 413 to the head of a request and resets, `rounds` times."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for _ in range(rounds):
                wire, _ = listener.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += wire.recv(1 << 16)
                wire.sendall(json_answer(413, "too large"))
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return listener.getsockname()[1], thread


@both
async def test_a_413_is_read_although_a_reset_follows_it(parser: ParserFactory) -> None:
    port, thread = refusing_server(60)
    pool = Pool(Origin.parse(f"http://127.0.0.1:{port}"), parser=parser)
    for _ in range(60):
        async with pool.exchange("POST", "/", body=b"x" * (8 << 20)) as response:
            assert (response.status, await response.read_all(100)) == (413, b'"too large"')
    thread.join()
    await pool.aclose()


@both
async def test_a_response_is_read_although_a_write_failed_first(parser: ParserFactory) -> None:
    port, thread = refusing_server(1)
    connection = Connection("peer", Deadlines(), parser, lambda _: None)
    await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    connection.send_request(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9999\r\n\r\n", b"x")
    await asyncio.sleep(0)  # uvloop writes at the end of a loop iteration
    thread.join()  # the server has answered and reset while our loop was busy
    connection._transport.write(b"x")
    await connection.wait_for_head()
    assert (connection.status, await connection.read()) == (413, b'"too large"')
    connection.abort()
