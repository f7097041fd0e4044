"""The comparison: every server under the same load, in rounds.

In each round every server has one turn, the engine itself included, so that a disturbance of the machine affects all of
them; ratios are taken within a round. Each round begins with another server, so that no server always follows the same
one. All servers run during the whole comparison and are idle when it is not their turn.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from .. import figures
from ..figures import Setting, added, against, latency, level, peak_memory, server_cpu, servers_of, throughput
from ..records import Records, Run
from .harness import PATIENCE, Bench, Plan, Server, drive, engine
from .peer import Unavailable

FLOOR: Final = "relay"
_WAVES: Final = 60
_RAMP: Final = 3 / 8  # of a paced turn, during which its streams start


@dataclass(frozen=True, slots=True)
class Kind:
    """A load: `streams` at once, of `tokens`, at `rate` tokens/s each (0: as fast as read); `wave` streams warm up."""

    name: str
    rate: float
    streams: int
    tokens: int
    wave: int

    def warm_up(self) -> Plan:
        """One wave."""
        return Plan(tokens=self.tokens, requests=self.wave, concurrency=self.streams)

    def plan(self, seconds: float, warm_up_seconds: float) -> Plan:
        """A turn of about `seconds` for a server whose warm-up took `warm_up_seconds`.

        A paced turn is one wave of long streams. They do not start at the same moment, which would measure queueing.
        Other turns are as many waves as fit.
        """
        wave = self.warm_up()
        if self.rate:
            return replace(wave, tokens=max(1, round(self.rate * seconds)), ramp=seconds * _RAMP)
        return replace(wave, requests=self.wave * min(_WAVES, max(1, round(seconds / warm_up_seconds))))


SATURATED: Final = Kind("saturated", rate=0, streams=4, tokens=2_000, wave=4)
PACED: Final = Kind("paced", rate=50, streams=64, tokens=25, wave=64)
TTFT: Final = Kind("ttft", rate=0, streams=1, tokens=2, wave=20)


@dataclass(slots=True)
class _Turn:
    """A server, its load, and the stack that ends it."""

    server: Server
    stack: ExitStack
    plan: Plan


def compare(bench: Bench, kind: Kind, seconds: float) -> None:
    """All rounds over all peers, recorded and printed as tables. Raises Unavailable when the engine fails."""
    with engine(kind.rate, bench.folder) as direct, _turns(bench, kind, direct, seconds) as turns:
        for number in range(bench.rounds):
            first = number % len(turns)
            for turn in [*turns[first:], *turns[:first]]:
                try:
                    _take(bench, kind, turn, number, seconds)
                except Unavailable as exc:
                    bench.records.missing(turn.server.name, f"{kind.name}, round {number}: {exc}")
                    turns.remove(turn)
                    turn.stack.close()
            if not turns:
                return
    print(tables(bench.records, kind.name), flush=True)


@contextmanager
def _turns(bench: Bench, kind: Kind, direct: Server, seconds: float) -> Iterator[list[_Turn]]:
    """The servers that started and were warmed up, the engine first."""

    def warmed(server: Server) -> Plan:
        return kind.plan(seconds, drive(server, kind.warm_up(), bench.folder, PATIENCE * seconds).seconds)

    with ExitStack() as every:
        turns = [_Turn(direct, ExitStack(), warmed(direct))]
        for prepared in bench.peers:
            stack = every.enter_context(ExitStack())
            try:
                server = stack.enter_context(bench.serving(prepared, direct))
                turns.append(_Turn(server, stack, warmed(server)))
            except Unavailable as exc:
                stack.close()
                bench.records.missing(prepared.peer.name, f"{kind.name}: {exc}")
        yield turns


def _take(bench: Bench, kind: Kind, turn: _Turn, number: int, seconds: float) -> None:
    server = turn.server
    load = drive(server, turn.plan, bench.folder, PATIENCE * seconds)
    if load.errors:
        print(f"{server.name}: {kind.name}, round {number}: errors: {load.errors}", flush=True)
    rate = kind.rate or None
    bench.records.add(Run(kind.name, server.name, server.label, number, kind.streams, rate, load, server.version))


def saturated(bench: Bench) -> None:
    """As fast as possible: 4 streams of 2 000 tokens."""
    compare(bench, SATURATED, bench.seconds / 4)


def paced(bench: Bench) -> None:
    """As engines decode: 64 streams of 50 tokens/s, one token per write."""
    compare(bench, PACED, bench.seconds)


def ttft(bench: Bench) -> None:
    """One short stream after the other: what a server adds to the TTFT when it is otherwise idle."""
    compare(bench, TTFT, bench.seconds / 4)


# on the terminal

Cell = Callable[[str], figures.Figure | None]


def tables(records: Records, run: str) -> str:
    """Costs, then latencies in ms: medians over the rounds. `added` is the difference to the engine itself."""
    setting = figures.main_setting(records, run)
    if setting is None:
        return ""
    labels = {one.server: one.label for one in records.of(Run)}
    servers = [(server, labels[server]) for server in servers_of(records, setting)]
    costs: list[tuple[str, Cell, float]] = [
        ("CPU µs/token", lambda server: level(records, setting, server, server_cpu), 1),
        (f"× {FLOOR}", lambda server: against(records, setting, server, FLOOR, server_cpu), 1),
        ("tokens/s", lambda server: level(records, setting, server, throughput), 1),
        ("MiB", lambda server: level(records, setting, server, peak_memory), 1),
    ]
    latencies: list[tuple[str, Cell, float]] = []
    for what in ("ttft", "transit", "itl"):
        for percentile in ("p50", "p99"):
            latencies.append((f"{what} {percentile}", _level(records, setting, what, percentile), 1e3))
            latencies.append(("added", _added(records, setting, what, percentile), 1e3))
    lines = [f"\n{run}: medians of the rounds", *_table(servers, costs), "", *_table(servers, latencies)]
    return "\n".join(lines)


def _level(records: Records, setting: Setting, what: str, percentile: str) -> Cell:
    return lambda server: level(records, setting, server, latency(what, percentile))


def _added(records: Records, setting: Setting, what: str, percentile: str) -> Cell:
    return lambda server: added(records, setting, server, latency(what, percentile))


def _table(servers: Sequence[tuple[str, str]], cells: Sequence[tuple[str, Cell, float]]) -> list[str]:
    rows = [["", *(title for title, _, _ in cells)]]
    rows += [[label, *(_number(cell(server), factor) for _, cell, factor in cells)] for server, label in servers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _number(found: figures.Figure | None, factor: float) -> str:
    if found is None:
        return "-"
    value = found.median * factor
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
