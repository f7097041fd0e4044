"""`python -m bench transit`: it measures, and says whether the bar is met."""

import argparse

import pytest

from anthro_asgi._native import new_thread
from bench import transit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(new_thread is None, reason="the extension module is not built")]


def test_the_thread_and_the_relay_are_measured_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    assert transit.main(argparse.Namespace(rounds=3)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" p50")[0].strip() for line in lines[:3]] == ["thread", "byte relay", "added"]
    assert all("in 3 turns" in line for line in lines[:3])
    assert lines[3].startswith("bar: the thread adds 5 µs")


def test_each_turn_has_a_median_of_either_way() -> None:
    thread, relay = transit.measure(2, 20)
    assert len(thread) == len(relay) == 2
    assert min(*thread, *relay) > 0
