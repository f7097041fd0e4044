"""The command: which peers, which runs, how long; prepares the peers, runs the measurements, writes the records."""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ..options import positive
from .asgi import asgi
from .bench import Bench, Prepared
from .envs import cache
from .fairness import fairness
from .litellm import LiteLLM
from .memory import memory
from .nginx import Nginx
from .ours import Ours, bare, fast
from .peer import Missing, Peer
from .processes import ended_by_signals
from .records import Records
from .relay import Relay
from .router import Router
from .streams import streams
from .timed import paced, saturated, ttft

RUNS: Final[dict[str, Callable[[Bench], None]]] = {
    "saturated": saturated,
    "paced": paced,
    "ttft": ttft,
    "streams": streams,
    "memory": memory,
    "fairness": fairness,
    "asgi": asgi,
}


def peers() -> list[Peer]:
    """All of them, the floor first."""
    return [Relay(), Nginx(), fast(), bare(), Router(), LiteLLM()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of this command."""
    add = parser.add_argument
    names = [peer.name for peer in peers()]
    add("--only", type=_among(names), default=names, metavar="A,B", help=f"of the servers {', '.join(names)}")
    add("--runs", type=_among(RUNS), default=list(RUNS), metavar="A,B", help=f"of the measurements {', '.join(RUNS)}")
    add("--rounds", type=positive, default=3, metavar="N", help="turns of every server (default 3)")
    add("--seconds", type=float, default=8.0, metavar="S", help="about how long a paced turn takes (default 8)")
    add("--memory-streams", type=positive, default=8_000, metavar="N", help="open at the most (default 8000)")
    add("--out", type=Path, metavar="FILE", help="of the records (default: a file in the cache, written anew)")
    add("--refresh", action="store_true", help="install the peers anew")


def main(options: argparse.Namespace) -> int:
    """Run it. The exit status is 1 when a server or a measurement is missing, and 130 when it was interrupted."""
    try:
        return _main(options)
    except KeyboardInterrupt:
        return 130


def _main(options: argparse.Namespace) -> int:
    allow_many_files()
    out = options.out or cache() / "results.jsonl"
    with ended_by_signals(), Records(out) as records, tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        chosen = [peer for peer in peers() if peer.name in options.only]
        there = prepare(chosen, records, refresh=options.refresh)
        records.environment(versions(there))
        bench = Bench(there, options.rounds, options.seconds, options.memory_streams, Path(folder), records)
        run(bench, options.runs)
        print(f"\nrecords: {out}")
        return int(any(record["kind"] == "missing" for record in records.all))


def run(bench: Bench, names: Iterable[str]) -> None:
    """The measurements, one after the other; one that fails as a whole does not keep the next from being made."""
    for name in names:
        print(f"--- {name}", file=sys.stderr, flush=True)
        try:
            RUNS[name](bench)
        except Missing as exc:
            bench.records.missing("direct", f"{name}: {exc}")


def prepare(chosen: Iterable[Peer], records: Records, *, refresh: bool = False) -> list[Prepared]:
    """Those that could be installed; the others are said to be missing."""
    there = []
    for peer in chosen:
        try:
            there.append(Prepared(peer, peer.prepare(cache(), refresh=refresh)))
        except Missing as exc:
            records.missing(peer.name, str(exc))
    return there


def versions(there: Sequence[Prepared]) -> dict[str, str]:
    """Of the peers, and of what our own environment is made of."""
    found = {prepared.peer.name: prepared.version for prepared in there}
    for prepared in there:
        if isinstance(prepared.peer, Ours):
            found = {**prepared.peer.versions, **found}
    return found


def allow_many_files() -> None:
    """Thousands of streams need as many descriptors; what is started inherits this."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A kind of option: names of `known`, by comma."""
    valid = list(known)

    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in chosen if name not in valid]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown) or 'empty choice'}: {', '.join(valid)}")
        return chosen

    return names
