"""The batch store: leases, outcomes that are stored once, cursors, cancellation and expiry.

`new_database` is that of the folder: SQLite here, PostgreSQL in `postgres/`, which runs the same tests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from anthro_asgi.batches.database import Database
from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.store import Claimed, DuplicateCustomId, Finished, Released, Result
from anthro_asgi.wire.batch_body import BatchEntry
from anthro_asgi.wire.message_batch import LIFETIME

NOW = 1_800_000_000.0
NewDatabase = Callable[[], Database]
ME, YOU = b"me", b"you"


@asynccontextmanager
async def stores(new_database: NewDatabase, count: int = 1) -> AsyncIterator[list[SqlBatchStore]]:
    """Stores over one database, each with its own connection, as several processes have them."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            store = SqlBatchStore(new_database())
            await store.open()
            stack.push_async_callback(store.close)
            opened.append(store)
        yield opened


def entries(*names: str) -> list[BatchEntry]:
    return [BatchEntry(name, b'{"name":"%b"}' % name.encode()) for name in names]


async def begin(store: SqlBatchStore, batch_id: str, *names: str, owner: bytes = ME, now: float = NOW) -> None:
    await store.create(owner, batch_id, now)
    await store.append(batch_id, entries(*names), now)
    await store.complete(batch_id, now)


async def claim(store: SqlBatchStore, holder: str = "w", limit: int = 100, now: float = NOW) -> list[Claimed]:
    return await store.claim(holder, limit, now, now + 30)


def names(claimed: list[Claimed]) -> list[str]:
    return [one.custom_id for one in claimed]


def succeeded(claimed: list[Claimed], body: bytes = b'{"id":"msg"}') -> list[Finished]:
    return [Finished(one.number, "succeeded", body) for one in claimed]


async def test_results_are_in_the_order_of_the_requests(
    new_database: NewDatabase,
) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x", "y", "z")
        claimed = await claim(store)
        assert [(one.batch_id, one.custom_id, one.failures, one.params) for one in claimed] == [
            ("b1", name, 0, b'{"name":"%b"}' % name.encode()) for name in "xyz"
        ]
        assert await claim(store) == []
        assert await store.results(ME, "b1", -1) == []
        assert await store.finish([Finished(claimed[2].number, "errored", b"{}")], NOW + 1) == []
        [ended] = await store.finish(succeeded(claimed[:2]), NOW + 2)
        assert (ended.id, ended.processing_status, ended.total) == ("b1", "ended", 3)
        assert (ended.ended_at, ended.outcomes) == (NOW + 2, (2, 1, 0, 0))
        assert await store.results(ME, "b1", -1) == [
            Result(0, "x", "succeeded", b'{"id":"msg"}'),
            Result(1, "y", "succeeded", b'{"id":"msg"}'),
            Result(2, "z", "errored", b"{}"),
        ]
        assert names_of(await store.results(ME, "b1", 1)) == ["z"]
        assert await store.results(ME, "b1", 2) == []


def names_of(results: list[Result]) -> list[str]:
    return [result.custom_id for result in results]


async def test_a_batch_that_is_not_complete_is_not_seen_and_not_worked_off(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await store.create(ME, "b1", NOW)
        await store.append("b1", entries("x"), NOW)
        assert await claim(store) == []
        assert await store.get(ME, "b1") is None
        assert await store.page(ME, after_id=None, before_id=None, limit=9) == ([], False)
        await store.discard("b1")
        with pytest.raises(LookupError):
            await store.complete("b1", NOW)


async def test_an_upload_that_was_given_up_is_removed_after_ten_minutes(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await store.create(ME, "b1", NOW)
        await store.append("b1", entries("x"), NOW)
        await store.settle(NOW + 599)
        await store.append("b1", entries("y"), NOW + 599)
        await store.settle(NOW + 601)
        await store.append("b1", entries("z"), NOW + 601)
        await store.settle(NOW + 1202)
        with pytest.raises(LookupError):
            await store.complete("b1", NOW + 1202)


async def test_a_custom_id_is_unique_in_its_batch(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await store.create(ME, "b1", NOW)
        await store.append("b1", entries("x", "y"), NOW)
        with pytest.raises(DuplicateCustomId, match=r"^x$"):
            await store.append("b1", entries("z", "x"), NOW)
        with pytest.raises(DuplicateCustomId, match=r"^w$"):
            await store.append("b1", entries("w", "v", "w"), NOW)
        await store.append("b1", entries("z"), NOW)  # a refused group leaves nothing behind
        assert (await store.complete("b1", NOW)).total == 3
        await begin(store, "b2", "x")


async def test_of_two_outcomes_of_a_request_the_first_stays(new_database: NewDatabase) -> None:
    async with stores(new_database, 2) as [first, second]:
        await begin(first, "b1", "x")
        mine = await claim(first, "one")
        assert await claim(second, "two", now=NOW + 29) == []
        theirs = await claim(second, "two", now=NOW + 31)  # the lease has run out
        assert names(theirs) == ["x"]
        assert len(await second.finish(succeeded(theirs, b"1"), NOW + 32)) == 1
        assert await first.finish(succeeded(mine, b"2"), NOW + 33) == []
        await first.release([Released(mine[0].number, NOW, 0)])
        assert await claim(first, now=NOW + 99) == []
        assert [result.body for result in await first.results(ME, "b1", -1)] == [b"1"]


async def test_a_lease_lasts_as_long_as_it_is_renewed(new_database: NewDatabase) -> None:
    async with stores(new_database, 2) as [first, second]:
        await begin(first, "b1", "x")
        await claim(first, "one")
        await first.renew("one", NOW + 60)
        await second.renew("two", NOW + 600)
        assert await claim(second, "two", now=NOW + 59) == []
        await first.release_all("one", NOW + 59)
        assert names(await claim(second, "two", now=NOW + 59)) == ["x"]


async def test_a_released_request_waits_and_keeps_the_count_of_its_failures(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        [claimed] = await claim(store)
        await store.release([Released(claimed.number, NOW + 10, 2)])
        assert await claim(store, now=NOW + 9) == []
        [again] = await claim(store, now=NOW + 10)
        assert (again.custom_id, again.failures) == ("x", 2)


async def test_several_processes_claim_each_request_once(new_database: NewDatabase) -> None:
    async with stores(new_database, 4) as four:
        await begin(four[0], "b1", *(str(at) for at in range(200)))
        found: list[str] = []

        async def work(store: SqlBatchStore, holder: str) -> None:
            while claimed := await claim(store, holder, limit=7):
                found.extend(names(claimed))
                await store.finish(succeeded(claimed), NOW)

        await asyncio.gather(*(work(store, f"w{at}") for at, store in enumerate(four)))
        assert sorted(found, key=int) == [str(at) for at in range(200)]
        batch = await four[1].get(ME, "b1")
        assert batch is not None
        assert (batch.outcomes, batch.processing_status) == ((200, 0, 0, 0), "ended")


async def test_claims_take_turns_among_the_batches(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", *(f"a{at}" for at in range(9)))
        await begin(store, "b2", *(f"b{at}" for at in range(9)), owner=YOU)
        await begin(store, "b3", "c0")
        assert sorted(names(await claim(store, limit=6))) == ["a0", "a1", "b0", "b1", "c0"]
        assert names(await claim(store, limit=1)) == ["a2"]
        assert names(await claim(store, limit=1)) == ["b2"]


async def test_one_claim_takes_few_large_requests(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await store.create(ME, "b1", NOW)
        for name in "xyz":
            await store.append("b1", [BatchEntry(name, b"x" * (5 << 20))], NOW)
        await store.complete("b1", NOW)
        assert names(await claim(store)) == ["x", "y"]
        assert names(await claim(store)) == ["z"]


async def test_pages_of_results_are_small_also_if_the_results_are_large(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", *"vwxyz")
        claimed = await claim(store)
        await store.finish(succeeded(claimed, b"1" * 300_000), NOW)
        pages, position = [], -1
        while page := await store.results(ME, "b1", position):
            pages.append(names_of(page))
            position = page[-1].position
        assert pages == [["v", "w"], ["x", "y"], ["z"]]


async def test_cancellation_ends_what_no_worker_runs_and_what_runs_may_end(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x", "y", "z")
        [claimed] = await claim(store, limit=1)
        batch = await store.cancel(ME, "b1", NOW + 1)
        assert batch is not None
        assert (batch.processing_status, batch.cancel_initiated_at) == ("canceling", NOW + 1)
        assert await claim(store, now=NOW + 1) == []
        again = await store.cancel(ME, "b1", NOW + 2)
        assert again == batch
        [ended] = await store.finish(succeeded([claimed]), NOW + 3)
        assert ended.outcomes == (1, 0, 2, 0)
        assert [one.outcome for one in await store.results(ME, "b1", -1)] == ["succeeded", "canceled", "canceled"]
        assert await store.cancel(ME, "b1", NOW + 4) == ended


async def test_a_canceled_batch_that_nobody_works_on_has_ended_at_once(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        batch = await store.cancel(ME, "b1", NOW)
        assert batch is not None
        assert (batch.processing_status, batch.outcomes) == ("ended", (0, 0, 1, 0))


async def test_a_canceled_request_of_a_dead_worker_is_settled_when_its_lease_has_run_out(
    new_database: NewDatabase,
) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        await claim(store)
        await store.cancel(ME, "b1", NOW)
        assert await store.settle(NOW + 29) == []
        [ended] = await store.settle(NOW + 31)
        assert ended.outcomes == (0, 0, 1, 0)


async def test_a_batch_expires_after_a_day(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x", "y")
        await store.finish(succeeded(await claim(store, limit=1)), NOW)
        assert await store.settle(NOW + LIFETIME - 1) == []
        assert await claim(store, now=NOW + LIFETIME) == []
        [ended] = await store.settle(NOW + LIFETIME)
        assert (ended.outcomes, ended.expires_at) == ((1, 0, 0, 1), NOW + LIFETIME)
        assert [one.outcome for one in await store.results(ME, "b1", -1)] == ["succeeded", "expired"]


async def test_an_owner_sees_only_own_batches(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        await store.finish(succeeded(await claim(store)), NOW)
        assert await store.get(YOU, "b1") is None
        assert await store.cancel(YOU, "b1", NOW) is None
        assert await store.results(YOU, "b1", -1) == []
        assert not await store.delete(YOU, "b1")
        assert await store.page(YOU, after_id=None, before_id=None, limit=9) == ([], False)
        assert await store.get(ME, "b1") is not None


async def test_only_a_batch_that_has_ended_is_deleted_and_nothing_of_it_stays(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        assert not await store.delete(ME, "b1")
        claimed = await claim(store)
        await store.finish(succeeded(claimed), NOW)
        assert await store.delete(ME, "b1")
        assert not await store.delete(ME, "b1")
        assert await store.get(ME, "b1") is None
        await begin(store, "b2", "x")
        assert await store.finish(succeeded(claimed), NOW) == []  # numbers are not used again
        assert names(await claim(store)) == ["x"]


async def test_pages_by_cursors(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        for at in range(1, 6):
            await begin(store, f"b{at}", "x")
            await begin(store, f"other{at}", "x", owner=YOU)

        async def page(limit: int, after: str | None = None, before: str | None = None) -> tuple[list[str], bool]:
            batches, has_more = await store.page(ME, after_id=after, before_id=before, limit=limit)
            return [batch.id for batch in batches], has_more

        assert await page(9) == (["b5", "b4", "b3", "b2", "b1"], False)
        assert await page(2) == (["b5", "b4"], True)
        assert await page(2, after="b4") == (["b3", "b2"], True)
        assert await page(2, after="b2") == (["b1"], False)
        assert await page(2, before="b2") == (["b4", "b3"], True)
        assert await page(2, before="b4") == (["b5"], False)
        assert await page(9, after="b5", before="b1") == (["b4", "b3", "b2"], False)
        assert await page(9, after="unknown") == await page(9, before="other3") == ([], False)


async def test_everything_is_there_after_a_restart(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x", "y")
        await store.finish(succeeded(await claim(store, limit=1)), NOW)
    async with stores(new_database) as [store]:
        assert names(await claim(store)) == ["y"]


async def test_a_worker_learns_which_batches_of_its_leases_another_process_has_canceled(
    new_database: NewDatabase,
) -> None:
    async with stores(new_database, 2) as [first, second]:
        await begin(first, "b1", "x", "y")
        await begin(first, "b2", "z")
        await claim(first, "w1")
        assert await first.renew("w1", NOW + 60) == []
        await second.cancel(ME, "b1", NOW + 1)
        assert await first.renew("w1", NOW + 60) == ["b1"]
        assert await second.renew("w2", NOW + 60) == []


async def test_a_claim_leaves_the_batches_that_are_skipped(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await begin(store, "b1", "x")
        await begin(store, "b2", "y")
        assert names(await store.claim("w", 10, NOW, NOW + 30, {"b1"})) == ["y"]
        assert names(await store.claim("w", 10, NOW, NOW + 30)) == ["x"]
