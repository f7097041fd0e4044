"""How times and lengths are spread: by statistics of many draws with a known seed."""

from random import Random
from statistics import fmean, median, pstdev

import pytest

from anthro_asgi.settings import values
from anthro_asgi.simulator import SHAPES, Distribution, Shape

MANY = 20_000


def draws(spread: Distribution, seed: int = 1) -> list[float]:
    draw = spread.sampler(Random(seed))
    return [draw() for _ in range(MANY)]


@pytest.mark.parametrize("shape", ["normal", "log-normal", "gamma"])
@pytest.mark.parametrize(("mean", "deviation"), [(5.0, 1.0), (0.02, 0.005), (200.0, 60.0)])
def test_mean_and_deviation_are_those_that_were_asked_for(shape: Shape, mean: float, deviation: float) -> None:
    values = draws(Distribution(shape, mean, deviation))
    assert fmean(values) == pytest.approx(mean, rel=0.02)
    assert pstdev(values) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("shape", ["log-normal", "gamma"])
def test_what_is_skewed_has_its_tail_above(shape: Shape) -> None:
    values = draws(Distribution(shape, 10.0, 8.0))
    assert fmean(values) == pytest.approx(10.0, rel=0.03)
    assert median(values) < 9.0
    assert max(values) > 50.0
    assert min(values) >= 0.0


def test_log_normal_is_normal_in_its_logarithm_and_gamma_is_exponential_where_it_should_be() -> None:
    values = sorted(draws(Distribution("log-normal", 10.0, 10.0)))
    assert values[MANY // 2] == pytest.approx(10.0 / 2**0.5, rel=0.03)  # the mean over the root of 1 + (s/m)²
    values = sorted(draws(Distribution("gamma", 10.0, 10.0)))
    assert values[MANY // 2] == pytest.approx(10.0 * 0.6931, rel=0.03)  # the half-life


def test_uniform_reaches_from_end_to_end() -> None:
    values = draws(Distribution("uniform", 2.0, 6.0))
    assert 2.0 <= min(values) < 2.01
    assert 5.99 < max(values) <= 6.0
    assert fmean(values) == pytest.approx(4.0, rel=0.01)


def test_what_normal_has_below_zero_is_zero() -> None:
    values = draws(Distribution("normal", 1.0, 2.0))
    assert min(values) == 0.0
    assert 0.25 < sum(value == 0.0 for value in values) / MANY < 0.36


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_draws(shape: Shape) -> None:
    spread = Distribution(shape, 1.0, 3.0)
    assert draws(spread, 7) == draws(spread, 7)
    assert shape == "constant" or draws(spread, 7) != draws(spread, 8)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_deviation_each_is_the_mean(shape: Shape) -> None:
    assert set(draws(Distribution(shape, 3.0, 3.0 if shape == "uniform" else 0.0))) == {3.0}


@pytest.mark.parametrize(
    ("spread", "zero"),
    [
        (Distribution("constant", 0), True),
        (Distribution("gamma", 0, 5), True),
        (Distribution("log-normal", 0, 5), True),
        (Distribution("uniform", 0, 0), True),
        (Distribution("normal", 0, 1), False),
        (Distribution("uniform", 0, 1), False),
        (Distribution("constant", 0.1), False),
    ],
)
def test_it_knows_whether_all_it_gives_is_zero(spread: Distribution, zero: bool) -> None:
    assert spread.zero is zero
    assert (set(draws(spread)) == {0.0}) is zero


def test_a_length_is_whole_and_at_least_one() -> None:
    lengths = [Distribution("gamma", 2.0, 3.0).whole(Random(seed)) for seed in range(500)]
    assert min(lengths) == 1
    assert all(isinstance(length, int) for length in lengths)


def test_a_number_and_a_tuple_are_short_for_a_spread() -> None:
    assert Distribution.of(5) == Distribution("constant", 5)
    assert Distribution.of(("gamma", 2.0, 1.0)) == Distribution("gamma", 2.0, 1.0)
    assert Distribution.of(Distribution("uniform", 1, 2)) == Distribution("uniform", 1, 2)
    assert [str(Distribution.of(value)) for value in (0.5, ("normal", 1.0, 0.25))] == ["0.5", "normal(1, 0.25)"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("poisson", 1.0, 1.0),
        ("normal", -1.0, 1.0),
        ("normal", 1.0, -1.0),
        ("normal", float("nan"), 1.0),
        ("constant", float("inf"), 0.0),
        ("uniform", 2.0, 1.0),
    ],
)
def test_numbers_that_make_no_distribution_are_refused(wrong: tuple[Shape, float, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|not one of|not a range"):
        Distribution(*wrong)


def test_every_shape_can_be_named_in_an_option() -> None:
    assert ("constant", *values.SHAPES) == SHAPES
