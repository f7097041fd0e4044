"""A pytest plugin for the SDK's tests. It runs in their environment, and imports nothing of this checkout.

Before each test of batches, it asks the process that started pytest, which has the store, to put the batch there that
these tests name. And it marks the tests whose requests no server without a network could answer as expected failures.
"""

import os
from urllib.request import urlopen

import pytest

# The example of these tests sets all fields at once: an MCP server on the internet, and `compaction` together with
# `context_management`, which exclude each other.
REFUSED = (
    "beta/test_messages.py::test_method_create_with_all_params_overload_1",
    "beta/test_messages.py::test_method_create_with_all_params_overload_2",
    "beta/test_messages.py::test_method_count_tokens_with_all_params",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = item.nodeid.partition("::")[0].partition("api_resources/")[2]
        if f"{file}::{getattr(item, 'originalname', '')}" in REFUSED:
            item.add_marker(pytest.mark.xfail(strict=True, reason="names an MCP server on the internet"))


@pytest.fixture(autouse=True)
def kept_batch(request: pytest.FixtureRequest) -> None:
    if request.path.name == "test_batches.py":
        with urlopen(os.environ["KEPT_BATCH_URL"], timeout=30) as response:  # noqa: S310 - a server of this command
            assert response.status == 200
