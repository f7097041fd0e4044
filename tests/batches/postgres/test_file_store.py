"""The tests of the store of files, over PostgreSQL."""

from tests.batches.test_file_store import *  # noqa: F403 - pytest collects them here once more, with the fixture of this folder
