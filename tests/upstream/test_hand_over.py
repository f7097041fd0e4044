"""A connection that lets another protocol read the body of a response for a while."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from anthro_asgi.upstream.connection import CLOSED, ENDED, PAUSED, STREAMING, Connection
from anthro_asgi.upstream.errors import Timeout
from anthro_asgi.upstream.http_parsers import H11Parser, ParserFactory, chunk_tracking_parser
from anthro_asgi.upstream.origin import Deadlines
from tests.support.clock import fake_clock

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Reader(asyncio.Protocol):
    """The other protocol."""

    last_read = 0.0


class Transport(asyncio.Transport):
    """Notes the protocols that are set, and whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[object] = []
        self.reads = True
        self.sock, self.peer = socket.socketpair()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.sock if name == "socket" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocols.append(protocol)

    def write(self, data: Any) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.sock.close()
        self.peer.close()

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def receiving(data: bytes, parser: ParserFactory | None = None) -> tuple[Connection, Transport]:
    """A connection that has received `data` in response to a request."""
    deadlines = Deadlines(first_byte=5, silence=5, total=1000)
    connection = Connection("engine", deadlines, parser or chunk_tracking_parser(), lambda _: None)
    transport = Transport()
    connection.connection_made(transport)
    connection.send_request(b"", b"")
    connection.data_received(data)
    return connection, transport


@fake_clock
async def test_the_transport_is_handed_over_between_two_chunks_only() -> None:
    chunk = b"5\r\nhello\r\n"
    for size in range(1, len(chunk) + 1):
        connection, transport = receiving(HEAD + chunk)
        connection.data_received(chunk[:size])
        await connection.read()
        assert connection.hand_over(Reader()) is (size == len(chunk)), size
        connection.abort()
    for data in (chunk + b"5;e=1\r\n", chunk + b"0\r\n", chunk + b"0\r\n\r\n"):
        connection, transport = receiving(HEAD + data)
        await connection.read()
        assert not connection.hand_over(Reader())
        connection.abort()
        assert transport.protocols == []


@fake_clock
async def test_the_transport_is_not_handed_over_with_unread_bytes_or_without_chunks() -> None:
    connection, _ = receiving(HEAD + b"5\r\nhello\r\n")
    assert not connection.hand_over(Reader())
    connection.abort()
    for head, parser in ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", None), (HEAD, H11Parser)):
        connection, _ = receiving(head + b"5\r\nx\r\n\r\n", parser)
        await connection.read()
        assert not connection.hand_over(Reader())
        connection.abort()


@fake_clock
async def test_the_connection_goes_on_where_the_reader_has_stopped() -> None:
    connection, transport = receiving(HEAD + b"5\r\nhello\r\n")
    assert await connection.read() == b"hello"
    reader = Reader()
    assert connection.hand_over(reader)
    assert transport.protocols == [reader]
    connection.take_back()
    connection.take_back()
    assert transport.protocols == [reader, connection]
    connection.data_received(b"3\r\nabc\r\n0\r\n\r\n")
    assert (await connection.read(), await connection.read()) == (b"abc", b"")
    assert connection.state is ENDED
    connection.abort()


@fake_clock
async def test_what_the_reader_reads_puts_off_the_silence_deadline() -> None:
    connection, _ = receiving(HEAD + b"5\r\nhello\r\n")
    await connection.read()
    reader = Reader()
    assert connection.hand_over(reader)
    for _ in range(5):
        await asyncio.sleep(4)
        reader.last_read = asyncio.get_running_loop().time()
        assert connection.state is STREAMING
    await asyncio.sleep(5.1)
    assert connection.state is CLOSED
    with pytest.raises(Timeout, match="silence"):
        await connection.read()


@fake_clock
async def test_the_deadline_counts_from_the_last_read_of_the_reader() -> None:
    connection, _ = receiving(HEAD + b"5\r\nhello\r\n")
    await connection.read()
    reader = Reader()
    assert connection.hand_over(reader)
    await asyncio.sleep(4)
    reader.last_read = asyncio.get_running_loop().time()
    connection.take_back()
    await asyncio.sleep(4.9)
    assert connection.state is STREAMING
    await asyncio.sleep(0.2)
    assert connection.state is CLOSED


@fake_clock
async def test_bytes_that_a_thread_reads_while_the_deadline_is_checked_count_for_it() -> None:
    """As after SIGCONT: the deadline has passed, the kernel holds bytes, and the thread reads them at this moment."""

    class Thread(asyncio.Protocol):
        noted = 0.0

        @property
        def last_read(self) -> float:
            noted = self.noted
            with suppress(BlockingIOError):
                transport.sock.recv(1, socket.MSG_DONTWAIT)
                self.noted = asyncio.get_running_loop().time()
            return noted

    connection, transport = receiving(HEAD + b"5\r\nhello\r\n")
    await connection.read()
    assert connection.lend(Thread()) == transport.sock.fileno()
    transport.peer.send(b"x")
    await asyncio.sleep(5.1)
    assert connection.state is STREAMING
    connection.abort()


@fake_clock
async def test_a_connection_whose_owner_paused_it_reads_again_when_it_is_handed_over() -> None:
    connection, transport = receiving(HEAD + b"5\r\nhello\r\n")
    await connection.read()
    connection.pause_reading()
    assert (connection.state, transport.reads) == (PAUSED, False)
    assert connection.hand_over(Reader())
    assert (connection.state, transport.reads) == (STREAMING, True)
    connection.abort()


@fake_clock
async def test_a_connection_that_is_slowed_down_reads_again_after_that_time_or_when_it_is_told_to() -> None:
    connection, transport = receiving(HEAD + b"5\r\nhello\r\n")
    connection.slow_down(1.0)
    await asyncio.sleep(0.9)
    assert not transport.reads
    await asyncio.sleep(0.2)
    assert transport.reads
    handle = connection.slow_down(1.0)
    handle.cancel()
    connection.speed_up()
    assert transport.reads
    connection.abort()
