"""When a connection is used again, and when a request is sent again."""

import asyncio

import pytest

from anthro_asgi.upstream import connection as connection_module
from anthro_asgi.upstream.errors import Broken, ConnectFailed, UpstreamError
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer
from tests.upstream.test_exchange import body_of, served, silent
from tests.upstream.test_pool import counts

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)

OK = json_answer(200, {})


# Reuse


async def test_the_connection_used_last_is_used_next() -> None:
    async with served(OK) as (upstream, pool):
        async with pool.exchange("GET", "/") as first, pool.exchange("GET", "/") as second:
            await first.read_all(10)
            await second.read_all(10)
        wires = [request.wire for request in upstream.requests]
        assert counts(pool)["idle"] == 2
        for _ in range(3):  # `first` was released last
            await body_of(pool)
            assert upstream.requests[-1].wire is wires[0]


@both
async def test_connection_close_is_honoured(parser: ParserFactory) -> None:
    answer = raw_answer(200, [("connection", "close"), ("content-length", "2")], b"{}")
    async with served(answer, parser=parser) as (upstream, pool):
        for _ in range(2):
            await body_of(pool)
            assert counts(pool)["idle"] == 0
        assert upstream.accepted == 2


@pytest.mark.parametrize(("header", "max_idle"), [(None, 55.0), ("timeout=5, max=100", 4.0), ("timeout=90", 89.0)])
async def test_a_connection_that_was_idle_too_long_is_not_used_again(header: str | None, max_idle: float) -> None:
    now = 1000.0
    fields = [("keep-alive", header)] if header else []
    async with served(json_answer(200, {}, fields), clock=lambda: now) as (upstream, pool):
        await body_of(pool)
        now += max_idle - 0.01
        await body_of(pool)
        assert upstream.accepted == 1
        now += max_idle + 0.01
        await body_of(pool)
        assert upstream.accepted == 2
        assert counts(pool)["idle"] == 1
        await upstream.until(lambda: upstream.open == 1)


async def test_a_connection_is_not_used_more_often_than_its_server_allows() -> None:
    async with served(json_answer(200, {}, [("keep-alive", "timeout=5, max=3")])) as (upstream, pool):
        for served_before in range(7):
            await body_of(pool)
            assert upstream.accepted == served_before // 3 + 1


@both
async def test_without_reuse_each_request_has_its_own_connection_and_says_so(parser: ParserFactory) -> None:
    async with served(OK, parser=parser, reuse=False) as (upstream, pool):
        for number in range(1, 4):
            assert await body_of(pool) == b"{}"
            assert upstream.accepted == number
            assert counts(pool)["idle"] == 0
        assert {request.headers["connection"] for request in upstream.requests} == {"close"}


async def test_a_connection_with_unread_bytes_is_not_used_again() -> None:
    """The bytes are in the kernel, and the event loop has not had the time to read them."""
    async with served(OK) as (upstream, pool):
        await body_of(pool)
        (connection,) = pool._idle
        wire = upstream.requests[0].wire
        wire._transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert connection.has_unread()
        assert await body_of(pool) == b"{}"
        assert upstream.accepted == 2
        assert counts(pool)["idle"] == 1


class Refused(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "connections"), [(Refused, 2), (asyncio.CancelledError, 1), (GeneratorExit, 1)], ids=str
)
async def test_a_connection_whose_response_was_refused_is_not_used_again(
    raised: type[BaseException], connections: int
) -> None:
    """The response may be the surplus of an earlier one. Then each client would get the answer of another."""
    async with served(OK) as (upstream, pool):

        async def refuse() -> None:
            async with pool.exchange("GET", "/") as response:
                await response.read_all(10)
                raise raised

        for accepted in (1, connections):  # the first response of a connection is the surplus of no other
            with pytest.raises(raised):
                await refuse()
            assert await body_of(pool) == b"{}"
            assert upstream.accepted == accepted
        assert pool.slots_used == 1


# Retry


def once_then(*, sends: bytes = b"", end: str) -> Answer:
    """Answers a connection's first request; ends the connection at its second, after `sends`."""
    seen: set[int] = set()

    async def answer(wire: Wire) -> None:
        if id(wire) not in seen:
            seen.add(id(wire))
            await wire.send(OK)
            return
        if sends:
            await wire.send(sends)
        wire.close() if end == "close" else wire.reset()

    return answer


@both
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_request_on_a_stale_connection_is_sent_again_once(parser: ParserFactory, end: str) -> None:
    async with served(once_then(end=end), parser=parser) as (upstream, pool):
        await body_of(pool)
        async with pool.exchange("POST", "/", body=b"again") as response:
            assert await response.read_all(10) == b"{}"
        assert upstream.accepted == 2
        assert [request.body for request in upstream.requests] == [b"", b"again", b"again"]
        assert counts(pool)["idle"] == 1


async def test_a_body_in_pieces_is_complete_on_the_new_connection() -> None:
    async with served(once_then(end="close")) as (upstream, pool):
        await body_of(pool)
        async with pool.exchange("POST", "/", body=[b"a" * 70_000] * 12) as response:
            assert await response.read_all(10) == b"{}"
        assert [request.body for request in upstream.requests] == [b"", b"a" * 840_000, b"a" * 840_000]


@both
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_the_second_attempt_is_not_repeated(parser: ParserFactory, end: str) -> None:
    async def leave(wire: Wire) -> None:
        wire.close() if end == "close" else wire.reset()

    async with served(OK, leave, parser=parser) as (upstream, pool):
        await body_of(pool)
        with pytest.raises(Broken):
            await body_of(pool)
        assert len(upstream.requests) == 3
        assert pool.slots_used == 0


@both
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_request_on_a_new_connection_is_never_sent_again(parser: ParserFactory, end: str) -> None:
    async def leave(wire: Wire) -> None:
        wire.close() if end == "close" else wire.reset()

    async with served(leave, parser=parser) as (upstream, pool):
        with pytest.raises(Broken):
            await body_of(pool)
        assert len(upstream.requests) == 1
        assert pool.slots_used == 0


@both
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_request_on_which_the_engine_worked_for_a_second_is_not_sent_again(
    parser: ParserFactory, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_AT_ONCE", 0.01)  # instead of a second
    crash = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await crash.wait()
        wire.close() if end == "close" else wire.reset()

    async with served(OK, answer, parser=parser) as (upstream, pool):
        await body_of(pool)
        (connection,) = pool._idle
        task = asyncio.create_task(body_of(pool))
        await upstream.until(lambda: len(upstream.requests) == 2)
        await upstream.until(lambda: connection._may_have_worked)
        crash.set()
        with pytest.raises(Broken):
            await task
        assert len(upstream.requests) == 2
        assert pool.slots_used == 0


@both
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("sends", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"garbage"])
async def test_a_request_is_not_sent_again_after_a_response_byte(parser: ParserFactory, sends: bytes, end: str) -> None:
    received = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(sends)
        await received.wait()
        wire.close() if end == "close" else wire.reset()

    async with served(OK, answer, parser=parser) as (upstream, pool):
        await body_of(pool)
        (connection,) = pool._idle
        task = asyncio.create_task(body_of(pool))
        await upstream.until(lambda: connection.state.name in ("HEAD", "CLOSED"))
        received.set()
        with pytest.raises(Broken):
            await task
        assert len(upstream.requests) == 2
        assert pool.slots_used == 0


async def test_a_timeout_on_a_reused_connection_is_not_retried() -> None:
    async with served(OK, silent) as (upstream, pool):
        await body_of(pool)
        (connection,) = pool._idle
        connection._deadlines = Deadlines(first_byte=0.05)  # short for the second request only
        with pytest.raises(UpstreamError, match="first byte"):
            await body_of(pool)
        assert len(upstream.requests) == 2


async def test_a_retry_that_cannot_connect_frees_the_slot() -> None:
    async with ScriptedUpstream(OK) as upstream:
        pool = Pool(Origin.parse(upstream.url))
        await body_of(pool)
        (connection,) = pool._idle
        pool._idle = {}
        pool._leased.add(connection)
        connection.eof_received()
    with pytest.raises(ConnectFailed):
        await pool.renew(connection)
    assert counts(pool)["leased"] == pool.slots_used == 0
