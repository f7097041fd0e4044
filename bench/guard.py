"""`python -m bench guard`: the bars with half of them on top, best of five; for CI, where the machine is anybody's.

Three kinds of bars: the micro ratios, what metrics add to a token, and the CPU time a token costs the whole service,
with real sockets, against a byte relay in the same minute. What is past its guard in every repetition is a regression:
exit status 1.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from . import metered, micro
from .peers.bench import Bench, Prepared
from .peers.figures import cpu, rounds_of
from .peers.ours import fast
from .peers.records import Records
from .peers.relay import Relay
from .peers.timed import paced
from .report.bars import BARS
from .report.measures import CpuRatio

MARGIN: Final = 1.5
_TRIES: Final = 5
_ROUNDS: Final = 9
_SECONDS: Final = 2.0  # of a turn on sockets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options."""


def main(options: argparse.Namespace | None = None) -> int:
    """Measure, print, and say with the exit status whether all is well."""
    held = [_holds(key, ratios, bar) for key, (ratios, bar) in {**_micro(), **_metered(), **_proxied()}.items()]
    print(f"{sum(held)} of {len(held)} guards hold")
    return 0 if all(held) else 1


def _micro() -> dict[str, tuple[list[float], float]]:
    """By name, the ratios of all repetitions and the bar."""
    tries = [micro.measure(_ROUNDS, barred=True) for _ in range(_TRIES)]
    return {key: ([one[key].cost.ratio for one in tries], result.case.bar or 0.0) for key, result in tries[0].items()}


def _metered() -> dict[str, tuple[list[float], float]]:
    """What metrics add to a token, as a part of it."""
    return {"metrics: added to a token": ([metered.measure().ratio - 1 for _ in range(_TRIES)], metered.BAR)}


def _proxied() -> dict[str, tuple[list[float], float]]:
    ours, floor = fast(python=sys.executable), Relay()
    bar = next(bar.limit for bar in BARS if bar.measure == CpuRatio("paced", ours.name, floor.name))
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as folder, Records(Path(folder) / "records") as records:
        servers = [Prepared(peer, peer.prepare(Path(folder), refresh=False)) for peer in (floor, ours)]
        paced(Bench(servers, _TRIES, _SECONDS, 0, Path(folder), records))
        mine, least = (rounds_of(records.all, "paced", peer.name, cpu) for peer in (ours, floor))
    return {
        "proxy: paced, CPU per token": ([mine[number] / least[number] for number in mine.keys() & least.keys()], bar)
    }


def _holds(name: str, ratios: list[float], bar: float) -> bool:
    """Whether the best of the ratios, of which there must be some, is within the guard."""
    best, limit = min(ratios, default=float("inf")), bar * MARGIN
    print(f"{'ok    ' if best <= limit else 'FAILED'} {name:<60} {best:6.2f} x (bar {bar:g}, guard {limit:.2f})")
    return best <= limit
