"""The cost of metrics is measured on two pipelines that differ only in the counting."""

import argparse
import re

import pytest

from bench import guard, metered
from bench.in_process import chunked
from bench.micro.case import Comparison
from bench.micro.streams import STYLES, stream

TEXTS = [f"word {number}" for number in range(70)]
COUNT = "anthro_asgi_inter_token_latency_seconds_count"


def counted(path: metered.Pipeline) -> float:
    found = re.search(rf"^{COUNT} (\S+)$", path.app.metrics.exposition()[0].decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_each_read_passes_both_pipelines_and_is_counted_in_one() -> None:
    reads = [chunked(chunk) for chunk in stream(STYLES[0], "text", TEXTS).chunks]
    async with metered.paths() as both:
        for path in both:
            before = path.client.writes
            assert await path.feed(reads) > 0
            assert path.client.writes - before == len(TEXTS)
    assert [counted(path) for path in both] == [0, len(TEXTS)]


def test_the_result_has_its_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metered, "measure", lambda _: Comparison(2000.0, 2060.0, 1.03))
    assert metered.main(argparse.Namespace(rounds=1)) == 0
    said = capsys.readouterr().out
    assert said == "a token's way in the process: 2000 ns without metrics, 2060 ns with: +3.0% (bar 5%)\n"


def test_a_measurement_gives_times_and_a_ratio() -> None:
    cost = metered.measure(2)
    assert cost.floor_ns > 0
    assert cost.subject_ns > 0
    assert cost.ratio > 0


@pytest.mark.parametrize(("ratio", "holds"), [(1.02, True), (1.074, True), (1.09, False)])
def test_the_guard_compares_the_added_cost_with_its_bar(
    ratio: float, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metered, "measure", lambda: Comparison(100.0, 100.0 * ratio, ratio))
    assert guard._guard(guard._metered) == [holds]


def test_the_guard_repeats_a_measurement_only_until_all_of_its_ratios_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = iter(
        [
            {"a": guard.Guarded(2.0, 1.0), "b": guard.Guarded(0.5, 1.0)},
            {"a": guard.Guarded(1.4, 1.0), "b": guard.Guarded(9.0, 1.0)},
        ]
    )
    assert guard._guard(lambda: next(tries)) == [True, True]  # a third try would end the iterator
    shown = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split()[2]) for line in shown] == [("ok", "1.40"), ("ok", "0.50")]
    always = {"a": guard.Guarded(2.0, 1.0)}
    assert guard._guard(lambda: always) == [False]


def test_the_guard_says_which_ratios_are_compared_with_what_is_reached_and_which_with_a_bar(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ratios = {"a": guard.Guarded(1.0, 1.6), "b": guard.Guarded(1.0, 1.9, is_bar=False)}
    assert guard._guard(lambda: ratios) == [True, True]
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(" x ")[2] for line in shown] == ["(bar 1.6, guard 2.40)", "(reached today 1.9, guard 2.85)"]
