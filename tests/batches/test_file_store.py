"""The store of files: uploads that become visible at their end, owners, cursors, limits and expiry.

`new_database` is that of the folder: SQLite here, PostgreSQL in `postgres/`, which runs the same tests.
"""

import pytest

from anthro_asgi.batches.file_store import LEAST_SIZE, PIECE, FileStore, TooManyFiles
from anthro_asgi.wire.file_metadata import FileMetadata
from tests.batches.test_store import ME, NOW, YOU, NewDatabase, stores

ROOM = 10 * LEAST_SIZE


async def upload(
    files: FileStore,
    file_id: str,
    *pieces: bytes,
    owner: bytes = ME,
    now: float = NOW,
    expires_at: float | None = None,
    max_total: int = ROOM,
) -> FileMetadata:
    await files.create(owner, file_id, now, max_total=max_total)
    for piece in pieces or (b"hello",):
        await files.append(file_id, piece, now)
    return await files.complete(
        file_id, f"{file_id}.txt", "text/plain", now, expires_at=expires_at, max_total=max_total
    )


async def read(files: FileStore, file_id: str, owner: bytes = ME) -> list[bytes]:
    pieces: list[bytes] = []
    while found := await files.content(owner, file_id, len(pieces)):
        pieces += found
    return pieces


def ids(files: list[FileMetadata]) -> list[str]:
    return [file.id for file in files]


async def test_a_file_is_hidden_until_it_is_complete(new_database: NewDatabase) -> None:
    async with stores(new_database, 2) as [store, other]:
        pieces = [bytes([at]) * PIECE for at in range(6)] + [b"end"]
        await store.files.create(ME, "f", NOW, max_total=ROOM)
        for piece in pieces:
            await store.files.append("f", piece, NOW)
        assert await other.files.get(ME, "f", NOW) is None
        assert await other.files.content(ME, "f", 0) == []
        assert await other.files.page(ME, NOW, after_id=None, before_id=None, limit=9) == ([], False)
        file = await store.files.complete("f", "a.bin", "x/y", NOW + 1, expires_at=None, max_total=99 << 20)
        assert file == FileMetadata("f", NOW + 1, None, "a.bin", "x/y", 6 * PIECE + 3)
        assert await other.files.get(ME, "f", NOW) == file
        assert await read(other.files, "f") == pieces
        with pytest.raises(LookupError):
            await store.files.append("f", b"more", NOW)


@pytest.mark.clause("12.7")
async def test_an_owner_sees_and_deletes_its_own_files_only(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await upload(store.files, "mine")
        await upload(store.files, "yours", owner=YOU)
        assert ids(await store.files.some(ME, ["mine", "yours", "none"], NOW)) == ["mine"]
        assert await store.files.get(ME, "yours", NOW) is None
        assert await read(store.files, "yours") == []
        assert not await store.files.delete(ME, "yours")
        assert await read(store.files, "yours", YOU) == [b"hello"]
        assert await store.files.delete(YOU, "yours")
        assert not await store.files.delete(YOU, "yours")
        assert await read(store.files, "yours", YOU) == []
        assert await store.files.some(ME, [], NOW) == []


@pytest.mark.clause("12.5")
async def test_pages_begin_with_the_latest_file(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        for name in "abcde":
            await upload(store.files, name)
        await upload(store.files, "x", owner=YOU)

        async def page(after: str | None = None, before: str | None = None, limit: int = 2) -> tuple[list[str], bool]:
            files, has_more = await store.files.page(ME, NOW, after_id=after, before_id=before, limit=limit)
            return ids(files), has_more

        assert await page() == (["e", "d"], True)
        assert await page(after="d") == (["c", "b"], True)
        assert await page(after="b") == (["a"], False)
        assert await page(before="b") == (["d", "c"], True)
        assert await page(before="d") == (["e"], False)
        assert await page(after="e", before="a", limit=9) == (["d", "c", "b"], False)
        assert await page(after="x") == await page(before="none") == ([], False)


@pytest.mark.clause("12.3")
async def test_the_files_of_an_owner_are_limited_and_small_ones_count_as_a_block(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        for at in range(3):
            await upload(store.files, f"f{at}", max_total=4 * LEAST_SIZE)
        await store.files.create(ME, "large", NOW, max_total=4 * LEAST_SIZE)
        await store.files.append("large", b"x" * (LEAST_SIZE + 1), NOW)
        with pytest.raises(TooManyFiles):
            await store.files.complete("large", "l", "text/plain", NOW, expires_at=None, max_total=4 * LEAST_SIZE)
        assert await store.files.get(ME, "large", NOW) is None
        await store.files.discard("large")
        await upload(store.files, "fits", max_total=4 * LEAST_SIZE)
        with pytest.raises(TooManyFiles):
            await store.files.create(ME, "more", NOW, max_total=4 * LEAST_SIZE)
        await upload(store.files, "of another", owner=YOU, max_total=4 * LEAST_SIZE)
        await store.files.delete(ME, "f0")
        await upload(store.files, "again", max_total=4 * LEAST_SIZE)


@pytest.mark.clause("12.4")
async def test_files_that_expire_and_uploads_that_were_given_up_are_removed(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        await upload(store.files, "stays")
        await upload(store.files, "expires", expires_at=NOW + 3600)
        await store.files.create(ME, "given up", NOW, max_total=ROOM)
        await store.files.append("given up", b"x", NOW)
        assert await store.files.get(ME, "expires", NOW + 3600) is None
        assert await store.files.page(ME, NOW + 3600, after_id=None, before_id=None, limit=9) == (
            await store.files.some(ME, ["stays"], NOW),
            False,
        )
        await store.settle(NOW + 600)
        await store.files.append("given up", b"x", NOW)
        assert ids(await store.files.some(ME, ["expires"], NOW)) == ["expires"]
        await store.settle(NOW + 3601)
        assert await store.files.some(ME, ["expires"], NOW) == []
        assert ids(await store.files.some(ME, ["stays"], NOW + 3601)) == ["stays"]
        with pytest.raises(LookupError):
            await store.files.append("given up", b"x", NOW)
        tables = await store._run(lambda statements: statements.rows("SELECT DISTINCT file FROM file_pieces"))
        assert len(tables) == 1


async def test_a_database_that_holds_batches_only_gets_the_tables_of_files(new_database: NewDatabase) -> None:
    async with stores(new_database) as [store]:
        for table in ("file_pieces", "files"):
            await store._run(lambda statements, table=table: statements.run(f"DROP TABLE {table}"))  # type: ignore[misc]  # bound
    async with stores(new_database) as [store]:
        await upload(store.files, "f")
        assert await read(store.files, "f") == [b"hello"]
