"""What `sql_store` needs of a database: one connection, statements with `?`, and transactions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]


class Cursor(Protocol):
    """The part of a cursor (PEP 249) that is used."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, statement: Any, parameters: Any = ..., /) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def fetchmany(self, size: int = ..., /) -> list[Any]: ...


class Statements:
    """Runs statements in a transaction that is open.

    `row_locks`: other transactions run at the same time. The ends of a SELECT, `for_update` and `skip_locked`, then
    lock its rows; they are empty where a transaction has the database for itself.
    """

    __slots__ = ("_cursor", "_translate", "for_update", "skip_locked")

    def __init__(self, cursor: Cursor, translate: Callable[[str], str] = str, *, row_locks: bool = False) -> None:
        self._cursor = cursor
        self._translate = translate
        self.for_update = " FOR UPDATE" if row_locks else ""
        self.skip_locked = " FOR UPDATE SKIP LOCKED" if row_locks else ""

    def rows(self, statement: str, *parameters: object) -> list[Row]:
        """The rows of a query."""
        self._cursor.execute(self._translate(statement), parameters)
        return self._cursor.fetchall()

    def row(self, statement: str, *parameters: object) -> Row | None:
        """The first row of a query, None without one."""
        rows = self.rows(statement, *parameters)
        return rows[0] if rows else None

    def page(
        self,
        table: str,
        columns: str,
        condition: str,
        *parameters: object,
        owner: bytes,
        after_id: str | None,
        before_id: str | None,
        limit: int,
    ) -> tuple[list[Row], bool]:
        """A page of the rows of `owner` that fulfil `condition`, the latest first, and whether there are more.

        The rows come after that of `after_id`, or before that of `before_id`. `parameters` are those of `condition`.
        """
        # The latest row comes first, so "after" the cursor are smaller numbers.
        values: list[object] = [owner, *parameters]
        for cursor, comparison in ((after_id, "<"), (before_id, ">")):
            if cursor is not None:
                condition += f" AND number {comparison} (SELECT number FROM {table} WHERE id = ? AND owner = ?)"  # noqa: S608 - put together from constants
                values += [cursor, owner]
        backwards = before_id is not None and after_id is None
        rows = self.rows(
            f"SELECT {columns} FROM {table} WHERE owner = ? AND {condition}"  # noqa: S608 - put together from constants
            f" ORDER BY number {'ASC' if backwards else 'DESC'} LIMIT ?",
            *values,
            limit + 1,
        )
        page = rows[:limit]
        return page[::-1] if backwards else page, len(rows) > limit

    def run(self, statement: str, *parameters: object) -> int:
        """Run a statement. Returns how many rows it changed."""
        self._cursor.execute(self._translate(statement), parameters)
        return self._cursor.rowcount

    def run_all(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once for each of the rows of parameters."""
        translated = self._translate(statement)
        for parameters in rows:
            self._cursor.execute(translated, parameters)


class UniqueViolation(Exception):
    """A row that must be unique exists already."""


class Database(Protocol):
    """One database. Every method but the constructor is called in the one thread of the store."""

    def open(self) -> None:
        """Connect, and create the tables if they are missing. Raises StoreUnavailable."""

    def close(self) -> None: ...

    def transaction(self, work: Callable[[Statements], T]) -> T:
        """Run `work` in a transaction, which is committed, durably, when it returns.

        Raises what `work` raises, UniqueViolation and StoreUnavailable.
        """


def schema(*, serial: str, integer: str, real: str, blob: str) -> dict[str, list[str]]:
    """The statements that create the tables, by the table that each list creates last.

    The arguments are the names of types in a database. The number of a request is that of its batch times 2**20, plus
    its position. Bodies and contents are in tables of their own, so that a change of state does not write them again.
    """
    batches = [
        f"""CREATE TABLE IF NOT EXISTS batches (
            number {serial}, id TEXT NOT NULL UNIQUE, owner {blob} NOT NULL,
            created {real} NOT NULL, touched {real} NOT NULL, expires {real} NOT NULL,
            is_complete INTEGER NOT NULL DEFAULT 0, canceled {real}, ended {real},
            total INTEGER NOT NULL DEFAULT 0, unfinished INTEGER NOT NULL DEFAULT 0,
            outcome_1 INTEGER NOT NULL DEFAULT 0, outcome_2 INTEGER NOT NULL DEFAULT 0,
            outcome_3 INTEGER NOT NULL DEFAULT 0, outcome_4 INTEGER NOT NULL DEFAULT 0)""",
        "CREATE INDEX IF NOT EXISTS batches_of_owner ON batches (owner, number)",
        "CREATE INDEX IF NOT EXISTS batches_not_ended ON batches (number) WHERE ended IS NULL",
        f"""CREATE TABLE IF NOT EXISTS requests (
            number {integer} PRIMARY KEY, batch {integer} NOT NULL, custom_id TEXT NOT NULL,
            outcome INTEGER NOT NULL DEFAULT 0, due {real} NOT NULL, holder TEXT,
            failures INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, UNIQUE (batch, custom_id))""",
        "CREATE INDEX IF NOT EXISTS requests_open ON requests (batch, due, number) WHERE outcome = 0",
        "CREATE INDEX IF NOT EXISTS requests_leased ON requests (holder) WHERE holder IS NOT NULL",
        f"CREATE TABLE IF NOT EXISTS params (number {integer} PRIMARY KEY, body {blob} NOT NULL)",
        f"""CREATE TABLE IF NOT EXISTS results (
            number {integer} PRIMARY KEY, size INTEGER NOT NULL, body {blob} NOT NULL)""",
    ]
    files = [
        f"""CREATE TABLE IF NOT EXISTS files (
            number {serial}, id TEXT NOT NULL UNIQUE, owner {blob} NOT NULL,
            created {real} NOT NULL, touched {real} NOT NULL, expires {real},
            is_complete INTEGER NOT NULL DEFAULT 0, filename TEXT NOT NULL DEFAULT '',
            mime_type TEXT NOT NULL DEFAULT '', size {integer} NOT NULL DEFAULT 0,
            pieces {integer} NOT NULL DEFAULT 0)""",
        "CREATE INDEX IF NOT EXISTS files_of_owner ON files (owner, number)",
        "CREATE INDEX IF NOT EXISTS files_not_complete ON files (touched) WHERE is_complete = 0",
        "CREATE INDEX IF NOT EXISTS files_that_expire ON files (expires) WHERE expires IS NOT NULL",
        f"""CREATE TABLE IF NOT EXISTS file_pieces (
            file {integer} NOT NULL, position {integer} NOT NULL, body {blob} NOT NULL,
            PRIMARY KEY (file, position))""",
    ]
    return {"results": batches, "file_pieces": files}
