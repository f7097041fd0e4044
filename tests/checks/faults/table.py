"""The tables of docs/explanation/faults-and-limits.md, from the outcomes of the cells."""

from collections.abc import Iterable, Mapping
from typing import Final

from tests.checks.faults.cells import CELLS, Cell
from tests.checks.faults.healthy_response import PHASES
from tests.checks.faults.process_faults import PROCESS_CELLS, ProcessCell

BEGIN: Final = "<!-- generated faults: begin -->"
END: Final = "<!-- generated faults: end -->"
Outcomes = Mapping[Cell, str]  # see `cells`


def tables(outcome: Outcomes, processes: Mapping[ProcessCell, str]) -> str:
    """The text between the marks in the page."""
    pairs = _pairs(outcome)
    phases = [(fault, phase, said) for (group, fault, phase), said in pairs.items() if group == "phases"]
    engines = [(said, fault, phase) for (group, fault, phase), said in pairs.items() if group in ("answers", "places")]
    clients = [(said, fault, phase) for (group, fault, phase), said in pairs.items() if group == "clients"]
    own = [(said, cell.fault, "") for cell, said in processes.items()]
    return "\n".join(
        [
            f"{len(outcome)} cells: a fault in a phase, each for a whole answer and for a stream.",
            "",
            *_by_phase(phases),
            "",
            *_by_outcome("the engine", engines),
            "",
            *_by_outcome("the client", clients),
            "",
            *_by_outcome("the service's processes, memory, and time", own),
        ]
    )


def expected_outcomes() -> Outcomes:
    """The expected outcomes of all cells."""
    return {cell: cell.expected for cell in CELLS}


def expected_of_processes() -> Mapping[ProcessCell, str]:
    """The expected outcomes of all faults of the service's processes."""
    return {cell: cell.expected for cell in PROCESS_CELLS}


def _pairs(outcome: Outcomes) -> dict[tuple[str, str, str], str]:
    """The outcomes of the two cells of each fault and phase as one text."""
    halves: dict[tuple[str, str, str], dict[bool, str]] = {}
    for cell, said in outcome.items():
        halves.setdefault((cell.group, cell.fault, cell.phase), {})[cell.streams] = said
    return {key: _joined(*(half[streams] for streams in sorted(half))) for key, half in halves.items()}


def _joined(whole: str, streamed: str | None = None) -> str:
    """`502 · event`: 502 for a whole answer; for a stream an error event, of the same type unless another is named."""
    first, _, kind = whole.partition(" ")
    short = first if first.isdigit() and "," not in whole else whole.replace(" invalid_request_error", "")
    if streamed is None or streamed == whole:
        return short
    return f"{short} · {streamed.removesuffix(f' {kind}')}"


def _by_phase(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line for all faults with the same outcomes in every phase."""
    by_fault: dict[str, dict[str, str]] = {}
    for fault, phase, said in rows:
        by_fault.setdefault(fault, {})[phase] = said
    alike: dict[tuple[str, ...], list[str]] = {}
    for fault, phases in by_fault.items():
        alike.setdefault(tuple(phases.get(phase, "") for phase in PHASES), []).append(fault)
    lines = [f"| the engine | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
    return lines + [f"| {', '.join(faults)} | {' | '.join(cells)} |" for cells, faults in alike.items()]


def _by_outcome(who: str, rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """One line for all faults with the same outcome; faults with the same prefix (`headers: …`) are grouped."""
    alike: dict[str, dict[str, list[str]]] = {}
    for said, fault, phase in rows:
        head, sign, rest = fault.partition(": ")
        if not sign and fault.startswith("status "):
            head, rest = "status", fault.removeprefix("status ")
        kind = alike.setdefault(said, {}).setdefault(head, [])
        kind += [" ".join(filter(None, (rest, phase)))] if rest or phase else []
    lines = [f"| {who} | what a client gets |", "|---|---|"]
    for said, heads in alike.items():
        faults = (f"{head}: {', '.join(rests)}" if rests else head for head, rests in heads.items())
        lines.append(f"| {'; '.join(faults)} | {said} |")
    return lines
