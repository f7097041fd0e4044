"""Percentiles of a run."""

import random
from math import ceil

from anthro_asgi.bench.load.tally import PERCENTILES, Samples


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
