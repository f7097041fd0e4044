"""A request takes at most 64 MiB and six times its body, whatever its shape, and gives it back. (Short form.)"""

from collections.abc import Iterator

import pytest

from tests.checks.memory import MIB, SHAPES, measure, running_service
from tests.support.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_takes_a_bounded_multiple_of_its_body(service: Service, shape: str) -> None:
    result = measure(service, SHAPES[shape](3 * MIB))
    assert result.is_within_bounds(), str(result)
