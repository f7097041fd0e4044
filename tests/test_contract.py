"""Each clause of the wire contract has a test, and each mark of a test names a clause.

The contract is `docs/reference/wire-contract.md`. A test says which clauses it proves: `@pytest.mark.clause("5.3")`.
The row of a table says it with the argument `clause="5.3"`. The marks are read from the source files, so the check is
the same for one test file, for the whole suite and for each parallel worker.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRACT = (ROOT / "docs" / "reference" / "wire-contract.md").read_text("utf-8")
TITLE = re.compile(r"^\*\*(\d+\.\d+) [^*\n]+\*\*(?P<unbuilt> \*\(not yet true\)\*)? ", re.MULTILINE)
CLAUSES = {found[1]: found["unbuilt"] is None for found in TITLE.finditer(CONTRACT)}
BUILT = [number for number, built in CLAUSES.items() if built]


def clauses_in(source: str) -> Iterator[str]:
    """The clauses that the tests of one file name, in marks and in the rows of tables."""
    for arguments in re.findall(r"\bpytest\.mark\.clause\(([^)]*)\)|\bclause=(\"[\d.]+\")", source):
        yield from re.findall(r"\"([^\"]+)\"", "".join(arguments))


@cache
def marks() -> dict[str, set[str]]:
    """Test file → the clauses that it names."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {str(file.relative_to(ROOT)): set(clauses_in(file.read_text("utf-8"))) for file in files}


def test_the_contract_numbers_its_clauses_without_gaps() -> None:
    sections = {number.partition(".")[0] for number in CLAUSES}
    assert sections == {str(number) for number in range(1, 13)}
    for section in sections:
        inside = [int(number.partition(".")[2]) for number in CLAUSES if number.partition(".")[0] == section]
        assert inside == list(range(1, len(inside) + 1)), f"section {section}"


def test_each_clause_has_a_test() -> None:
    assert [number for number in BUILT if not any(number in clauses for clauses in marks().values())] == []


def test_each_mark_names_a_clause_that_is_built() -> None:
    unknown = {file: sorted(clauses - set(BUILT)) for file, clauses in marks().items() if clauses - set(BUILT)}
    assert unknown == {}, "no such clause, or the contract still says that it is not yet true"


def test_each_clause_that_a_file_of_the_package_cites_is_in_the_contract() -> None:
    cited = re.compile(r"contract (\d+\.\d+)|contract sections? (\d+)")
    sections = {number.partition(".")[0] for number in CLAUSES}
    for path in sorted((ROOT / "anthro_asgi").rglob("*.py")):
        for clause, section in cited.findall(path.read_text("utf-8")):
            assert clause in CLAUSES or section in sections, f"{path} cites {clause or section}"
