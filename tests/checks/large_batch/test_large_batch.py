"""The short form of `python -m tests.checks.large_batch`."""

from pathlib import Path

from tests.checks.large_batch import MB, measure


def test_a_batch_is_streamed_in_and_out(tmp_path: Path) -> None:
    result = measure(tmp_path, 8 * MB, 800)
    assert result.problems(800, most=7 * MB) == [], str(result)
