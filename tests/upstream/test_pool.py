"""Slots, the queue, closing and cancellation. The stepping tests check the slot counts after each step."""

import asyncio
import random
import re
import time
from functools import partial
from itertools import count

import pytest

from anthro_asgi.upstream.errors import Broken, ConnectFailed, PoolExhausted, UpstreamError
from anthro_asgi.upstream.http_parsers import PARSERS, ParserFactory
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.upstream.pool import Pool
from tests.support.upstream import Answer, ScriptedUpstream, Wire, json_answer, raw_answer
from tests.upstream.test_exchange import body_of, served, silent

both = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)

OK = json_answer(200, {})


def counts(pool: Pool) -> dict[str, int]:
    """The counts in the repr, which must add up."""
    numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", repr(pool))}
    places = numbers["idle"] + numbers["leased"] + numbers["connecting"] + numbers["draining"]
    assert places == pool.slots_used <= numbers["limit"], repr(pool)
    return numbers


def has_one_idle(upstream: ScriptedUpstream, pool: Pool) -> bool:
    return upstream.open == counts(pool)["idle"] == 1


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# Slots


async def test_the_repr_of_a_pool_shows_its_counts() -> None:
    async with served(OK, limit=7) as (upstream, pool):
        assert repr(pool) == f"<Pool {upstream.url} idle=0 leased=0 connecting=0 draining=0 waiting=0 limit=7>"
        async with pool.exchange("GET", "/"):
            assert repr(pool) == f"<Pool {upstream.url} idle=0 leased=1 connecting=0 draining=0 waiting=0 limit=7>"


@both
async def test_there_are_no_more_connections_than_slots_and_the_queue_is_fifo(parser: ParserFactory) -> None:
    order: list[int] = []

    async def ask(pool: Pool, number: int) -> None:
        async with pool.exchange("GET", "/") as response:
            order.append(number)
            await response.read_all(10)

    async with served(OK, parser=parser, limit=1) as (upstream, pool):
        tasks = [asyncio.create_task(ask(pool, number)) for number in range(8)]
        await asyncio.sleep(0)
        assert counts(pool)["waiting"] == 7
        await asyncio.gather(*tasks)
        assert order == list(range(8))
        assert upstream.accepted == 1
        assert counts(pool)["idle"] == 1


async def test_a_waiter_that_passes_the_connect_deadline_gets_pool_exhausted() -> None:
    async with served(silent, limit=2, deadlines=Deadlines(connect=0.05)) as (upstream, pool):
        holders = [asyncio.create_task(body_of(pool)) for _ in range(2)]
        await upstream.until(lambda: len(upstream.requests) == 2)
        with pytest.raises(PoolExhausted, match="all 2 slots busy"):
            await body_of(pool)
        assert counts(pool)["waiting"] == 0
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)


async def test_a_freed_slot_goes_to_the_first_waiter_that_is_not_cancelled() -> None:
    async with served(silent, OK, limit=1) as (upstream, pool):
        tasks = [asyncio.create_task(body_of(pool)) for _ in range(3)]
        await upstream.until(lambda: upstream.requests)
        tasks[1].cancel()
        tasks[0].cancel()
        assert await tasks[2] == b"{}"
        assert counts(pool)["idle"] == 1
        assert all(task.cancelled() for task in tasks[:2])


async def test_a_waiter_that_is_cancelled_with_a_connection_hands_it_to_the_next() -> None:
    async with served(OK, limit=1) as (upstream, pool):
        exchange = pool.exchange("GET", "/")
        async with exchange as response:
            tasks = [asyncio.create_task(body_of(pool)) for _ in range(2)]
            await settle()
            await response.read_all(10)
        assert counts(pool)["leased"] == 1  # handed to the first waiter, which has not run yet
        tasks[0].cancel()
        assert await tasks[1] == b"{}"
        assert counts(pool)["idle"] == 1
        assert upstream.accepted == 1


async def test_a_waiter_that_is_cancelled_with_a_slot_hands_it_to_the_next() -> None:
    async with served(silent, OK, limit=1) as (upstream, pool):
        tasks = [asyncio.create_task(body_of(pool)) for _ in range(3)]
        await upstream.until(lambda: upstream.requests)
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        assert counts(pool)["connecting"] == 1
        tasks[1].cancel()
        assert await tasks[2] == b"{}"
        assert counts(pool)["idle"] == 1


async def test_a_connection_that_closes_after_it_was_handed_over_is_renewed() -> None:
    async with served(OK, limit=1) as (upstream, pool):
        async with pool.exchange("GET", "/") as response:
            task = asyncio.create_task(body_of(pool))
            await settle()
            await response.read_all(10)
        (connection,) = pool._leased
        connection.eof_received()
        assert await task == b"{}"
        assert upstream.accepted == 2
        assert counts(pool)["idle"] == 1


# Closing


@both
async def test_closing_ends_every_exchange_and_refuses_new_ones(parser: ParserFactory) -> None:
    async with served(silent, parser=parser, limit=2) as (upstream, pool):
        tasks = [asyncio.create_task(body_of(pool)) for _ in range(4)]
        await upstream.until(lambda: len(upstream.requests) == 2)
        assert counts(pool)["waiting"] == 2
        await pool.aclose()
        await upstream.until(lambda: upstream.open == 0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Broken, Broken, ConnectFailed, ConnectFailed]
        assert pool.slots_used == 0
        with pytest.raises(ConnectFailed, match="the pool is closed"):
            await body_of(pool)
        await pool.aclose()


async def test_closing_closes_idle_and_draining_connections() -> None:
    async def endless(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-length", "9")]))
        await wire.gone()

    async with served(OK, endless) as (upstream, pool):
        async with pool.exchange("GET", "/") as first, pool.exchange("GET", "/") as second:
            await first.read_all(10)
            second.drain_on_exit()
        assert (counts(pool)["idle"], counts(pool)["draining"]) == (1, 1)
        await pool.aclose()
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.open == 0)


async def test_an_exchange_that_is_connecting_when_the_pool_closes_fails() -> None:
    async with ScriptedUpstream(OK) as upstream:
        pool = Pool(Origin.parse(upstream.url))
        task = asyncio.create_task(body_of(pool))
        await asyncio.sleep(0)
        assert counts(pool)["connecting"] == 1
        await pool.aclose()
        with pytest.raises(ConnectFailed, match="the pool is closed"):
            await task
        assert pool.slots_used == 0
        await upstream.until(lambda: upstream.accepted and not upstream.open)


# Cancellation


def random_engine(rng: random.Random) -> Answer:
    """An engine that behaves at random: it resets, closes, hangs, or answers in part or completely."""

    async def answer(wire: Wire) -> None:
        behaviour = rng.randrange(8)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if behaviour == 0:
            return wire.reset()
        if behaviour == 1:
            return wire.close()
        if behaviour == 2:
            return await wire.gone()
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]))
        for _ in range(rng.randrange(4)):
            await wire.send(b"2\r\nab\r\n")
            await asyncio.sleep(0)
        if behaviour == 3:
            return wire.reset()
        return await wire.send(b"0\r\n\r\n")

    return answer


@both
@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("reused", [False, True])
async def test_an_exchange_cancelled_at_any_step_frees_its_slot(
    parser: ParserFactory, reused: bool, drain: bool
) -> None:
    async def steps(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("transfer-encoding", "chunked")]))
        for _ in range(3):
            await wire.send(b"2\r\nab\r\n")
            await asyncio.sleep(0)
        await wire.send(b"0\r\n\r\n")

    async def ask(pool: Pool) -> None:
        async with pool.exchange("GET", "/") as response:
            if drain:
                response.drain_on_exit()
            while await response.read():
                pass

    for steps_run in count():
        async with served(steps, parser=parser, limit=1) as (upstream, pool):
            if reused:
                await ask(pool)
            tasks = [asyncio.create_task(ask(pool)) for _ in range(2)]  # the second waits for the slot of the first
            for _ in range(steps_run):
                await asyncio.sleep(0)
                counts(pool)
            tasks[0].cancel()
            await tasks[1]
            await upstream.until(partial(has_one_idle, upstream, pool))
        if not tasks[0].cancelled():
            assert steps_run > 4
            break


@pytest.mark.slow
@both
@pytest.mark.parametrize("seed", range(3))
async def test_random_requests_cancellations_and_resets_leak_no_slot(parser: ParserFactory, seed: int) -> None:
    rng = random.Random(seed)

    async def ask(pool: Pool) -> None:
        async with pool.exchange("POST", "/", body=b"x" * rng.randrange(100)) as response:
            for _ in range(rng.randrange(5)):
                await response.read()
            if rng.random() < 0.5:
                response.drain_on_exit()

    limits = Deadlines(connect=0.5, first_byte=0.2, silence=0.2)
    async with served(random_engine(rng), parser=parser, limit=3, deadlines=limits) as (upstream, pool):
        tasks: list[asyncio.Task[None]] = []
        for _ in range(400):
            if rng.random() < 0.4:
                tasks.append(asyncio.create_task(ask(pool)))
            if tasks and rng.random() < 0.2:
                rng.choice(tasks).cancel()
            if upstream.wires and rng.random() < 0.05:
                rng.choice(upstream.wires).reset()
            await asyncio.sleep(0)
            counts(pool)
            if len(tasks) > 12:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                counts(pool)
                tasks = [task for task in tasks if not task.done() or not expected(task)]
        await asyncio.wait(tasks)
        assert all(expected(task) for task in tasks)
        await upstream.until(lambda: counts(pool)["draining"] == 0)
        assert (counts(pool)["leased"], counts(pool)["connecting"], counts(pool)["waiting"]) == (0, 0, 0)
        await upstream.until(lambda: upstream.open == counts(pool)["idle"])


def expected(task: "asyncio.Task[None]") -> bool:
    """True for a finished task that succeeded, was cancelled or raised UpstreamError; raises any other error."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, UpstreamError):
        raise error
    return True


async def test_a_connection_that_was_ready_while_the_process_was_stopped_is_used() -> None:
    """After a stop, the timer of the deadline fires first, and only then the loop sees that the socket is connected."""
    async with served(silent, deadlines=Deadlines(connect=0.05)) as (_, pool):
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)  # in the same iteration as the beginning of the connect
        connection = await pool.lease()
        assert counts(pool)["leased"] == 1
        pool.release(connection, drain=False)
