"""The service around an engine that costs nothing: ours, simulated and without waiting, against a raw ASGI application.

Both in the same environment, on the same uvicorn, with the same number of tokens and of turns for the event loop.
"""

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from . import raw_asgi
from .bench import Bench
from .driving import Load, Server, drive
from .figures import ratio
from .ours import Ours
from .peer import Launch, Missing
from .processes import free_port
from .serving import started

_TOKENS: Final = 2_000
_STREAMS: Final = 4
_PATIENCE: Final = 12
_SIMULATED: Final = ("--simulate-itl", "0", "--simulate-ttft", "0", "--simulate-output-tokens", str(_TOKENS))


def asgi(bench: Bench) -> None:
    """In rounds, recorded and printed."""
    for prepared in bench.named("ours-fast"):
        assert isinstance(prepared.peer, Ours)
        try:
            costs = _rounds(bench, prepared.peer)
        except Missing as exc:
            bench.records.missing(prepared.peer.name, f"asgi: {exc}")
            continue
        value = ratio(costs["simulated"], costs["raw"])
        medians = ", ".join(f"{name} {statistics.median(values.values()):.2f}" for name, values in costs.items())
        print(f"\nasgi: CPU µs/token: {medians}; simulated / raw {value:.2f}", flush=True)


def _rounds(bench: Bench, ours: Ours) -> dict[str, dict[int, float]]:
    """CPU per token in µs, by name and round. Raises Missing."""
    costs: dict[str, dict[int, float]] = {"raw": {}, "simulated": {}}
    with _both(bench, ours) as servers:
        loads = {name: _warmed(bench, server) for name, server in servers.items()}
        for number in range(bench.rounds):
            for name, server in servers.items():
                summary = drive(server, loads[name], bench.folder, _PATIENCE * bench.seconds)
                cost = summary["server"]["cpu_us_per_token"]
                costs[name][number] = cost
                bench.records.write("asgi", name=name, cpu_us_per_token=cost, round=number)
    return costs


def _warmed(bench: Bench, server: Server) -> Load:
    """What fills a quarter of the seconds of a turn, by how long the first requests took."""
    wave = Load(requests=_STREAMS, tokens=_TOKENS, concurrency=_STREAMS)
    first = drive(server, wave, bench.folder, _PATIENCE * bench.seconds)
    return replace(wave, requests=_STREAMS * max(1, round(bench.seconds / 4 / first["seconds"])))


@contextmanager
def _both(bench: Bench, ours: Ours) -> Iterator[Mapping[str, Server]]:
    """The two servers, up. Raises Missing."""
    raw, simulated = free_port(), free_port()
    app = Launch([str(ours.python), str(Path(raw_asgi.__file__)), str(raw), str(_TOKENS)])
    with (
        started(app, raw, "/", bench.folder / "raw.log") as raw_pid,
        started(ours.serve(simulated, *_SIMULATED), simulated, ours.ready, bench.folder / "simulated.log") as pid,
    ):
        yield {
            "raw": Server("raw", "raw ASGI", "messages", "simulated", f"http://127.0.0.1:{raw}", raw_pid),
            "simulated": Server("simulated", "ours", "messages", "simulated", f"http://127.0.0.1:{simulated}", pid),
        }
