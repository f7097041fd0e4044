"""PostgreSQL as the database of the batch store (extra `postgres`): several machines share one queue.

A connection that broke is opened again by the next transaction. If a connection breaks during a commit, the store
cannot know whether the database committed. The worker may repeat each transaction: the second run changes nothing.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, TypeVar

from .database import Statements, UniqueViolation, schema
from .store import StoreUnavailable

T = TypeVar("T")
_CONNECT: Final = 10  # seconds to wait for a connection
_SCHEMA_LOCK: Final = 0x616E7468  # any number that other users of the database do not lock


class PostgresDatabase:
    """The database at `url`, which is `postgresql://…` or what else libpq accepts.

    Raises ValueError without psycopg.
    """

    def __init__(self, url: str) -> None:
        try:
            self._psycopg: Any = import_module("psycopg")
        except ImportError as exc:
            raise ValueError("PostgreSQL needs psycopg: pip install 'anthro-asgi[postgres]'") from exc
        self._url = url
        self._connection: Any = None

    def __repr__(self) -> str:
        return "<PostgresDatabase>"  # the URL may hold a password

    def open(self) -> None:
        self.transaction(_create_tables)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def transaction(self, work: Callable[[Statements], T]) -> T:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._psycopg.connect(self._url, connect_timeout=_CONNECT)
            with self._connection.cursor() as cursor:
                result = work(Statements(cursor, _translate, row_locks=True))
            self._connection.commit()
        except BaseException as exc:
            if self._connection is not None:
                with suppress(self._psycopg.Error):  # a broken connection is closed then
                    self._connection.rollback()
            if isinstance(exc, self._psycopg.errors.UniqueViolation):
                raise UniqueViolation(str(exc)) from exc
            if isinstance(exc, self._psycopg.Error):
                raise StoreUnavailable(f"PostgreSQL: {' '.join(str(exc).split())}") from exc
            raise
        return result


def _translate(statement: str) -> str:
    return statement.replace("?", "%s")


def _create_tables(statements: Statements) -> None:
    statements.rows("SELECT 1 FROM pg_advisory_xact_lock(?)", _SCHEMA_LOCK)  # several processes start at one time
    tables = schema(serial="BIGSERIAL PRIMARY KEY", integer="BIGINT", real="DOUBLE PRECISION", blob="BYTEA")
    for last, creating in tables.items():
        if statements.rows("SELECT to_regclass(?)", last)[0][0] is not None:
            continue  # CREATE … IF NOT EXISTS locks what exists, too, and could deadlock with a worker
        for statement in creating:
            statements.run(statement)
