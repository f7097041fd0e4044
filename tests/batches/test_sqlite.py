"""The file of SQLite: who may read it, and what is reported when it cannot be used."""

from pathlib import Path

import pytest

from anthro_asgi.batches.sql_store import SqlBatchStore
from anthro_asgi.batches.sqlite import SqliteDatabase
from anthro_asgi.batches.store import StoreUnavailable


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "batches.db"))
    database.open()
    assert (tmp_path / "batches.db").stat().st_mode & 0o777 == 0o600
    database.close()


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    for path, content in (("absent/batches.db", None), ("text.db", "no database, but a text of some length " * 99)):
        if content is not None:
            (tmp_path / path).write_text(content)
        with pytest.raises(StoreUnavailable, match=path):
            await SqlBatchStore(SqliteDatabase(str(tmp_path / path))).open()
