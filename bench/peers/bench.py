"""What every measurement is handed: the peers that could be prepared, how long and how often, and where results go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .driving import Server
from .peer import Peer
from .probe import TOKENS, probe
from .records import Records
from .serving import serving


@dataclass(frozen=True, slots=True)
class Prepared:
    """A peer that is installed, and its version."""

    peer: Peer
    version: str


@dataclass(frozen=True, slots=True)
class Bench:
    """One invocation. `seconds` is how long one turn of one server should take; `folder` is for files of the moment."""

    peers: Sequence[Prepared]
    rounds: int
    seconds: float
    memory_streams: int
    folder: Path
    records: Records

    def named(self, *names: str) -> list[Prepared]:
        """Those of `names` that are there, in that order."""
        there = {prepared.peer.name: prepared for prepared in self.peers}
        return [there[name] for name in names if name in there]

    @contextmanager
    def serving(self, prepared: Prepared, upstream: Server, tokens: int = TOKENS) -> Iterator[Server]:
        """A peer in front of `upstream`, a stream of `tokens` checked and its faults said. Raises Missing."""
        with serving(prepared.peer, prepared.version, upstream, self.folder) as server:
            self.check(server, tokens)
            yield server

    def check(self, server: Server, tokens: int = TOKENS) -> None:
        """Say and record what is wrong with one stream, before anything is timed. Raises Missing if there is none."""
        faults = probe(server, tokens)
        if any(known["kind"] == "grammar" and known["server"] == server.name for known in self.records.all):
            return  # said in an earlier run
        self.records.write("grammar", server=server.name, faults=faults)
        for fault in faults:
            print(f"{server.name}: BREAKS THE CONTRACT: {fault}", flush=True)
