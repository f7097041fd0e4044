"""The short form of `python -m tests.checks.killed_batches`: a few kills of services, engine and database."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checks.killed_batches import Report, with_postgres, with_sqlite


@pytest.mark.clause("11.10")
@pytest.mark.parametrize("run", [with_sqlite, with_postgres])
def test_no_result_is_lost_and_nothing_that_has_finished_runs_again(
    run: Callable[[Path, float, int], Report], tmp_path: Path
) -> None:
    report = run(tmp_path, 6.0, 7)
    assert not report.problems, str(report)
    assert report.kills
