"""What only PostgreSQL can do wrong: locks between processes, and a missing package or server."""

import pytest

from anthro_asgi.batches.database import Statements
from anthro_asgi.batches.postgres import PostgresDatabase
from anthro_asgi.batches.store import StoreUnavailable


def test_a_process_that_starts_does_not_wait_for_a_worker(url: str) -> None:
    worker = PostgresDatabase(url)
    worker.open()
    starting = PostgresDatabase(f"{url}&options=-c%20lock_timeout%3D3s")

    def start_meanwhile(statements: Statements) -> None:
        statements.run("UPDATE batches SET touched = 0")
        starting.open()

    worker.transaction(start_meanwhile)
    starting.close()
    worker.close()


def test_a_server_that_is_away_is_reported_without_the_url() -> None:
    with pytest.raises(StoreUnavailable, match=r"^PostgreSQL: ") as caught:
        PostgresDatabase("postgresql://me:secret@127.0.0.1:1/batches").open()
    assert "secret" not in str(caught.value)
