"""Kills services, engine and database at random while batches run, and compares what is left with what must be."""

from pathlib import Path

from anthro_asgi.batches.postgres import PostgresDatabase
from anthro_asgi.batches.sqlite import SqliteDatabase
from tests.support.postgres import PostgresServer

from .check import Check, Report

__all__ = ["Report", "with_postgres", "with_sqlite"]


def with_sqlite(folder: Path, seconds: float, seed: int) -> Report:
    """The check over SQLite."""
    path = str(folder / "batches.db")
    with Check(folder, path, SqliteDatabase(path), seed, {}) as check:
        return check.run(seconds)


def with_postgres(folder: Path, seconds: float, seed: int) -> Report:
    """The check over PostgreSQL, which is killed too."""
    with PostgresServer() as server:
        url = server.create("batches")

        def kill_server() -> None:
            server.kill()
            server.start()

        with Check(folder, url, PostgresDatabase(url), seed, {"PostgreSQL": kill_server}) as check:
            return check.run(seconds)
