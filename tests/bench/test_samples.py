"""Percentiles of a run."""

import random
from math import ceil
from statistics import fmean, pstdev
from typing import Any

import pytest

from anthro_asgi.bench.load.samples import PERCENTILES, Samples


def expected(values: list[int]) -> dict[str, Any]:
    """The obvious way."""
    ordered = sorted(values)
    found = {name: ordered[max(1, ceil(part * len(ordered))) - 1] / 1e9 for name, part in PERCENTILES.items()}
    return {"mean": pytest.approx(fmean(values) / 1e9), "std": pytest.approx(pstdev(values) / 1e9), **found}


def draws(count: int, seed: int = 1) -> list[int]:
    draw = random.Random(seed)
    return [int(draw.lognormvariate(12, 3)) for _ in range(count)]


def test_without_samples_there_are_no_percentiles() -> None:
    assert Samples().summary() == {**dict.fromkeys(("mean", "std", *PERCENTILES)), "n": 0}
    assert Samples().quantiles() == []


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


def test_quantiles_run_from_the_smallest_sample_over_each_percentile_to_the_largest() -> None:
    samples = Samples(unit=1)
    for value in reversed(range(1, 1001)):
        samples.add(value)
    assert samples.quantiles() == [1.0, *range(10, 1001, 10)]
