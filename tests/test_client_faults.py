"""Each fault of `tests/clients/faults.py` has a scenario with a real client, and each mark of a scenario names a fault.

The scenarios need installed clients, so they are not collected here. Their marks are read from the source files.
"""

import re
from pathlib import Path

from tests.clients.drivers.lines import REPORT_SCHEMA
from tests.clients.faults import FAULTS
from tests.clients.install import NPM, PYPI
from tests.test_contract import CLAUSES

CLIENTS = Path(__file__).parent / "clients"
SCENARIOS = {path.name: path.read_text("utf-8") for path in sorted(CLIENTS.glob("test_*.py"))}


def marks() -> dict[str, set[str]]:
    """Test file → the faults that its scenarios name."""
    found = {name: re.findall(r"pytest\.mark\.fault\(([^)]*)\)", source) for name, source in SCENARIOS.items()}
    return {name: set(re.findall(r'"([^"]+)"', " ".join(arguments))) for name, arguments in found.items()}


def test_each_fault_has_a_scenario() -> None:
    played = set().union(*marks().values())
    assert sorted(set(FAULTS) - played) == []


def test_each_mark_names_a_fault() -> None:
    assert {name: sorted(faults - set(FAULTS)) for name, faults in marks().items() if faults - set(FAULTS)} == {}


def test_no_fault_that_ends_a_session_is_missing_from_the_table() -> None:
    assert [name for name in FAULTS if name.startswith("A")] == [f"A{number}" for number in range(1, 13)]


def test_each_fault_cites_a_clause_of_the_contract() -> None:
    assert {name: fault.clauses for name, fault in FAULTS.items() if not set(fault.clauses) <= set(CLAUSES)} == {}


def test_each_driver_has_scenarios_and_a_pinned_client() -> None:
    drivers = {path.stem for path in (CLIENTS / "drivers").iterdir() if path.stem not in ("__init__", "lines")}
    drivers.discard("__pycache__")
    used = {name for source in SCENARIOS.values() for name in re.findall(r'^DRIVER = "(\w+)"$', source, re.MULTILINE)}
    assert used == drivers
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in (*NPM.values(), *PYPI.values()))


def test_the_report_of_the_drivers_is_one_schema() -> None:
    """The classes of the Python drivers and the schema of the JavaScript drivers say the same."""
    assert set(REPORT_SCHEMA["properties"]) == {"city", "degrees"}
    for path in (CLIENTS / "drivers").glob("*.py"):
        for fields in re.findall(r"class Report\(BaseModel\):\n((?:    \w+: \w+\n)+)", path.read_text("utf-8")):
            assert fields == "    city: str\n    degrees: int\n", path
    shared = (CLIENTS / "drivers" / "lines.mjs").read_text("utf-8")
    assert 'properties: { city: { type: "string" }, degrees: { type: "integer" } }' in shared
