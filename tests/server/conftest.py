"""Runs a test with both sets of installed packages."""

import pytest

from tests.support.service import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
