"""The tests of the batch store, over PostgreSQL."""

from tests.batches.test_store import *  # noqa: F403 - pytest collects them here once more, with the fixture of this folder
