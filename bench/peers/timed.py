"""The comparison itself: every server under the same load, in rounds.

In each round every server gets its turn, the engine itself among them, so that whatever else the machine does is no
one's advantage, and ratios are taken within a round. A round begins with another server each time, so that nobody
always follows the same one. All are up for the whole run and idle when it is not their turn.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from .bench import Bench
from .driving import Load, Server, drive
from .peer import Missing
from .serving import engine
from .table import print_run

_PATIENCE: Final = 12  # times the seconds a turn should take, until a server counts as hanging
_WAVES: Final = 60
_RAMP: Final = 3 / 8  # of a paced turn, in which its streams begin


@dataclass(frozen=True, slots=True)
class Run:
    """`streams` at once, of `tokens`, at `rate` tokens/s each (0: as fast as they are read); `wave` of them warm up."""

    name: str
    rate: float
    streams: int
    tokens: int
    wave: int

    def warm_up(self) -> Load:
        """One wave."""
        return Load(tokens=self.tokens, requests=self.wave, concurrency=self.streams)

    def load(self, seconds: float, warm_up_seconds: float) -> Load:
        """A turn of about `seconds`, of a server whose warm-up took so long.

        When paced it is one wave of streams that last as long, and that do not all begin in one moment, for that would
        be a measurement of queueing. Else it is as many waves as fit, by the pace of the warm-up.
        """
        wave = self.warm_up()
        if self.rate:
            return replace(wave, tokens=max(1, round(self.rate * seconds)), ramp=seconds * _RAMP)
        return replace(wave, requests=self.wave * min(_WAVES, max(1, round(seconds / warm_up_seconds))))


SATURATED: Final = Run("saturated", rate=0, streams=4, tokens=2_000, wave=4)
PACED: Final = Run("paced", rate=50, streams=64, tokens=25, wave=64)
FIRST: Final = Run("ttft", rate=0, streams=1, tokens=2, wave=20)


@dataclass(slots=True)
class _Turn:
    """A server that takes part, what it is to do, and what ends it when it hangs."""

    server: Server
    stack: ExitStack
    load: Load


def compare(bench: Bench, run: Run, seconds: float) -> None:
    """All rounds of `run` over all peers, recorded and printed as a table. Raises Missing if the engine fails."""
    with engine(run.rate, bench.folder) as direct, _turns(bench, run, direct, seconds) as turns:
        for number in range(bench.rounds):
            first = number % len(turns)
            for turn in [*turns[first:], *turns[:first]]:
                try:
                    _take(bench, run, turn, number, seconds)
                except Missing as exc:
                    bench.records.missing(turn.server.name, f"{run.name}, round {number}: {exc}")
                    turns.remove(turn)
                    turn.stack.close()
            if not turns:
                return
    print_run(bench.records.all, run.name)


@contextmanager
def _turns(bench: Bench, run: Run, direct: Server, seconds: float) -> Iterator[list[_Turn]]:
    """Those that came up and were warmed up, the engine first."""
    with ExitStack() as all_of_them:
        turns = [_Turn(direct, ExitStack(), _warmed(bench, run, direct, seconds))]
        for prepared in bench.peers:
            stack = all_of_them.enter_context(ExitStack())
            try:
                server = stack.enter_context(bench.serving(prepared, direct))
                turns.append(_Turn(server, stack, _warmed(bench, run, server, seconds)))
            except Missing as exc:
                stack.close()
                bench.records.missing(prepared.peer.name, f"{run.name}: {exc}")
        yield turns


def _warmed(bench: Bench, run: Run, server: Server, seconds: float) -> Load:
    first = drive(server, run.warm_up(), bench.folder, _PATIENCE * seconds)
    return run.load(seconds, first["seconds"])


def _take(bench: Bench, run: Run, turn: _Turn, number: int, seconds: float) -> None:
    server, load = turn.server, turn.load
    summary = drive(server, load, bench.folder, _PATIENCE * seconds)
    if summary["errors"]:
        print(f"{server.name}: {run.name}, round {number}: errors: {summary['errors']}", flush=True)
    bench.records.write(
        "direct" if server.version is None else "peer",
        run=run.name,
        server=server.name,
        label=server.label,
        round=number,
        streams=load.concurrency,
        rate=run.rate or None,
        load=summary,
        version=server.version,
    )


def saturated(bench: Bench) -> None:
    """As fast as it goes: 4 streams of 2 000 tokens. A turn takes a quarter of the seconds."""
    compare(bench, SATURATED, bench.seconds / 4)


def paced(bench: Bench) -> None:
    """As engines decode: 64 streams of 50 tokens/s, one token a write."""
    compare(bench, PACED, bench.seconds)


def ttft(bench: Bench) -> None:
    """One short stream after the other: what a server adds to the TTFT when nothing is in its way."""
    compare(bench, FIRST, bench.seconds / 4)
