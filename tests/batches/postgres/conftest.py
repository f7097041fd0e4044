"""One PostgreSQL server for the tests in this folder, whose database is empty at the start of each test."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from anthro_asgi.batches.database import Database
from anthro_asgi.batches.postgres import PostgresDatabase
from tests.support.postgres import PostgresServer

TABLES = "batches, requests, params, results, files, file_pieces"


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of a database."""
    with PostgresServer() as server:
        yield server.create("batches")


@pytest.fixture
def new_database(url: str) -> Callable[[], Database]:
    database = PostgresDatabase(url)
    database.open()
    database.transaction(lambda statements: statements.run(f"DROP TABLE {TABLES}"))
    database.close()
    return partial(PostgresDatabase, url)
