"""Both ways in which the service can be installed."""

import pytest

from tests.server.process import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
