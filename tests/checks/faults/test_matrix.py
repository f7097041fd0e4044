"""Each cell of the fault matrix is a test. The cells of a session are played together, because most of them wait."""

import re
from collections.abc import Mapping

import pytest

from tests.checks.faults.cells import CELLS, Cell
from tests.checks.faults.matrix import Result, play
from tests.checks.faults.process_faults import PROCESS_CELLS, ProcessCell
from tests.checks.faults.table import BEGIN, END, expected_of_processes, expected_outcomes, tables
from tests.docs.pages import PAGES


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Mapping[Cell, Result]:
    """The results of the selected cells."""
    params = (getattr(item, "callspec", None) for item in request.session.items)
    cells = (chosen.params.get("cell") for chosen in params if chosen is not None)
    return play(cell for cell in cells if isinstance(cell, Cell))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_fault_has_its_outcome_and_leaves_nothing_behind(cell: Cell, results: Mapping[Cell, Result]) -> None:
    assert not results[cell].problems


@pytest.mark.parametrize("cell", PROCESS_CELLS, ids=str)
def test_a_fault_of_the_services_processes_has_its_outcome(cell: ProcessCell) -> None:
    assert cell.play() == cell.expected


def test_the_page_of_faults_has_the_tables_of_the_matrix() -> None:
    shown = re.search(f"{BEGIN}\n(.*?)\n{END}", PAGES["explanation/faults-and-limits.md"], re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == tables(expected_outcomes(), expected_of_processes())
