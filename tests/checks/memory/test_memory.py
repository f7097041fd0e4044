"""The check itself: a real request within the bounds, and results beyond them."""

import orjson
import pytest

from tests.checks.memory import MIB, SHAPES, SHORT, Result, measure, running_service

pytestmark = pytest.mark.slow


def test_a_request_takes_at_most_six_times_its_body_and_gives_it_back() -> None:
    with running_service("properties") as service:
        result = measure(service, SHAPES["properties"](3 * MIB))
    assert result.status == 200
    assert result.is_within_bounds(), str(result)


@pytest.mark.parametrize(
    ("result", "within"),
    [
        (Result(MIB, 200, 6 * MIB, MIB), True),
        (Result(MIB, 200, 6 * MIB + 1, MIB), False),
        (Result(MIB, 200, 6 * MIB, 4 * MIB), True),
        (Result(MIB, 200, 6 * MIB, 4 * MIB + 1), False),
        (Result(4 * MIB, 200, 6 * MIB, 6 * MIB), True),
        (Result(4 * MIB, 200, 6 * MIB, 6 * MIB + 1), False),
        (Result(MIB, 413, 14 * MIB, 9 * MIB), True),
        (Result(MIB, 413, 15 * MIB, MIB), False),
        (Result(MIB, 500, MIB, MIB), False),
    ],
    ids=str,
)
def test_a_result_beyond_a_bound_is_found(result: Result, within: bool) -> None:
    assert result.is_within_bounds() is within


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_a_document_of_its_size(shape: str) -> None:
    document = SHAPES[shape](1_000_000)
    assert 0.8 * 1_000_000 < len(document) < 1.2 * 1_000_000
    if shape != "invalid at its end":
        assert orjson.loads(document)["model"] == "m"
    assert set(SHORT) <= SHAPES.keys()
