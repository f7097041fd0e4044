"""A batch store without a thread, in memory: for tests on a fake clock."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from anthro_asgi.batches.database import Statements
from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.batches.store import StoreUnavailable
from anthro_asgi.wire.batch_body import BatchEntry

T = TypeVar("T")
P = ParamSpec("P")


class InlineStore(SqlBatchStore):
    """The store over SQLite as it is, but each transaction runs in the caller. `fails`: every one fails."""

    def __init__(self, path: str) -> None:
        super().__init__(SqliteDatabase(path))
        self.fails = False
        self.transactions = 0

    async def open(self) -> None:
        self._database.open()

    async def close(self) -> None:
        self._database.close()

    async def _run(self, work: Callable[Concatenate[Statements, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.fails:
            raise StoreUnavailable("the disk is full")
        self.transactions += 1
        return self._database.transaction(lambda statements: work(statements, *args, **kwargs))


async def begin(store: SqlBatchStore, batch_id: str, count: int, *, owner: bytes = b"me", now: float) -> None:
    """A batch of requests with the custom_ids 0, 1, …"""
    await store.create(owner, batch_id, now)
    await store.append(batch_id, [BatchEntry(str(at), b'{"at":%d}' % at) for at in range(count)], now)
    await store.complete(batch_id, now)
