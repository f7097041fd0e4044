"""A request takes at most six times its body, whatever its shape, and gives it back. (Short form: some shapes.)"""

import pytest

from tests.checks.memory import MIB, SHAPES, measure, running_service

pytestmark = pytest.mark.slow

# of each kind, those that take most
SHORT = (
    "properties",
    "an input of deep values",
    "one text with an emoji",
    "one image",
    "small messages",
    "invalid at its end",
)


@pytest.mark.parametrize("shape", SHORT)
def test_a_request_takes_at_most_six_times_its_body_and_gives_it_back(shape: str) -> None:
    with running_service(shape) as service:
        result = measure(service, SHAPES[shape](3 * MIB))
    assert result.is_within_bounds(), str(result)
