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
from .conformity import conformance
from .dynamo import Dynamo
from .envoy import Envoy
from .envs import cache
from .fairness import fairness
from .haproxy import HAProxy
from .harness import Bench, Prepared
from .litellm import LiteLLM
from .nginx import Nginx
from .ours import fast, h11, loop, native
from .peer import Peer, Unavailable
from .relay import Relay
from .rolter import Rolter
from .router import Router
from .simultaneous import STREAMS, WINDOWS, tcp, unix
from .timed import saturated, ttft

SIMULTANEOUS: Final[dict[str, Callable[[Bench], None]]] = {
    "tcp": tcp,
    "unix": unix,
    "conformance": conformance,
}
RUNS: Final = SIMULTANEOUS | {
    "saturated": saturated,
    "ttft": ttft,
    "fairness": fairness,
    "asgi": asgi,
}


def peers() -> list[Peer]:
    """All peers: the base first, then those that a batch of cheap servers should hold together."""
    return [
        Relay(),
        Nginx(),
        fast(),
        native(),
        loop(),
        HAProxy(),
        Envoy(),
        Rolter(),
        h11(),
        Router(),
        Dynamo(),
        LiteLLM(),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    names = [peer.name for peer in peers()]
    add("--only", type=_among(names), default=names, metavar="A,B", help=f"servers, of {', '.join(names)}")
    add("--runs", type=_among(RUNS), default=list(RUNS), metavar="A,B", help=f"measurements, of {', '.join(RUNS)}")
    add(
        "--simultaneous",
        dest="runs",
        action="store_const",
        const=list(SIMULTANEOUS),
        help="only the measurements in which all servers work at the same time, and the conformance of each",
    )
    add("--streams", type=positive, nargs="+", default=list(STREAMS), metavar="N", help="streams of each server")
    add("--windows", type=positive, default=WINDOWS, metavar="N", help=f"windows of a second (default {WINDOWS})")
    add("--rounds", type=positive, default=3, metavar="N", help="rounds in which servers take turns (default 3)")
    add("--seconds", type=float, default=8.0, metavar="S", help="a turn lasts a quarter of this (default 8)")
    add("--out", type=Path, metavar="FILE", help="result file, overwritten (default: results.jsonl in the cache)")
    add("--install", action="store_true", help="install the peers that are absent, below the bench's cache")


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
        prepared = prepare(chosen, records, install=options.install)
        records.add(environment(versions(prepared)))
        turns = (options.rounds, options.seconds)
        bench = Bench(prepared, Path(folder), records, *turns, options.streams, options.windows)
        for name in options.runs:
            print(f"--- {name}", file=sys.stderr, flush=True)
            try:
                RUNS[name](bench)
            except Unavailable as exc:
                records.missing(DIRECT, f"{name}: {exc}")
        print(f"\nrecords: {out}")
        return int(bool(records.of(Missing)))


def prepare(chosen: Iterable[Peer], records: ResultFile, *, install: bool = False) -> list[Prepared]:
    """The peers that could be installed; the others are recorded as missing."""
    prepared = []
    for peer in chosen:
        try:
            prepared.append(Prepared(peer, peer.prepare(cache(), install=install)))
        except Unavailable as exc:
            records.missing(peer.name, str(exc))
    return prepared


def versions(prepared: Sequence[Prepared]) -> dict[str, str]:
    """The versions of the peers."""
    return {one.peer.name: one.version for one in prepared}


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
