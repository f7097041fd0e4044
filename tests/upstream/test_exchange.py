"""One request and its response over real sockets, with both parsers."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from anthro_asgi.upstream import pool as pool_module
from anthro_asgi.upstream.errors import Broken
from anthro_asgi.upstream.exchange import Exchange
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import Answer, ScriptedUpstream, Wire, fragmented, framed, json_answer, raw_answer, sse

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


@asynccontextmanager
async def served(
    *answers: Answer, parser: ParserFactory | None = None, reads_bodies: bool = True, **options: Any
) -> AsyncIterator[tuple[ScriptedUpstream, Pool]]:
    async with ScriptedUpstream(*answers, reads_bodies=reads_bodies) as upstream:
        pool = Pool(Origin.parse(upstream.url), parser=parser, **options)
        try:
            yield upstream, pool
        finally:
            await pool.aclose()
            assert pool.slots_used == 0
            await upstream.until(lambda: upstream.open == 0)


def has_ended(response: Exchange) -> bool:
    return " ended " in repr(response._connection)


def is_left(upstream: ScriptedUpstream) -> bool:
    return upstream.open == 0


async def body_of(pool: Pool) -> bytes:
    async with pool.exchange("GET", "/v1/x") as response:
        return await response.read_all(1 << 30)


@both
async def test_a_request_has_the_headers_of_the_pool_and_of_the_caller(parser: ParserFactory) -> None:
    async with served(json_answer(200, {}), parser=parser, user_agent="me/1") as (upstream, pool):
        async with pool.exchange("POST", "/v1/chat", [(b"authorization", b"Bearer k")], b'{"a":1}') as response:
            await response.read_all(10)
        async with pool.exchange("GET", "/props") as response:
            await response.read_all(10)
        post, get = upstream.requests
        authority = upstream.url.removeprefix("http://")
        ours = {"host": authority, "user-agent": "me/1", "accept-encoding": "identity"}
        assert (post.method, post.target, post.body) == ("POST", "/v1/chat", b'{"a":1}')
        assert post.headers == {**ours, "authorization": "Bearer k", "content-length": "7"}
        assert (get.method, get.target, get.headers) == ("GET", "/props", ours)


@both
@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 40])
async def test_a_body_in_pieces_is_sent_as_one_and_freed_when_the_response_begins(
    parser: ParserFactory, count: int
) -> None:
    pieces = [bytes([97 + number % 26]) * (number * 10_000 + 1) for number in range(count)]
    whole = b"".join(pieces)
    async with served(json_answer(200, {}), parser=parser) as (upstream, pool):
        async with pool.exchange("POST", "/", body=pieces) as response:
            assert pieces == []
            assert await response.read_all(10) == b"{}"
        assert upstream.requests[0].body == whole
        assert upstream.requests[0].headers["content-length"] == str(len(whole))


@both
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_response_is_read_the_same_in_every_framing_and_cut(parser: ParserFactory, framing: str) -> None:
    answer = sse({"text": "é🙂"}, b": ping\n\n", {"b": 2}, headers=[("X-Thing", "1")], framing=framing)
    rng = random.Random(framing)
    cuts = [range(len(answer)), *(rng.sample(range(len(answer)), 5) for _ in range(4))]
    whole = b'data: {"text": "\\u00e9\\ud83d\\ude42"}\n\n: ping\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    async with served(answer, *(fragmented(answer, cut) for cut in cuts), parser=parser) as (upstream, pool):
        for _ in range(1 + len(cuts)):
            async with pool.exchange("GET", "/") as response:
                assert response.status == 200
                assert response.header(b"x-thing") == b"1"
                assert response.header(b"x-other") is None
                assert (b"content-type", b"text/event-stream") in response.headers
                assert await response.read_all(1000) == whole
                assert await response.read() == b""
        assert upstream.accepted == (1 if framing != "close" else 1 + len(cuts))


@both
async def test_bytes_that_arrive_while_the_reader_is_busy_are_returned_together(parser: ParserFactory) -> None:
    first, rest = asyncio.Event(), asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(response_head + b"1\r\na\r\n")
        await first.wait()
        await wire.send(b"1\r\nb\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n")
        rest.set()

    response_head = raw_answer(200, [("transfer-encoding", "chunked")])
    async with served(answer, parser=parser) as (upstream, pool), pool.exchange("GET", "/") as reply:
        assert await reply.read() == b"a"
        first.set()
        await rest.wait()
        await upstream.until(lambda: " ended " in repr(reply._connection))
        assert await reply.read() == b"bcde"
        assert await reply.read() == b""


@both
async def test_informational_responses_are_skipped(parser: ParserFactory) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    answer = early + json_answer(201, [])
    async with served(answer, fragmented(answer, range(999)), parser=parser) as (upstream, pool):
        for _ in range(2):
            async with pool.exchange("GET", "/") as response:
                assert (response.status, response.header(b"link")) == (201, None)
                assert await response.read_all(9) == b"[]"
        assert upstream.accepted == 1


@both
@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_body_that_is_cut_short_returns_its_bytes_and_then_is_broken(
    parser: ParserFactory, framing: str, end: str
) -> None:
    whole = framed(200, [], [b"hello", b"world"], framing)
    seen = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(whole[: whole.index(b"world") + 2])
        await seen.wait()
        wire.close() if end == "close" else wire.reset()

    async with served(answer, parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            received = await response.read()
            while len(received) < 7:
                received += await response.read()
            seen.set()
            with pytest.raises(Broken):
                await response.read()
            with pytest.raises(Broken):
                await response.read()
        assert received == b"hellowo"
        assert pool.slots_used == 0
        assert len(upstream.requests) == 1


@both
@pytest.mark.parametrize("answer", [b"<html>Bad Gateway</html>", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000])
async def test_a_response_that_is_not_http_is_broken(parser: ParserFactory, answer: bytes) -> None:
    async with served(answer, parser=parser) as (upstream, pool):
        with pytest.raises(Broken):
            await body_of(pool)
        assert pool.slots_used == 0
        assert len(upstream.requests) == 1


@both
async def test_a_body_over_the_limit_is_broken_and_one_at_the_limit_is_not(parser: ParserFactory) -> None:
    async with served(json_answer(200, "x" * 98), parser=parser) as (_, pool):
        async with pool.exchange("GET", "/") as response:
            assert len(await response.read_all(100)) == 100
        async with pool.exchange("GET", "/") as response:
            with pytest.raises(Broken, match="99 bytes"):
                await response.read_all(99)


async def test_a_response_cannot_be_read_outside_its_block() -> None:
    async with served(json_answer(200, {})) as (_, pool):
        exchange = pool.exchange("GET", "/")
        with pytest.raises(RuntimeError):
            await exchange.read()
        async with exchange:
            pass
        with pytest.raises(RuntimeError):
            await exchange.read()


async def test_an_invalid_header_is_refused_before_anything_is_sent() -> None:
    async with served(json_answer(200, {})) as (upstream, pool):
        with pytest.raises(ValueError, match="cannot be written"):
            pool.exchange("GET", "/", [(b"x", b"a\r\nb: c")])
        assert upstream.accepted == 0


# Leaving the block


async def endless(wire: Wire) -> None:
    await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]) + b"1\r\na\r\n")
    await wire.gone()


async def silent(wire: Wire) -> None:
    await wire.gone()


@both
async def test_leaving_in_the_middle_of_a_body_closes_the_connection_at_once(parser: ParserFactory) -> None:
    async with served(endless, parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            assert await response.read() == b"a"
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)


@both
@pytest.mark.parametrize("answer", [silent, endless])
async def test_a_cancelled_request_frees_its_slot_at_once_and_the_engine_sees_it(
    parser: ParserFactory, answer: Answer
) -> None:
    async with served(answer, parser=parser) as (upstream, pool):
        task = asyncio.create_task(body_of(pool))
        await upstream.until(lambda: upstream.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.slots_used == 0
        # No deadline is near. The cancellation closes the engine's side within a few iterations of the loop.
        for _ in range(20):
            await asyncio.sleep(0)
        assert upstream.open == 0


@both
async def test_an_unread_but_complete_response_leaves_a_reusable_connection(
    parser: ParserFactory,
) -> None:
    async with served(json_answer(200, {}), parser=parser) as (upstream, pool):
        for _ in range(3):
            async with pool.exchange("GET", "/") as response:
                await upstream.until(partial(has_ended, response))
            assert "idle=1 leased=0" in repr(pool)
        assert await body_of(pool) == b"{}"
        assert upstream.accepted == 1


@both
async def test_after_drain_on_exit_the_rest_is_read_in_the_background(parser: ParserFactory) -> None:
    left = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]) + b"1\r\na\r\n")
        await left.wait()
        await wire.send(b"3\r\nxyz\r\n0\r\n\r\n")

    async with served(answer, json_answer(200, "next"), parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            assert await response.read() == b"a"
            response.drain_on_exit()
        assert "idle=0 leased=0 connecting=0 draining=1" in repr(pool)
        assert pool.slots_used == 1
        left.set()
        await upstream.until(lambda: "idle=1 leased=0 connecting=0 draining=0" in repr(pool))
        assert await body_of(pool) == b'"next"'
        assert upstream.accepted == 1


@both
async def test_a_paused_response_is_drained(parser: ParserFactory) -> None:
    answer = framed(200, [], [b"x" * 1000] * 3000, "chunked")
    async with served(answer, parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            await upstream.until(lambda: " paused " in repr(response._connection))
            response.drain_on_exit()
        await upstream.until(lambda: "idle=1 leased=0 connecting=0 draining=0" in repr(pool))


@both
async def test_draining_stops_after_its_deadline(parser: ParserFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chatty(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]))
        while True:  # bytes do not move the drain deadline
            await wire.send(b"1\r\na\r\n")
            await asyncio.sleep(0)

    assert pool_module._DRAIN == 1.0
    monkeypatch.setattr(pool_module, "_DRAIN", 0.05)
    for answer in (endless, chatty):
        async with served(answer, parser=parser) as (upstream, pool):
            async with pool.exchange("GET", "/") as reply:
                assert (await reply.read())[:1] == b"a"
                reply.drain_on_exit()
            assert pool.slots_used == 1
            await upstream.until(partial(is_left, upstream))
            assert pool.slots_used == 0


@both
@pytest.mark.parametrize("end", [b"zz\r\n", b"", b"0\r\n\r\nsurplus"])
async def test_a_connection_that_breaks_while_it_drains_is_dropped(parser: ParserFactory, end: bytes) -> None:
    left = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]) + b"1\r\na\r\n")
        await left.wait()
        if end:
            await wire.send(end)
            await wire.gone()
        wire.reset()

    async with served(answer, parser=parser) as (upstream, pool):
        async with pool.exchange("GET", "/") as reply:
            assert await reply.read() == b"a"
            reply.drain_on_exit()
        left.set()
        await upstream.until(lambda: upstream.open == 0 and pool.slots_used == 0)


async def test_drain_on_exit_after_the_end_has_no_effect() -> None:
    async with served(json_answer(200, {})) as (_, pool):
        async with pool.exchange("GET", "/") as response:
            await response.read_all(10)
            response.drain_on_exit()
        assert "idle=1" in repr(pool)
