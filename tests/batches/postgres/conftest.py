"""One PostgreSQL server for the tests in this folder, and an empty database for each test."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from anthro_asgi.batches.database import Database
from anthro_asgi.batches.postgres import PostgresDatabase
from tests.support.postgres import PostgresServer

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def new_database(postgres: PostgresServer) -> Callable[[], Database]:
    return partial(PostgresDatabase, postgres.create(f"test{next(_numbers)}"))
