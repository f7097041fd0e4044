"""The batch store over an SQL database. Every statement runs in one thread, so that the event loop is never held.

Each method of the store is one transaction. Several processes or pods may share the database, and only one of them can
claim, finish or cancel a row: the UPDATE names the expected state in its WHERE, and the store counts the changed rows.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ..wire.batch_body import BatchEntry
from ..wire.message_batch import LIFETIME, OUTCOMES, MessageBatch
from .database import Database, Row, Statements, UniqueViolation
from .sql_files import SqlFileStore, settle_files
from .store import Claimed, DuplicateCustomId, Finished, Released, Result

T = TypeVar("T")
P = ParamSpec("P")
_SHIFT: Final = 20  # bits of a request's number that are its position in the batch
_UPLOAD_GIVEN_UP: Final = 600.0  # seconds without a new request after which an incomplete batch is removed
_CLAIM_BYTES: Final = 8 << 20  # of params in one claim
_PAGE_BYTES: Final = 512 * 1024  # of results in one page
_PAGE_ROWS: Final = 1000
_OUTCOME_NUMBERS: Final = {outcome: number for number, outcome in enumerate(OUTCOMES, 1)}  # 0 is open
_CANCELED: Final = _OUTCOME_NUMBERS["canceled"]
_EXPIRED: Final = _OUTCOME_NUMBERS["expired"]
_COLUMNS: Final = "id, created, expires, canceled, ended, total, unfinished, outcome_1, outcome_2, outcome_3, outcome_4"


class SqlBatchStore:
    """Implements `store.BatchStore`; see there."""

    def __init__(self, database: Database) -> None:
        self.files = SqlFileStore(self._run)
        self._database = database
        self._thread: ThreadPoolExecutor | None = None
        self._served_last = 0  # the number of the batch that a claim took from last

    def __repr__(self) -> str:
        return f"<SqlBatchStore {self._database!r}>"

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, "anthro-asgi batch store")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.open)
        except BaseException:
            self._thread.shutdown()
            self._thread = None
            raise

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._database.close)
            thread.shutdown()

    async def _run(self, work: Callable[Concatenate[Statements, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction, in the thread. It also runs to its end when the caller is cancelled."""
        transaction = partial(self._database.transaction, lambda statements: work(statements, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)

    # batches of one owner

    async def create(self, owner: bytes, batch_id: str, now: float) -> None:
        await self._run(_create, owner, batch_id, now)

    async def append(self, batch_id: str, entries: Sequence[BatchEntry], now: float) -> None:
        try:
            await self._run(_append, batch_id, entries, now)
        except UniqueViolation as exc:
            raise DuplicateCustomId(await self._run(_duplicate, batch_id, entries)) from exc

    async def complete(self, batch_id: str, now: float) -> MessageBatch:
        return await self._run(_complete, batch_id, now)

    async def discard(self, batch_id: str) -> None:
        await self._run(_discard, batch_id)

    async def get(self, owner: bytes, batch_id: str) -> MessageBatch | None:
        return await self._run(_get, owner, batch_id)

    async def page(
        self, owner: bytes, *, after_id: str | None, before_id: str | None, limit: int
    ) -> tuple[list[MessageBatch], bool]:
        return await self._run(_page, owner, after_id, before_id, limit)

    async def cancel(self, owner: bytes, batch_id: str, now: float) -> MessageBatch | None:
        return await self._run(_cancel, owner, batch_id, now)

    async def delete(self, owner: bytes, batch_id: str) -> bool:
        return await self._run(_delete, owner, batch_id)

    async def results(self, owner: bytes, batch_id: str, after: int) -> list[Result]:
        return await self._run(_results, owner, batch_id, after)

    # the work

    async def claim(
        self, holder: str, limit: int, now: float, lease_until: float, skipped: Collection[str] = ()
    ) -> list[Claimed]:
        return await self._run(self._claim, holder, limit, now, lease_until, skipped)

    async def renew(self, holder: str, lease_until: float) -> list[str]:
        return await self._run(_renew, holder, lease_until)

    async def release(self, released: Sequence[Released]) -> None:
        await self._run(_release, released)

    async def release_all(self, holder: str, now: float) -> None:
        await self._run(_release_all, holder, now)

    async def finish(self, finished: Sequence[Finished], now: float) -> list[MessageBatch]:
        return await self._run(_finish, finished, now)

    async def settle(self, now: float) -> list[MessageBatch]:
        return await self._run(_settle, now)

    def _claim(
        self,
        statements: Statements,
        holder: str,
        limit: int,
        now: float,
        lease_until: float,
        skipped: Collection[str],
    ) -> list[Claimed]:
        batches = statements.rows(
            "SELECT number, id, owner FROM batches"
            " WHERE ended IS NULL AND is_complete = 1 AND canceled IS NULL AND expires > ? ORDER BY number",
            now,
        )
        batches = [batch for batch in batches if batch[1] not in skipped]
        later = [batch for batch in batches if batch[0] > self._served_last]
        batches = [*later, *(batch for batch in batches if batch[0] <= self._served_last)]
        claimed: list[Claimed] = []
        room = _CLAIM_BYTES
        for place, (batch, batch_id, owner) in enumerate(batches):
            share = -(-(limit - len(claimed)) // (len(batches) - place))  # of what is left, rounded up
            if share <= 0 or room <= 0:
                break
            rows = statements.rows(
                "SELECT number, custom_id, failures, size FROM requests"  # noqa: S608 - put together from constants
                " WHERE batch = ? AND outcome = 0 AND due <= ? ORDER BY due, number LIMIT ?" + statements.skip_locked,
                batch,
                now,
                share,
            )
            for number, custom_id, failures, size in rows:
                if room <= 0:
                    break
                room -= size
                statements.run("UPDATE requests SET due = ?, holder = ? WHERE number = ?", lease_until, holder, number)
                (body,) = statements.rows("SELECT body FROM params WHERE number = ?", number)[0]
                claimed.append(Claimed(number, bytes(owner), batch_id, custom_id, failures, bytes(body)))
            if rows:
                self._served_last = batch
        return claimed


def _create(statements: Statements, owner: bytes, batch_id: str, now: float) -> None:
    statements.run(
        "INSERT INTO batches (id, owner, created, touched, expires) VALUES (?, ?, ?, ?, ?)",
        batch_id,
        owner,
        now,
        now,
        now + LIFETIME,
    )


def _append(statements: Statements, batch_id: str, entries: Sequence[BatchEntry], now: float) -> None:
    number, total = _incomplete(statements, batch_id)
    first = (number << _SHIFT) + total
    statements.run_all(
        "INSERT INTO requests (number, batch, custom_id, due, size) VALUES (?, ?, ?, ?, ?)",
        [(at, number, entry.custom_id, now, len(entry.params)) for at, entry in enumerate(entries, first)],
    )
    statements.run_all(
        "INSERT INTO params (number, body) VALUES (?, ?)",
        [(at, entry.params) for at, entry in enumerate(entries, first)],
    )
    statements.run(
        "UPDATE batches SET total = total + ?, unfinished = unfinished + ?, touched = ? WHERE number = ?",
        len(entries),
        len(entries),
        now,
        number,
    )


def _duplicate(statements: Statements, batch_id: str, entries: Sequence[BatchEntry]) -> str:
    """The first custom_id that occurs twice."""
    number, _ = _incomplete(statements, batch_id)
    seen: set[str] = set()
    for entry in entries:
        known = statements.row("SELECT 1 FROM requests WHERE batch = ? AND custom_id = ?", number, entry.custom_id)
        if known is not None or entry.custom_id in seen:
            return entry.custom_id
        seen.add(entry.custom_id)
    raise RuntimeError("the database refused a request that is unique")


def _incomplete(statements: Statements, batch_id: str) -> tuple[int, int]:
    """The number and the total of a batch that is not complete."""
    row = statements.row("SELECT number, total FROM batches WHERE id = ? AND is_complete = 0", batch_id)
    if row is None:
        raise LookupError(f"{batch_id} is not there, or complete")
    number, total = row
    return number, total


def _complete(statements: Statements, batch_id: str, now: float) -> MessageBatch:
    number, _ = _incomplete(statements, batch_id)
    statements.run(
        "UPDATE batches SET is_complete = 1, created = ?, expires = ? WHERE number = ?", now, now + LIFETIME, number
    )
    return _batch(statements, number)


def _discard(statements: Statements, batch_id: str) -> None:
    row = statements.row("SELECT number FROM batches WHERE id = ? AND is_complete = 0", batch_id)
    if row is not None:
        _remove(statements, row[0])


def _get(statements: Statements, owner: bytes, batch_id: str) -> MessageBatch | None:
    row = statements.row(
        f"SELECT {_COLUMNS} FROM batches WHERE id = ? AND owner = ? AND is_complete = 1",  # noqa: S608 - put together from constants
        batch_id,
        owner,
    )
    return None if row is None else _from_row(row)


def _page(
    statements: Statements, owner: bytes, after_id: str | None, before_id: str | None, limit: int
) -> tuple[list[MessageBatch], bool]:
    rows, has_more = statements.page(
        "batches", _COLUMNS, "is_complete = 1", owner=owner, after_id=after_id, before_id=before_id, limit=limit
    )
    return [_from_row(row) for row in rows], has_more


def _cancel(statements: Statements, owner: bytes, batch_id: str, now: float) -> MessageBatch | None:
    row = statements.row("SELECT number FROM batches WHERE id = ? AND owner = ? AND is_complete = 1", batch_id, owner)
    if row is None:
        return None
    number: int = row[0]
    marked = statements.run(
        "UPDATE batches SET canceled = ? WHERE number = ? AND canceled IS NULL AND ended IS NULL", now, number
    )
    if marked:
        _settle_batch(statements, number, _CANCELED, now)
    return _batch(statements, number)


def _delete(statements: Statements, owner: bytes, batch_id: str) -> bool:
    row = statements.row("SELECT number FROM batches WHERE id = ? AND owner = ? AND ended IS NOT NULL", batch_id, owner)
    if row is None:
        return False
    _remove(statements, row[0])
    return True


def _remove(statements: Statements, number: int) -> None:
    begin, end = number << _SHIFT, (number + 1) << _SHIFT
    statements.run("DELETE FROM params WHERE number >= ? AND number < ?", begin, end)
    statements.run("DELETE FROM results WHERE number >= ? AND number < ?", begin, end)
    statements.run("DELETE FROM requests WHERE number >= ? AND number < ?", begin, end)
    statements.run("DELETE FROM batches WHERE number = ?", number)


def _results(statements: Statements, owner: bytes, batch_id: str, after: int) -> list[Result]:
    row = statements.row("SELECT number FROM batches WHERE id = ? AND owner = ? AND ended IS NOT NULL", batch_id, owner)
    if row is None:
        return []
    begin, end = row[0] << _SHIFT, (row[0] + 1) << _SHIFT
    sizes = statements.rows(
        "SELECT requests.number, results.size FROM requests LEFT JOIN results ON results.number = requests.number"
        " WHERE requests.number > ? AND requests.number < ? ORDER BY requests.number LIMIT ?",
        begin + after,
        end,
        _PAGE_ROWS,
    )
    total = 0
    last = begin + after
    for number, size in sizes:
        last = number
        total += size or 0
        if total >= _PAGE_BYTES:
            break
    rows = statements.rows(
        "SELECT requests.number, custom_id, outcome, results.body"
        " FROM requests LEFT JOIN results ON results.number = requests.number"
        " WHERE requests.number > ? AND requests.number <= ? ORDER BY requests.number",
        begin + after,
        last,
    )
    return [
        Result(number - begin, custom_id, OUTCOMES[outcome - 1], None if body is None else bytes(body))
        for number, custom_id, outcome, body in rows
    ]


def _renew(statements: Statements, holder: str, lease_until: float) -> list[str]:
    statements.run("UPDATE requests SET due = ? WHERE holder = ? AND outcome = 0", lease_until, holder)
    rows = statements.rows(
        "SELECT id FROM batches WHERE canceled IS NOT NULL AND number IN"
        " (SELECT batch FROM requests WHERE holder = ? AND outcome = 0) ORDER BY number",
        holder,
    )
    return [batch_id for (batch_id,) in rows]


def _release(statements: Statements, released: Sequence[Released]) -> None:
    statements.run_all(
        "UPDATE requests SET holder = NULL, due = ?, failures = ? WHERE number = ? AND outcome = 0",
        [(due, failures, number) for number, due, failures in sorted(released)],
    )


def _release_all(statements: Statements, holder: str, now: float) -> None:
    statements.run("UPDATE requests SET holder = NULL, due = ? WHERE holder = ? AND outcome = 0", now, holder)


def _finish(statements: Statements, finished: Sequence[Finished], now: float) -> list[MessageBatch]:
    stored: Counter[int] = Counter()
    for batch in sorted({one.number >> _SHIFT for one in finished}):
        _lock(statements, batch)
    for number, outcome, body in sorted(finished):
        if statements.run(
            "UPDATE requests SET outcome = ?, holder = NULL WHERE number = ? AND outcome = 0",
            _OUTCOME_NUMBERS[outcome],
            number,
        ):
            statements.run("INSERT INTO results (number, size, body) VALUES (?, ?, ?)", number, len(body), body)
            statements.run("DELETE FROM params WHERE number = ?", number)
            stored[number >> _SHIFT] += 1
    return _count_down(statements, sorted(stored.items()), now)


def _settle(statements: Statements, now: float) -> list[MessageBatch]:
    settle_files(statements, now)
    for (number,) in statements.rows(
        "SELECT number FROM batches WHERE ended IS NULL AND is_complete = 0 AND touched < ?", now - _UPLOAD_GIVEN_UP
    ):
        _remove(statements, number)
    ended: list[MessageBatch] = []
    for number, canceled in statements.rows(
        "SELECT number, canceled FROM batches WHERE ended IS NULL AND is_complete = 1"
        " AND (canceled IS NOT NULL OR expires <= ?) ORDER BY number",
        now,
    ):
        ended += _settle_batch(statements, number, _EXPIRED if canceled is None else _CANCELED, now)
    return ended


def _settle_batch(statements: Statements, number: int, outcome: int, now: float) -> list[MessageBatch]:
    """Give every request that no worker runs this outcome."""
    _lock(statements, number)
    settled = statements.run(
        "UPDATE requests SET outcome = ?, holder = NULL"
        " WHERE batch = ? AND outcome = 0 AND (holder IS NULL OR due <= ?)",
        outcome,
        number,
        now,
    )
    if settled:
        statements.run(
            "DELETE FROM params WHERE number IN (SELECT number FROM requests WHERE batch = ? AND outcome = ?)",
            number,
            outcome,
        )
    return _count_down(statements, [(number, settled)], now)


def _lock(statements: Statements, batch: int) -> None:
    """Lock a batch before any of its requests: transactions that lock in one order do not deadlock."""
    statements.rows(f"SELECT number FROM batches WHERE number = ?{statements.for_update}", batch)  # noqa: S608 - put together from constants


def _count_down(statements: Statements, finished: Iterable[tuple[int, int]], now: float) -> list[MessageBatch]:
    """Count finished requests, given as (number of the batch, count). Returns the batches that have ended."""
    ended = []
    for number, count in finished:
        statements.run("UPDATE batches SET unfinished = unfinished - ? WHERE number = ?", count, number)
        if not statements.run(
            "UPDATE batches SET ended = ? WHERE number = ? AND unfinished = 0 AND ended IS NULL AND is_complete = 1",
            now,
            number,
        ):
            continue
        counts: dict[Any, Any] = dict(
            statements.rows("SELECT outcome, count(*) FROM requests WHERE batch = ? GROUP BY outcome", number)
        )
        statements.run(
            "UPDATE batches SET outcome_1 = ?, outcome_2 = ?, outcome_3 = ?, outcome_4 = ? WHERE number = ?",
            *(counts.get(outcome, 0) for outcome in range(1, 5)),
            number,
        )
        ended.append(_batch(statements, number))
    return ended


def _batch(statements: Statements, number: int) -> MessageBatch:
    return _from_row(statements.rows(f"SELECT {_COLUMNS} FROM batches WHERE number = ?", number)[0])  # noqa: S608 - put together from constants


def _from_row(row: Row) -> MessageBatch:
    identity, created, expires, canceled, ended, total, unfinished, *outcomes = row
    return MessageBatch(identity, created, expires, canceled, ended, total, unfinished, tuple(outcomes))
