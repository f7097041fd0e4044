"""What goes wrong on purpose: how often, and where."""

from collections import Counter
from random import Random

import pytest

from anthro_asgi.settings import options
from anthro_asgi.simulator import FAILURE_KINDS, FailureRates
from anthro_asgi.simulator.failures import Kind, PlannedFailure, place_failure
from anthro_asgi.wire.errors import EngineFailed, Overloaded, RateLimited, SimulatedDisconnect


def test_each_kind_comes_as_often_as_its_rate_says() -> None:
    faults = FailureRates([("429", 0.2), ("cut", 0.05), ("stall", 0.1)])
    chance = Random(5)
    found = Counter(faults.draw(chance) for _ in range(20_000))
    assert {kind: count / 20_000 for kind, count in found.items()} == pytest.approx(
        {"429": 0.2, "cut": 0.05, "stall": 0.1, None: 0.65}, abs=0.01
    )


def test_without_rates_nothing_ever_fails_and_with_a_rate_of_one_everything() -> None:
    chance = Random(5)
    assert {FailureRates().draw(chance) for _ in range(100)} == {None}
    assert {FailureRates([("500", 0.4), ("error", 0.6)]).draw(chance) for _ in range(1000)} == {"500", "error"}
    assert bool(FailureRates()) is bool(FailureRates([("cut", 0)])) is False
    assert bool(FailureRates([("cut", 0.1)])) is True


@pytest.mark.parametrize(
    "wrong",
    [[("418", 0.1)], [("cut", 1.1)], [("cut", -0.1)], [("cut", 0.1), ("cut", 0.2)], [("cut", 0.6), ("429", 0.6)]],
)
def test_kinds_and_rates_that_cannot_be_are_refused(wrong: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match=r"0 to 1|more than 1"):
        FailureRates(wrong)


def test_it_strikes_within_the_answer_after_the_first_token_and_before_the_last() -> None:
    chance = Random(2)
    assert {place_failure("cut", 5, chance).place for _ in range(200)} == {1, 2, 3, 4}
    assert {place_failure("cut", 2, chance).place for _ in range(50)} == {1}
    assert place_failure("cut", 1, chance).place == 1  # before the end, when there is only one


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("429", RateLimited),
        ("529", Overloaded),
        ("500", EngineFailed),
        ("error", EngineFailed),
        ("cut", SimulatedDisconnect),
    ],
)
def test_each_says_what_it_is(kind: Kind, raised: type[Exception]) -> None:
    with pytest.raises(raised) as caught:
        PlannedFailure(kind).raise_error()
    if kind in ("429", "529"):
        assert ("retry-after", "1") in caught.value.headers  # type: ignore[attr-defined]


def test_every_kind_can_be_named_in_an_option() -> None:
    assert options.FAILURES == FAILURE_KINDS
