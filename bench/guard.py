"""`python -m bench guard`: every ratio against its bar plus half, best of five; for CI on shared machines.

Six kinds of ratios: the micro ratios with a bar; what metrics add to a token; what a whole request costs, against a
raw ASGI application; what features add to a request that uses none of them; the longest garbage collection while
streams are open, against Python's own collector; and the CPU time per token of the whole service with real sockets,
against a byte relay in the same minute, in Python alone and, where its extension module is built, with the native path.
A ratio that exceeds its limit in all repetitions is a regression: exit status 1.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from anthro_asgi._native import missing

from . import metered, micro, pauses, per_request
from .figures import main_setting, ratios, run_rounds, server_cpu
from .peers.harness import Bench, Prepared
from .peers.ours import fast, native
from .peers.relay import Relay
from .peers.timed import paced
from .records import ResultFile
from .report.bars import NATIVE_LIMIT, PACED_LIMIT

MARGIN: Final = 1.5
_TRIES: Final = 5
_ROUNDS: Final = 9
_SECONDS: Final = 2.0  # of a turn with sockets
_STREAMS: Final = 1_000  # open at one time, for the pauses
_PAUSE_TRIES: Final = 2  # half a minute each

Ratios = dict[str, tuple[list[float], float]]
"""By name: the ratios of all repetitions, and the bar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options."""


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when a guard does not hold."""
    measured = {**_micro(), **_metered(), **_requests(), **_unused(), **_paused(), **_proxied()}
    held = [_holds(name, found, bar) for name, (found, bar) in measured.items()]
    print(f"{sum(held)} of {len(held)} guards hold")
    return 0 if all(held) else 1


def _micro() -> Ratios:
    tries = [micro.measure(_ROUNDS, barred=True) for _ in range(_TRIES)]
    return {key: ([one[key].ratio for one in tries], result.bar or 0.0) for key, result in tries[0].items()}


def _metered() -> Ratios:
    return {"metrics: added to a token": ([metered.measure().ratio - 1 for _ in range(_TRIES)], metered.BAR)}


def _requests() -> Ratios:
    return {
        f"request: {name}": ([per_request.measure(name, _ROUNDS).ratio for _ in range(_TRIES)], bar)
        for name, bar in per_request.RATIOS.items()
    }


def _unused() -> Ratios:
    return {
        f"unused features: added to a request, {name}": (
            [per_request.measure_unused(name, _ROUNDS).ratio - 1 for _ in range(_TRIES)],
            per_request.UNUSED,
        )
        for name in per_request.RATIOS
    }


def _paused() -> Ratios:
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as folder:
        found = [
            pauses.longest_pause(_STREAMS, pauses.BOUNDED, _SECONDS, Path(folder))
            / pauses.longest_pause(_STREAMS, pauses.PYTHON, _SECONDS, Path(folder))
            for _ in range(_PAUSE_TRIES)
        ]
    return {f"pauses: longest collection, {_STREAMS} streams": (found, pauses.AGAINST_PYTHON)}


def _proxied() -> Ratios:
    peers = {"proxy: paced, CPU per token": (fast(python=sys.executable), PACED_LIMIT)}
    if missing() is None:
        peers["proxy: paced, CPU per token, native"] = (native(python=sys.executable), NATIVE_LIMIT)
    floor = Relay()
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as folder, ResultFile(Path(folder) / "records") as records:
        servers = [
            Prepared(peer, peer.prepare(Path(folder), refresh=False))
            for peer in (floor, *(peer for peer, _ in peers.values()))
        ]
        paced(Bench(servers, _TRIES, _SECONDS, 0, Path(folder), records))
        setting = main_setting(records, "paced")
        assert setting is not None
        least = run_rounds(records, setting, floor.name, server_cpu)
        return {
            name: (ratios(run_rounds(records, setting, peer.name, server_cpu), least), bar)
            for name, (peer, bar) in peers.items()
        }


def _holds(name: str, found: list[float], bar: float) -> bool:
    """Whether the best ratio is within the limit. No ratio at all does not hold."""
    best, limit = min(found, default=float("inf")), bar * MARGIN
    print(f"{'ok    ' if best <= limit else 'FAILED'} {name:<60} {best:6.2f} x (bar {bar:g}, guard {limit:.2f})")
    return best <= limit
