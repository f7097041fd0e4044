"""Result files of `bench load` → the runs of each server, in the order of their load."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from ..load.tally import Slo
from ..options import unusable
from ..records import Goodput, Load, load_from

SHADES: Final = (0.35, 1.0)  # opacity of the least and of the greatest load


@dataclass(frozen=True, slots=True)
class Server:
    """The runs of one server: the closed loop by its clients, then the open loop by its rate."""

    name: str
    runs: tuple[Load, ...]

    def closed(self) -> list[Load]:
        return [run for run in self.runs if run.concurrency]

    def open(self) -> list[Load]:
        return [run for run in self.runs if run.rate]


def read(paths: Iterable[Path], slo: Slo) -> list[Server]:
    """The servers by their labels. Files with one label are one server, unless they have runs of the same load.

    With `slo`, goodput is computed from the lines of the requests. Raises ValueError for a file that cannot be read, is
    not a result, or has no line for each request although `slo` needs them.
    """
    servers: dict[str, list[Load]] = {}
    for path in paths:
        runs = _runs(path, slo)
        if not runs:
            raise ValueError(f"{path.name} has no result of bench load")
        for label in dict.fromkeys(run.label or run.url for run in runs):
            found = [run for run in runs if (run.label or run.url) == label]
            loads = {(run.concurrency, run.rate) for run in servers.get(label, ())}
            name = f"{label} ({path.name})" if any((run.concurrency, run.rate) in loads for run in found) else label
            servers.setdefault(name, []).extend(found)
    return [Server(name, tuple(sorted(runs, key=_order))) for name, runs in servers.items()]


def _order(run: Load) -> tuple[bool, float]:
    return (run.concurrency is None, run.concurrency or run.rate or 0.0)


def _runs(path: Path, slo: Slo) -> list[Load]:
    runs: list[Load] = []
    requests: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise ValueError(f"cannot read {unusable(path, exc)}") from exc
    for number, line in enumerate(lines, 1):
        try:
            kind = _kind(line) if line.strip() else None
            if kind == "request":
                requests.append(orjson.loads(line))
            elif kind == "load":
                run = load_from(line)
                runs.append(replace(run, goodput=_goodput(run, requests, slo)) if slo else run)
                requests = []
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"{path.name}, line {number}: {exc}") from exc
    return runs


def _kind(line: bytes) -> object:
    try:
        value = orjson.loads(line)
    except ValueError as exc:
        raise ValueError("is not JSON; the file must be what bench load --json wrote") from exc
    return value.get("kind") if isinstance(value, dict) else None


def _goodput(run: Load, requests: Sequence[dict[str, Any]], slo: Slo) -> Goodput:
    if len(requests) < run.requests:
        raise ValueError("no line for each request, which the limits need: add --each to bench load")
    good = sum(
        request["error"] is None and slo.holds(*(round((request[name] or 0) * 1e9) for name in ("ttft", "itl", "e2e")))
        for request in requests
    )
    return Goodput(
        {"ttft": slo.ttft, "itl": slo.itl, "e2e": slo.e2e},
        good / run.seconds if run.seconds else None,
        good / run.requests if run.requests else None,
    )
