"""SQLite as the database of the batch store: one file, which the processes of one machine share.

The journal is a write-ahead log (WAL), so that reading does not wait for writing. A commit is on the disk when it
returns: `synchronous=FULL`.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from .database import Statements, UniqueViolation, schema
from .store import StoreUnavailable

T = TypeVar("T")
_BUSY: Final = 30.0  # seconds to wait for the writer of another process


class SqliteDatabase:
    """The file at `path`, which is created for its owner only: it holds prompts and answers."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"<SqliteDatabase {self._path!r}>"

    def open(self) -> None:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)
        except (OSError, sqlite3.Error) as exc:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        self._connection = connection
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self.transaction(_create_tables)
        except BaseException as exc:
            self.close()
            if isinstance(exc, sqlite3.Error):
                raise StoreUnavailable(f"{self._path}: {exc}") from exc
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def transaction(self, work: Callable[[Statements], T]) -> T:
        if self._connection is None:
            raise StoreUnavailable(f"{self._path}: not open")
        cursor = self._connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            result = work(Statements(cursor))
            cursor.execute("COMMIT")
        except BaseException as exc:
            if self._connection.in_transaction:
                self._connection.rollback()
            if isinstance(exc, sqlite3.IntegrityError):
                raise UniqueViolation(str(exc)) from exc
            if isinstance(exc, sqlite3.Error):
                raise StoreUnavailable(f"{self._path}: {exc}") from exc
            raise
        finally:
            cursor.close()
        return result


def _create_tables(statements: Statements) -> None:
    tables = schema(serial="INTEGER PRIMARY KEY AUTOINCREMENT", integer="INTEGER", real="REAL", blob="BLOB")
    for creating in tables.values():
        for statement in creating:
            statements.run(statement)
