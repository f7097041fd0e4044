"""The arrivals of the open loop."""

import random
from itertools import islice, pairwise

import pytest

from anthro_asgi.bench.load.target import ARRIVALS


def first(kind: str, count: int, rate: float = 50.0, burst: int = 4, seed: int = 3) -> list[float]:
    return list(islice(ARRIVALS[kind](rate, burst, seed), count))


@pytest.mark.parametrize("kind", ARRIVALS)
def test_the_arrival_rate_is_the_requested_rate(kind: str) -> None:
    assert 19_000 / 50 < first(kind, 20_000)[-1] < 21_000 / 50


@pytest.mark.parametrize("kind", ARRIVALS)
def test_arrivals_ascend_and_the_same_seed_gives_the_same(kind: str) -> None:
    moments = first(kind, 1000)
    assert moments == sorted(moments)
    assert moments == first(kind, 1000)


def test_another_seed_gives_other_poisson_arrivals() -> None:
    assert first("poisson", 10) != first("poisson", 10, seed=4)


def test_constant_arrivals_do_not_drift() -> None:
    assert first("constant", 100_000, rate=3.0)[-1] == 99_999 / 3.0


def test_poisson_gaps_have_a_deviation_equal_to_their_mean() -> None:
    gaps = [later - earlier for earlier, later in pairwise(first("poisson", 20_000))]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 0.95 < deviation / mean < 1.05


def test_the_requests_of_a_burst_arrive_together() -> None:
    assert first("bursts", 10) == [0.0] * 4 + [0.08] * 4 + [0.16] * 2


def test_poisson_arrivals_do_not_change_the_global_random_state() -> None:
    random.seed(1)
    before = random.getstate()
    first("poisson", 10)
    assert random.getstate() == before
