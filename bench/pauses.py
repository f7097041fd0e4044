"""`python -m bench pauses`: for how long streams stand still while thousands of them are open.

Streams are opened at a fixed rate, stay open together for some seconds and end. All of them together always receive
the same number of tokens per second, so their number is the only difference. Two views:

- the clients': the transit time of every token, and the time to first token, beside the same streams without the
  service. The load client and the engine are processes of their own, and start no full collection themselves.
- the service's: the longest pause of its garbage collector, from `gc_pause_seconds` of its metrics. It is the upper
  bound of the histogram's highest bucket that is not empty.

With `--gc python` beside it, one sees what Python's own collector does under the same load.
"""

import argparse
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from anthro_asgi.bench.options import positive
from anthro_asgi.bench.processes import Meter, many_files

from .peers.harness import (
    Bench,
    Plan,
    Prepared,
    Server,
    await_open,
    driving,
    engine,
    free_address,
    opened,
    pause,
    started,
)
from .peers.ours import Ours, fast
from .peers.peer import Unavailable
from .records import DIRECT, Pauses, ResultFile, environment

LEVELS: Final = (1, 64, 1_000, 8_000)
TRANSIT_P99: Final = 0.005  # seconds
LONGEST: Final = 0.005
TTFT_P99: Final = 0.02
AGAINST_PYTHON: Final = 0.2
"""The longest collection with 1 000 streams open, over that of Python's own collector. The guard keeps this ratio."""
_TOKENS_PER_SECOND: Final = 2_000.0  # of all streams together
_MOST_PER_STREAM: Final = 50.0
_OPENED_PER_SECOND: Final = 400
_SLACK: Final = 4.0  # seconds for which streams last longer, in addition to six tenths of the time of the opening
_BUCKET: Final = re.compile(
    r'^anthro_asgi_gc_pause_seconds_bucket\{generation="(\d)",le="([^"]+)"\} (\S+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the service is started: the value of `--gc`."""

    name: str
    gc: str


BOUNDED: Final = Setting("ours-fast", "bounded")
PYTHON: Final = Setting("ours-fast, --gc python", "python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    add("--streams", type=positive, nargs="+", default=list(LEVELS), metavar="N", help="open streams")
    add("--seconds", type=float, default=6.0, metavar="S", help="time for which all are open (default 6)")
    add("--python", action="store_true", help="measure the service with `--gc python` too")
    add("--out", type=Path, metavar="FILE", help="result file, overwritten")


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when a measurement is missing."""
    many_files()
    settings = [BOUNDED, PYTHON] if options.python else [BOUNDED]
    missing = 0
    with (
        tempfile.TemporaryDirectory(prefix="bench-pauses-") as folder,
        ResultFile(options.out or Path(folder) / "records") as records,
    ):
        records.add(environment({}))
        bench = one_peer(Path(folder), records, options.seconds)
        head = ("transit p99", "max", "TTFT p99", "collector", "CPU/token")
        print(f"{'streams':>8}  {'server':<24}" + "".join(f"{name:>12}" for name in head))
        for streams in options.streams:
            for setting in (None, *settings):
                try:
                    print(_row(measure(bench, streams, setting)), flush=True)
                except Unavailable as exc:
                    missing += 1
                    records.missing(DIRECT if setting is None else setting.name, f"pauses, {streams}: {exc}")
    bars = (TRANSIT_P99, LONGEST, TTFT_P99)
    print("bars: transit p99 {} ms, longest pause {} ms, TTFT p99 {} ms".format(*(f"{bar * 1e3:g}" for bar in bars)))
    return int(missing > 0)


def one_peer(folder: Path, records: ResultFile, seconds: float) -> Bench:
    """A bench with this service alone, in the environment of this process; all streams are open for `seconds`."""
    ours = fast()
    return Bench([Prepared(ours, ours.prepare(folder, install=False))], folder, records, seconds=seconds)


def longest_pause(streams: int, setting: Setting, seconds: float, folder: Path) -> float:
    """Seconds of the longest collection with this many streams open. Raises Unavailable."""
    with ResultFile(folder / "records") as records:
        found = measure(one_peer(folder, records, seconds), streams, setting).collection_s
    if found is None:
        raise Unavailable("the service does not tell its pauses")
    return found


def measure(bench: Bench, streams: int, setting: Setting | None) -> Pauses:
    """One run, which is recorded too; without a setting, of the engine itself. Raises Unavailable."""
    rate = min(_MOST_PER_STREAM, _TOKENS_PER_SECOND / streams)
    ramp = streams / _OPENED_PER_SECOND
    lasting = 1.6 * ramp + bench.seconds + _SLACK
    plan = Plan(requests=streams, tokens=max(2, round(rate * lasting)), concurrency=streams, ramp=ramp)
    with engine(rate, bench.folder) as upstream:
        if setting is None:
            found = _run(bench, upstream, upstream, plan, lasting)
        else:
            ours = bench.peers[0].peer
            assert isinstance(ours, Ours)
            address = free_address()
            launch = ours.launch(upstream.address, address, bench.folder)
            launch.command.extend(["--gc", setting.gc])
            with started(launch, address, ours.ready, bench.folder / "service.log") as pid:
                server = Server(setting.name, setting.name, "messages", upstream.model, address, pid)
                found = _run(bench, upstream, server, plan, lasting)
    bench.records.add(found)
    return found


def _run(bench: Bench, upstream: Server, server: Server, plan: Plan, lasting: float) -> Pauses:
    streams = plan.requests or 0
    with driving(server, plan, bench.folder) as client:
        await_open(lambda: opened(upstream), streams, [client], 2 * lasting)
        meter = Meter([server.pid])
        meter.start()
        pause(bench.seconds)
        cost = meter.stop().cpu_s / bench.seconds / min(_TOKENS_PER_SECOND, _MOST_PER_STREAM * streams) * 1e6
        load = client.summary(2 * lasting)
    if load.ok != streams or load.errors:
        raise Unavailable(f"{load.ok} streams of {streams} succeeded: {load.errors}")
    if load.transit is None:
        raise Unavailable("the streamed tokens do not hold the time at which they were sent")
    collection = None if server is upstream else _longest_collection(server)
    return Pauses(server.name, streams, load.transit, load.ttft, collection, None if server is upstream else cost)


def _longest_collection(server: Server) -> float | None:
    """Seconds; None if the metrics do not tell."""
    with urlopen(f"{server.url}/metrics", timeout=10) as answer:  # noqa: S310 (our own service)
        return longest_bucket(answer.read().decode())


def longest_bucket(exposition: str) -> float | None:
    """The upper bound of the highest bucket of `gc_pause_seconds` that is not empty, over all generations.

    0 without any collection; None if the service does not tell its pauses.
    """
    buckets = _BUCKET.findall(exposition)
    longest = 0.0 if buckets else None
    below: dict[str, float] = {}
    for generation, edge, count in buckets:
        if float(count) > below.get(generation, 0.0):
            longest = max(longest or 0.0, float(edge))
        below[generation] = float(count)
    return longest


def _row(found: Pauses) -> str:
    collection = "-" if found.collection_s is None else f"{_ms(found.collection_s)}"
    cost = "-" if found.cpu_us_per_token is None else f"{found.cpu_us_per_token:.1f} µs"
    return (
        f"{found.streams:>8}  {found.server:<24}{_ms(found.transit['p99']):>12}{_ms(found.transit['max']):>12}"
        f"{_ms(found.ttft['p99']):>12}{collection:>12}{cost:>12}"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"
