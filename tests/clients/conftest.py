"""The scenarios need installed clients and a network namespace: only `python -m tests.clients` collects them.

A file of scenarios names its client as `DRIVER`. A scenario with the argument `stream` runs twice: for whole Messages,
and for streams.
"""

import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.clients.client import Client

SWITCH: Final = "ANTHRO_ASGI_TESTS_CLIENTS"

collect_ignore_glob = [] if os.environ.get(SWITCH) else ["test_*.py"]


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """The client of the file, in a process of its own."""
    with Client(request.module.DRIVER) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Whether the client asks for a stream."""
    return bool(request.param)
