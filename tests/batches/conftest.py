"""The database of the tests in this folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from anthro_asgi.batches.database import Database
from anthro_asgi.batches.sqlite import SqliteDatabase


@pytest.fixture
def new_database(tmp_path: Path) -> Callable[[], Database]:
    return partial(SqliteDatabase, str(tmp_path / "batches.db"))
