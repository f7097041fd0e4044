"""What the terminal shows of a run: medians over its rounds, beside the floor and beside the engine itself."""

from collections.abc import Callable, Iterable, Sequence

from .figures import (
    ENGINE,
    FLOOR,
    Read,
    added,
    cpu,
    median,
    memory,
    milliseconds,
    ratio,
    rounds_of,
    servers_of,
    throughput,
)
from .records import Record

Cell = Callable[[str], float | None]  # of a server
Compare = Callable[[dict[int, float], dict[int, float]], float | None]


def print_run(records: Sequence[Record], run: str) -> None:
    """The tables of one run. Nothing when nobody took part."""
    servers = servers_of(records, run)
    if not servers:
        return
    labels = {record["server"]: record["label"] for record in records if record.get("run") == run and "label" in record}
    print(f"\n{run}: medians of the rounds")
    for line in [*costs(records, run, servers, labels), "", *latencies(records, run, servers, labels)]:
        print(line)
    print(flush=True)


def costs(records: Sequence[Record], run: str, servers: Iterable[str], labels: dict[str, str]) -> list[str]:
    """CPU, tokens and memory by server."""
    cells = [
        ("CPU µs/token", _median(records, run, cpu)),
        (f"× {FLOOR}", _against(records, run, cpu, FLOOR, ratio)),
        ("tokens/s", _median(records, run, throughput)),
        ("MiB", _median(records, run, memory)),
    ]
    return _table(servers, labels, cells)


def latencies(records: Sequence[Record], run: str, servers: Iterable[str], labels: dict[str, str]) -> list[str]:
    """Milliseconds, and in the next column what is added against the engine itself."""
    cells: list[tuple[str, Cell]] = []
    for what in ("ttft", "transit", "itl"):
        for which in ("p50", "p99"):
            read = milliseconds(what, which)
            cells.append((f"{what} {which}" if which == "p50" else which, _median(records, run, read)))
            cells.append(("added", _against(records, run, read, ENGINE, added)))
    return _table(servers, labels, cells)


def _median(records: Sequence[Record], run: str, read: Read) -> Cell:
    return lambda name: median(rounds_of(records, run, name, read))


def _against(records: Sequence[Record], run: str, read: Read, other: str, compare: Compare) -> Cell:
    reference = rounds_of(records, run, other, read)
    return lambda name: compare(rounds_of(records, run, name, read), reference)


def _table(servers: Iterable[str], labels: dict[str, str], cells: Sequence[tuple[str, Cell]]) -> list[str]:
    rows = [["", *(title for title, _ in cells)]]
    rows += [[labels[name], *(_number(cell(name)) for _, cell in cells)] for name in servers]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
