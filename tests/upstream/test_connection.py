"""Deadlines, events on a connection without a request, and states that a socket cannot show."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from anthro_asgi.upstream.connection import HIGH_WATER, Connection, State
from anthro_asgi.upstream.errors import Broken, Timeout, TooLarge
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory, default_parser
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import ScriptedUpstream, Wire, framed, json_answer, raw_answer, sse
from tests.upstream.test_exchange import body_of, endless, served, silent

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)

SHORT = 0.05  # seconds


# Deadlines


@both
async def test_a_response_that_does_not_begin_in_time_is_a_timeout(parser: ParserFactory) -> None:
    async with served(silent, parser=parser, deadlines=Deadlines(first_byte=SHORT)) as (upstream, pool):
        with pytest.raises(Timeout, match=r"first byte: no data for 0\.05 s") as caught:
            await body_of(pool)
        assert caught.value.phase == "first byte"
        assert pool.slots_used == 0
        assert len(upstream.requests) == 1
        await upstream.until(lambda: upstream.open == 0)


@both
@pytest.mark.parametrize("sent", [b"H", raw_answer(200, [("content-length", "2")]), raw_answer(200, [], b"x")])
async def test_an_engine_that_stops_sending_is_a_timeout(parser: ParserFactory, sent: bytes) -> None:
    async def stall(wire: Wire) -> None:
        await wire.send(sent)
        await wire.gone()

    async with served(stall, parser=parser, deadlines=Deadlines(silence=SHORT)) as (upstream, pool):
        with pytest.raises(Timeout) as caught:
            await body_of(pool)
        assert caught.value.phase == "silence"
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)


@both
async def test_bytes_that_arrived_before_the_timeout_are_still_read(parser: ParserFactory) -> None:
    async with served(endless, parser=parser, deadlines=Deadlines(silence=SHORT)) as (upstream, pool):
        exchange = pool.exchange("GET", "/")
        async with exchange as response:
            await upstream.until(lambda: upstream.open == 0)
            assert await response.read() == b"a"
            with pytest.raises(Timeout):
                await response.read()


@pytest.mark.slow
@both
async def test_every_read_moves_the_deadline(parser: ParserFactory) -> None:
    async def slow(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", "12")]))
        for _ in range(12):
            await asyncio.sleep(SHORT / 2)
            await wire.send(b"x")

    async with served(slow, parser=parser, deadlines=Deadlines(silence=SHORT * 4)) as (_, pool):
        assert await body_of(pool) == b"x" * 12


@pytest.mark.slow
@both
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_response_that_arrived_while_the_process_was_stopped_is_read(
    parser: ParserFactory, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The process stops in a callback of a socket: uvloop then runs timers before it reads other sockets."""
    ours, theirs = socket.socketpair()

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            theirs.send(b"stop")
            time.sleep(SHORT / 2)  # until the event loop is blocked
            peer.sendall(json_answer(200, {}))
            peer.recv(1000)

    def stop() -> None:
        ours.recv(10)
        time.sleep(3 * SHORT)

    async def main(url: str) -> bytes:
        pool = Pool(Origin.parse(url), parser=parser, deadlines=Deadlines(first_byte=SHORT))
        asyncio.get_running_loop().add_reader(ours, stop)
        try:
            async with pool.exchange("GET", "/") as response:
                return await response.read_all(100)
        finally:
            asyncio.get_running_loop().remove_reader(ours)
            await pool.aclose()

    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(main(f"http://127.0.0.1:{listener.getsockname()[1]}")) == b"{}"
        server.join()


@both
async def test_an_idle_connection_has_no_deadline(parser: ParserFactory) -> None:
    deadlines = Deadlines(first_byte=SHORT, silence=SHORT)
    async with served(json_answer(200, {}), parser=parser, deadlines=deadlines) as (upstream, pool):
        await body_of(pool)
        await asyncio.sleep(SHORT * 3)
        assert "idle=1" in repr(pool)
        await body_of(pool)
        assert upstream.accepted == 1


@both
async def test_silence_does_not_count_while_our_reader_is_behind(parser: ParserFactory) -> None:
    answer = framed(200, [], [b"x" * 10_000] * 200, "chunked")
    async with served(answer, parser=parser, deadlines=Deadlines(silence=SHORT)) as (upstream, pool):
        exchange = pool.exchange("GET", "/")
        async with exchange as response:
            await upstream.until(lambda: " paused " in repr(response._connection))
            await asyncio.sleep(SHORT * 3)
            assert len(await response.read_all(1 << 30)) == 2_000_000


@both
async def test_a_connection_has_one_timer_however_much_it_reads(parser: ParserFactory) -> None:
    answer = framed(200, [], [b"x" * 10_000] * 200, "chunked")
    timers = 0
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counted(when: float, callback: object, *args: object, **kwargs: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += getattr(callback, "__self__", None) is connection
        return call_at(when, callback, *args, **kwargs)  # type: ignore[arg-type]

    async with served(answer, parser=parser) as (_, pool):
        await body_of(pool)
        (connection,) = pool._idle
        loop.call_at = counted  # type: ignore[method-assign]  # the loop of this test
        for _ in range(5):
            await body_of(pool)
        assert timers <= 1


async def trickle(wire: Wire) -> None:
    """An endless response whose pauses are shorter than the silence deadline."""
    await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]))
    while True:
        await wire.send(b"1\r\na\r\n")
        await asyncio.sleep(SHORT / 10)


@both
async def test_a_response_that_never_pauses_must_end_before_the_total_deadline(parser: ParserFactory) -> None:
    async with served(trickle, parser=parser, deadlines=Deadlines(silence=60, total=SHORT * 3)) as (upstream, pool):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Timeout, match=r"total: not complete after 0\.15 s") as caught:
            await body_of(pool)
        assert caught.value.phase == "total"
        assert SHORT * 3 <= loop.time() - began < 5
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)


@pytest.mark.slow
@both
async def test_the_total_deadline_counts_while_our_reader_is_behind(parser: ParserFactory) -> None:
    answer = framed(200, [], [b"x" * 10_000] * 200, "chunked")
    deadlines = Deadlines(silence=SHORT, total=SHORT * 4)
    async with served(answer, parser=parser, deadlines=deadlines) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            await upstream.until(lambda: " paused " in repr(response._connection))
            await upstream.until(lambda: upstream.open == 0)
            assert await response.read(), "what had arrived is returned"
            with pytest.raises(Timeout) as caught:
                await response.read()
        assert caught.value.phase == "total"


@pytest.mark.slow
@both
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200"], ids=["nothing", "part of a head"])
async def test_the_total_deadline_counts_from_the_request_on(parser: ParserFactory, sent: bytes) -> None:
    async def stall(wire: Wire) -> None:
        if sent:
            await wire.send(sent)
        await wire.gone()

    async with served(stall, parser=parser, deadlines=Deadlines(total=SHORT)) as (_, pool):
        with pytest.raises(Timeout) as caught:
            await body_of(pool)
        assert caught.value.phase == "total"


@pytest.mark.slow
@both
async def test_each_response_has_its_own_total_deadline_and_idle_time_has_none(parser: ParserFactory) -> None:
    async def slow(wire: Wire) -> None:
        await asyncio.sleep(0.6)
        await wire.send(json_answer(200, {}))

    async with served(slow, parser=parser, deadlines=Deadlines(total=1)) as (upstream, pool):
        for pause in (0.6, 0):
            assert await body_of(pool) == b"{}"
            await asyncio.sleep(pause)
        assert upstream.accepted == 1


# Endless responses without a body that a reader could take


@both
@pytest.mark.parametrize(
    "piece", [b"x" * 1000, b"1;" + b"x" * 1000 + b"\r\n", b"0\r\n" + b"a: b\r\n" * 100, b"0\r\na: " + b"x" * 1000]
)
async def test_endless_framing_does_not_fill_memory(parser: ParserFactory, piece: bytes) -> None:
    """Chunk sizes, extensions and trailers."""
    again = b"a: b\r\n" * 100 if b": b" in piece else b"x" * 1000

    async def endless_framing(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")], b"1\r\na\r\n" + piece))
        while True:
            await wire.send(again)

    async with served(endless_framing, parser=parser) as (upstream, pool):
        with pytest.raises(Broken):
            await body_of(pool)
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)
        assert upstream.requests[0].wire.sent < 100 * HIGH_WATER  # no more than the kernel's buffers hold


@both
async def test_endless_informational_responses_are_too_large_a_head(parser: ParserFactory) -> None:
    async def flood(wire: Wire) -> None:
        while True:
            await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    async with served(flood, parser=parser) as (upstream, pool):
        with pytest.raises(TooLarge, match="head is larger than"):
            await body_of(pool)
        await upstream.until(lambda: upstream.open == 0)


# Events without a request


@both
@pytest.mark.parametrize("event", ["eof", "reset", "bytes"])
async def test_an_idle_connection_is_dropped_on_any_event(parser: ParserFactory, event: str) -> None:
    async with served(json_answer(200, {}), parser=parser) as (upstream, pool):
        await body_of(pool)
        assert "idle=1" in repr(pool)
        match event:
            case "eof":
                upstream.wires[0].close()
            case "reset":
                upstream.wires[0].reset()
            case "bytes":
                await upstream.wires[0].send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await upstream.until(lambda: "idle=0" in repr(pool) and upstream.open == 0)
        assert pool.slots_used == 0
        await body_of(pool)
        assert len(upstream.requests) == 2


@both
async def test_bytes_after_a_response_only_prevent_reuse_of_the_connection(parser: ParserFactory) -> None:
    async with served(json_answer(200, {}) + b"surplus", parser=parser) as (_, pool):
        assert await body_of(pool) == b"{}"
        assert pool.slots_used == 0


@both
@pytest.mark.parametrize("event", ["eof", "bytes"])
async def test_an_event_between_the_end_and_the_exit_only_prevents_reuse(parser: ParserFactory, event: str) -> None:
    async with served(json_answer(200, {}), parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            await upstream.until(lambda: " ended " in repr(response._connection))
            upstream.wires[0].close() if event == "eof" else await upstream.wires[0].send(b"x")
            await upstream.until(lambda: " must_close " in repr(response._connection))
            assert await response.read_all(10) == b"{}"
        assert pool.slots_used == 0


@both
async def test_the_connection_never_half_closes(parser: ParserFactory) -> None:
    async def answer(wire: Wire) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        assert not wire._closed
        await wire.send(sse({"a": 1}, framing="close"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not wire._closed
        wire.close()

    async with served(answer, parser=parser) as (_, pool):
        assert await body_of(pool) == b'data: {"a": 1}\n\ndata: [DONE]\n\n'


async def test_nagle_is_off() -> None:
    async with served(json_answer(200, {})) as (_, pool):
        await body_of(pool)
        (connection,) = pool._idle
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_repr_of_a_connection_shows_its_state() -> None:
    async with served(endless) as (upstream, pool):
        async with pool.exchange("POST", "/", body=b"{}") as response:
            connection = response._connection
            assert await response.read() == b"a"
            assert repr(connection) == f"<Connection {upstream.url} streaming requests=1 unsent=0 buffered=0>"
        assert repr(connection) == f"<Connection {upstream.url} closed requests=1 unsent=0 buffered=0>"


class RecordingTransport(asyncio.Transport):
    """A transport without a socket that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: object) -> None:
        self.calls.append("write")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def abort(self) -> None:
        self.calls.append("abort")

    def get_write_buffer_size(self) -> int:
        return 0


@both
async def test_bytes_from_a_paused_transport_are_accepted(parser: ParserFactory) -> None:
    """asyncio's TLS may deliver bytes that it has decrypted already. The next response must not find reading paused."""
    settled: list[Connection] = []
    connection, transport = Connection("peer", Deadlines(), parser, settled.append), RecordingTransport()
    connection.connection_made(transport)
    connection.send_request(b"GET / HTTP/1.1\r\n\r\n", b"")
    body = b"x" * 100_000
    connection.data_received(raw_answer(200, [("content-length", "100003")], body))
    states = [connection.state]
    for data in (b"yz", b"!"):
        connection.data_received(data)
        states.append(connection.state)
    assert states == [State.PAUSED, State.PAUSED, State.ENDED]
    assert transport.calls == ["write", "pause_reading", "resume_reading"]
    assert await connection.read() == body + b"yz!"
    assert await connection.read() == b""
    connection.recycle()
    connection.data_received(b"?")
    assert (connection.state, transport.calls[-1], settled) == (State.CLOSED, "abort", [connection])


async def test_a_413_whose_body_is_still_arriving_ends_the_writing_of_the_request() -> None:
    connection, transport = Connection("peer", Deadlines(), default_parser(), lambda _: None), RecordingTransport()
    connection.connection_made(transport)
    connection.pause_writing()
    connection.send_request(b"POST / HTTP/1.1\r\n\r\n", b"x" * 1_000_000)
    connection.data_received(raw_answer(413, [("content-length", "9")]))
    connection.resume_writing()
    assert transport.calls == ["write"]
    connection.abort()


async def test_writing_a_large_body_lets_other_callbacks_run_in_between() -> None:
    class Open(RecordingTransport):
        def is_closing(self) -> bool:
            return False

    connection, transport = Connection("peer", Deadlines(), default_parser(), lambda _: None), Open()
    connection.connection_made(transport)
    connection.send_request(b"POST / HTTP/1.1\r\n\r\n", [b"x" * 1_000_000] * 4)
    written = [len(transport.calls)]
    while connection._unsent:
        await asyncio.sleep(0)
        written.append(len(transport.calls))
    assert written == [17, 33, 49, 64]
    await asyncio.sleep(0)
    assert len(transport.calls) == 64
    connection.abort()


async def test_a_closed_connection_is_not_kept_alive_by_its_timer() -> None:
    connection = Connection("peer", Deadlines(), default_parser(), lambda _: None)
    connection.connection_made(RecordingTransport())
    connection.send_request(b"GET / HTTP/1.1\r\n\r\n", b"")
    timer = connection._timer
    assert timer is not None
    assert not timer.cancelled()
    connection.abort()
    assert timer.cancelled()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_deadline_that_is_due_at_once_may_be_replaced(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def respond() -> bytes:
        connection = Connection("peer", Deadlines(first_byte=0.0001), default_parser(), lambda _: None)
        connection.connection_made(RecordingTransport())
        connection.send_request(b"GET / HTTP/1.1\r\n\r\n", b"")
        connection.data_received(raw_answer(200, [("content-length", "2")], b"ok"))
        return await connection.read()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(respond()) == b"ok"


async def test_abort_may_be_called_again_and_before_connecting(tmp_path: Path) -> None:
    settled: list[Connection] = []
    connection = Connection("peer", Deadlines(), default_parser(), settled.append)
    connection.abort()
    connection.abort()
    with pytest.raises(Broken):
        connection.send_request(b"GET / HTTP/1.1\r\n\r\n", b"")
    async with ScriptedUpstream(json_answer(200, {}), uds=str(tmp_path / "s")) as upstream:
        await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(tmp_path / "s"))
        await connection.wait_closed()
        await upstream.until(lambda: upstream.accepted and not upstream.open)
    connection.abort()
    assert settled == []
    with pytest.raises(Broken, match="the exchange is over"):
        await connection.read()
