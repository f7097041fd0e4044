"""Percentiles, exact and in buckets."""

import random
from math import ceil

from bench.load.tally import PERCENTILES, Samples


def expected(values: list[int]) -> dict[str, float]:
    """The obvious way."""
    ordered = sorted(values)
    return {name: ordered[max(1, ceil(part * len(ordered))) - 1] / 1e9 for name, part in PERCENTILES.items()}


def draws(count: int, seed: int = 1) -> list[int]:
    draw = random.Random(seed)
    return [int(draw.lognormvariate(12, 3)) for _ in range(count)]


def test_without_samples_there_are_no_percentiles() -> None:
    assert Samples().summary() == {"p50": None, "p90": None, "p99": None, "p99.9": None, "max": None, "n": 0}


def test_percentiles_of_few_samples_are_exact() -> None:
    for count in (1, 2, 3, 10, 999, 1000, 1001):
        samples, values = Samples(), draws(count)
        for value in values:
            samples.add(value)
        assert samples.summary() == {**expected(values), "n": count}


def test_zeros_count_like_other_values() -> None:
    samples, values = Samples(), draws(100)
    for value in values:
        samples.add(value)
    samples.zeros += 150
    assert samples.summary() == {**expected(values + [0] * 150), "n": 250}
    assert samples.summary()["p50"] == 0.0


def test_percentiles_from_buckets_are_exact_to_four_per_mille_and_the_maximum_is_exact() -> None:
    samples, values = Samples(limit=1000), [*range(300), *draws(20_000)]
    for value in values:
        samples.add(value)
        samples.settle()
    samples.zeros += 10
    found, right = samples.summary(), expected(values + [0] * 10)
    assert found["n"] == 20_310
    assert len(samples._exact) == 1001
    assert found["max"] == right["max"]
    for name, value in right.items():
        assert abs((found[name] or 0) - value) <= 0.004 * value


def test_the_maximum_may_be_among_the_exact_samples() -> None:
    samples = Samples(limit=1)
    for value in (10**9, 5, 7):
        samples.add(value)
        samples.settle()
    samples.settle()
    samples.add(8)
    assert samples.summary()["max"] == 1.0
