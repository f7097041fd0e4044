"""What cannot be measured at the same time: the highest throughput, and the TTFT on an idle machine. In rounds.

In each round every server has one turn, the engine itself included, so that a disturbance of the machine affects all of
them; ratios are taken within a round. Each round begins with another server, so that no server is always the first. All
servers run during the whole comparison and are idle when it is not their turn.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from ..figures import TTFT_RUN, main_setting
from ..records import Records, Run
from ..report.tables import as_text, cost_table, latency_table
from .harness import PATIENCE, Bench, Plan, Server, drive, engine
from .peer import Unavailable

_WAVES: Final = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """A load: `streams` at once, of `tokens`, as fast as they are read; `wave` streams warm up."""

    name: str
    streams: int
    tokens: int
    wave: int

    def warm_up(self) -> Plan:
        """One wave."""
        return Plan(tokens=self.tokens, requests=self.wave, concurrency=self.streams)

    def plan(self, seconds: float, warm_up_seconds: float) -> Plan:
        """As many waves as fit into `seconds` for a server whose warm-up took `warm_up_seconds`."""
        return replace(self.warm_up(), requests=self.wave * min(_WAVES, max(1, round(seconds / warm_up_seconds))))


SATURATED: Final = Kind("saturated", streams=4, tokens=2_000, wave=4)
TTFT: Final = Kind("ttft", streams=1, tokens=2, wave=20)


@dataclass(slots=True)
class _Turn:
    """A server, its load, and the stack that ends it."""

    server: Server
    stack: ExitStack
    plan: Plan


def compare(bench: Bench, kind: Kind, seconds: float) -> None:
    """All rounds over all peers, recorded and printed as tables. Raises Unavailable when the engine fails."""
    with engine(0, bench.folder) as direct, _turns(bench, kind, direct, seconds) as turns:
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
                server = stack.enter_context(bench.serving(prepared, direct.address))
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
    bench.records.add(Run(kind.name, server.name, server.label, number, kind.streams, None, load, server.version))


def saturated(bench: Bench) -> None:
    """As fast as possible: 4 streams of 2 000 tokens."""
    compare(bench, SATURATED, bench.seconds / 4)


def ttft(bench: Bench) -> None:
    """One short stream after the other: what a server adds to the TTFT when it is otherwise idle."""
    compare(bench, TTFT, bench.seconds / 4)


def tables(records: Records, run: str) -> str:
    """Costs and latencies of one kind of run for the terminal: medians over the rounds. Empty without a record."""
    setting = main_setting(records, run)
    if setting is None:
        return ""
    found = [cost_table(records, run)] if run != TTFT_RUN else []
    found += [latency_table(records, setting, name, name) for name in ("ttft", "transit", "icl")]
    return "\n" + "\n\n".join(map(as_text, found))
