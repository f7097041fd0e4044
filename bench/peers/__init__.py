"""`python -m bench peers`: this service, a byte relay and other proxies in front of one scripted engine, in one run.

Each peer is one file that says how it is installed, configured and started; everything else is the same for all. A peer
that cannot be installed, does not start, hangs or breaks the grammar is reported on the terminal and in the records.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from anthro_asgi.bench.options import positive
from anthro_asgi.bench.processes import many_files

from ..records import DIRECT, Missing, ResultFile, environment
from .asgi import asgi
from .envs import cache
from .fairness import fairness
from .harness import Bench, Prepared
from .litellm import LiteLLM
from .nginx import Nginx
from .open_streams import memory, streams
from .ours import Ours, fast, h11, native
from .peer import Peer, Unavailable
from .relay import Relay
from .router import Router
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
    """All peers, the byte relay first."""
    return [Relay(), Nginx(), fast(), native(), h11(), Router(), LiteLLM()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    names = [peer.name for peer in peers()]
    add("--only", type=_among(names), default=names, metavar="A,B", help=f"servers, of {', '.join(names)}")
    add("--runs", type=_among(RUNS), default=list(RUNS), metavar="A,B", help=f"measurements, of {', '.join(RUNS)}")
    add("--rounds", type=positive, default=3, metavar="N", help="rounds; each server has one turn in each (default 3)")
    add("--seconds", type=float, default=8.0, metavar="S", help="approximate length of a paced turn (default 8)")
    add("--memory-streams", type=positive, default=8_000, metavar="N", help="most open streams (default 8000)")
    add("--out", type=Path, metavar="FILE", help="result file, overwritten (default: results.jsonl in the cache)")
    add("--refresh", action="store_true", help="install the peers again")


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when a server or a measurement is missing, and 130 after Ctrl-C."""
    try:
        return _main(options)
    except KeyboardInterrupt:
        return 130


def _main(options: argparse.Namespace) -> int:
    many_files()
    out = options.out or cache() / "results.jsonl"
    with ResultFile(out) as records, tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        chosen = [peer for peer in peers() if peer.name in options.only]
        prepared = prepare(chosen, records, refresh=options.refresh)
        records.add(environment(versions(prepared)))
        bench = Bench(prepared, options.rounds, options.seconds, options.memory_streams, Path(folder), records)
        for name in options.runs:
            print(f"--- {name}", file=sys.stderr, flush=True)
            try:
                RUNS[name](bench)
            except Unavailable as exc:
                records.missing(DIRECT, f"{name}: {exc}")
        print(f"\nrecords: {out}")
        return int(bool(records.of(Missing)))


def prepare(chosen: Iterable[Peer], records: ResultFile, *, refresh: bool = False) -> list[Prepared]:
    """The peers that could be installed; the others are recorded as missing."""
    prepared = []
    for peer in chosen:
        try:
            prepared.append(Prepared(peer, peer.prepare(cache(), refresh=refresh)))
        except Unavailable as exc:
            records.missing(peer.name, str(exc))
    return prepared


def versions(prepared: Sequence[Prepared]) -> dict[str, str]:
    """The versions of the peers, and of the packages in our own environment."""
    packages = [one.peer.versions for one in prepared if isinstance(one.peer, Ours)]
    found = {name: version for some in packages for name, version in some.items()}
    return found | {one.peer.name: one.version for one in prepared}


def _among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """An option type: names of `known`, separated by commas."""
    valid = list(known)

    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in chosen if name not in valid]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown) or 'nothing given'}; of {', '.join(valid)}")
        return chosen

    return names
