"""`python -m bench guard`: every ratio against its bar plus half, best of five; for CI on shared machines.

Not all paced ratios meet their bars yet. So they are compared with what is reached today, plus half.

Six kinds of ratios: the micro ratios with a bar; what metrics add to a token; what a whole request costs, against a
raw ASGI application; what features add to a request that uses none of them; the longest garbage collection while
streams are open, against Python's own collector; and the CPU time per token of a text, and of the arguments of a tool
call, of the whole service with real sockets, against that of a byte relay in the same seconds, in Python alone and,
where its extension module is built, with the native path. A measurement is repeated only while one of its ratios
exceeds its limit. A ratio that exceeds its limit in all repetitions is a regression: exit status 1.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from anthro_asgi._native import missing

from . import metered, micro, pauses, per_request
from .figures import against, main_setting, server_cpu
from .peers.harness import Bench, Prepared
from .peers.ours import fast, native
from .peers.relay import Relay
from .peers.simultaneous import ARGUMENTS, STAGGERED, arguments_of, together, tokens_of
from .records import ResultFile
from .report.bars import FLOOR, OURS, OURS_NATIVE

MARGIN: Final = 1.5
_TRIES: Final = 5
_ROUNDS: Final = 9
_SECONDS: Final = 2.0  # for which all streams are open, for the pauses
_STREAMS: Final = 1_000  # open at one time, for the pauses
_PACED_STREAMS: Final = 24
_WINDOWS: Final = 8  # of a second
_PACED: Final = {STAGGERED: {OURS: 1.45, OURS_NATIVE: 0.95}, ARGUMENTS: {OURS: 1.8, OURS_NATIVE: 0.95}}
"""By kind of run: CPU per token as a multiple of the relay's, as it is reached today; the bars are 1.6 and 0.9."""


class Guarded(NamedTuple):
    """A measured ratio. `reference` is its bar, or, with `is_bar` false, the ratio that is reached today."""

    ratio: float
    reference: float
    is_bar: bool = True

    @property
    def limit(self) -> float:
        """The highest ratio that is allowed."""
        return self.reference * MARGIN

    @property
    def holds(self) -> bool:
        return self.ratio <= self.limit


Ratios = dict[str, Guarded]
"""By name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options."""


def main(options: argparse.Namespace) -> int:
    """The exit status is 1 when a guard does not hold."""
    measures = (_micro, _metered, _requests, _unused, _paused, _proxied)
    held = [holds for measure in measures for holds in _guard(measure)]
    print(f"{sum(held)} of {len(held)} guards hold")
    return 0 if all(held) else 1


def _guard(measure: Callable[[], Ratios]) -> list[bool]:
    """Print the best ratio of each name, and whether it is within its limit; measure up to five times until all are."""
    best = measure()
    for _ in range(_TRIES - 1):
        if all(one.holds for one in best.values()):
            break
        again = measure()
        best = {name: min(best[name], again.get(name, best[name])) for name in best}
    for name, one in best.items():
        mark = "ok    " if one.holds else "FAILED"
        kind = "bar" if one.is_bar else "reached today"
        print(f"{mark} {name:<60} {one.ratio:6.2f} x ({kind} {one.reference:g}, guard {one.limit:.2f})", flush=True)
    return [one.holds for one in best.values()]


def _micro() -> Ratios:
    return {key: Guarded(one.ratio, one.bar or 0.0) for key, one in micro.measure(_ROUNDS, barred=True).items()}


def _metered() -> Ratios:
    return {"metrics: added to a token": Guarded(metered.measure().ratio - 1, metered.BAR)}


def _requests() -> Ratios:
    return {
        f"request: {name}": Guarded(per_request.measure(name, _ROUNDS).ratio, bar)
        for name, bar in per_request.RATIOS.items()
    }


def _unused() -> Ratios:
    return {
        f"unused features: added to a request, {name}": Guarded(
            per_request.measure_unused(name, _ROUNDS).ratio - 1,
            per_request.UNUSED,
        )
        for name in per_request.RATIOS
    }


def _paused() -> Ratios:
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as folder:
        ours, python = (
            pauses.longest_pause(_STREAMS, one, _SECONDS, Path(folder)) for one in (pauses.BOUNDED, pauses.PYTHON)
        )
    return {f"pauses: longest collection, {_STREAMS} streams": Guarded(ours / python, pauses.AGAINST_PYTHON)}


def _proxied() -> Ratios:
    """A server that could not be measured has the ratio infinity."""
    servers = [Relay(), fast(), *([native()] if missing() is None else [])]
    works = [*tokens_of(STAGGERED, [_PACED_STREAMS]), arguments_of(_PACED_STREAMS)]
    found: Ratios = {}
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as folder, ResultFile(Path(folder) / "records") as records:
        prepared = [Prepared(peer, peer.prepare(Path(folder), install=False)) for peer in servers]
        together(Bench(prepared, Path(folder), records, windows=_WINDOWS), works)
        for run, name in ((work.run, peer.name) for work in works for peer in servers[1:]):
            setting = main_setting(records, run)
            ratio = setting and against(records, setting, name, FLOOR, server_cpu)
            found[f"{name}: {run}, CPU per token"] = Guarded(
                ratio.median if ratio else float("inf"), _PACED[run][name], is_bar=False
            )
    return found
