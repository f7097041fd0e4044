"""The accuracy of the simulated engine's schedule: the computation, and both real measurements."""

import argparse

import pytest

from anthro_asgi.simulator.clock import _LoopSleeper
from bench import clock
from bench.clock import Round, Timing, anchored, drift


def test_lateness_is_relative_to_the_streams_own_schedule() -> None:
    read = [5_000_000_000, 5_100_000_000, 5_230_000_000, 5_299_000_000]
    assert anchored(read, 0.1) == pytest.approx([0.001, 0.001, 0.031, 0.0])


def test_only_a_schedule_that_is_not_absolute_has_drift() -> None:
    steady = [0.001] * 20
    drifting = [0.001 * number for number in range(20)]
    assert drift([steady]) == pytest.approx(0)
    assert drift([drifting]) == pytest.approx(0.015)


def test_the_best_round_is_shown_beside_the_median_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    clock.show(7, {"engine": [Round([0.001 * factor] * 100, 0.0) for factor in (3, 1, 2)]})
    assert capsys.readouterr().out.split() == ["7", "engine", "100", "1,000", "1,000", "2,000", "1,000", "0.0"]


async def test_the_engine_is_never_early_and_every_token_is_counted() -> None:
    rows = await clock.engine(5, Timing(0.002, 20))
    assert [len(row) for row in rows] == [20] * 5
    assert min(late for row in rows for late in row) >= 0


async def test_a_clock_that_wakes_late_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(nap: _LoopSleeper, when: float) -> None:
        await punctual(nap, when + 0.02)

    punctual = _LoopSleeper.until
    monkeypatch.setattr(_LoopSleeper, "until", late)
    rows = await clock.engine(1, Timing(0.002, 39))
    assert len(rows[0]) == 39
    assert max(rows[0]) > 0.02


def test_the_command_measures_both_and_prints_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    clock.add_arguments(parser)
    options = parser.parse_args(["--streams", "3", "--tokens", "8", "--itl", "0.01", "--rounds", "1"])
    assert clock.main(options) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["engine", "client", "client,"]
    assert rows[0][2] == rows[1][2] == "24"
