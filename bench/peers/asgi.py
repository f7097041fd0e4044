"""The cost of the service around an engine that costs nothing: the simulated engine without delays, and a raw ASGI
application. Both run in one environment, on one uvicorn, with equal numbers of tokens and of event loop iterations.
"""

from dataclasses import replace
from statistics import median
from typing import Final

from ..figures import asgi_costs, figure, ratios
from ..records import Asgi
from .harness import PATIENCE, Bench, Plan, Server, cpu_per_token, drive, free_address, started
from .ours import Ours
from .peer import Launch, Unavailable

_TOKENS: Final = 2_000
_STREAMS: Final = 4
_SIMULATED: Final = ("--simulate-itl", "0", "--simulate-ttft", "0", "--simulate-output-tokens", str(_TOKENS))


def asgi(bench: Bench) -> None:
    """In rounds, recorded and printed."""
    for prepared in bench.named("ours-fast"):
        assert isinstance(prepared.peer, Ours)
        try:
            _measure(bench, prepared.peer)
        except Unavailable as exc:
            bench.records.missing(prepared.peer.name, f"asgi: {exc}")
            continue
        costs = {name: asgi_costs(bench.records, name) for name in ("raw", "simulated")}
        ratio = figure(ratios(costs["simulated"], costs["raw"]))
        medians = ", ".join(f"{name} {median(values.values()):.2f}" for name, values in costs.items())
        print(f"\nasgi: CPU µs/token: {medians}; simulated / raw {ratio.median if ratio else 0:.2f}", flush=True)


def _measure(bench: Bench, ours: Ours) -> None:
    """Raises Unavailable."""
    wave = Plan(requests=_STREAMS, tokens=_TOKENS, concurrency=_STREAMS)
    at = {"raw": free_address(), "simulated": free_address()}
    port = at["raw"].rpartition(":")[2]
    application = Launch([ours.python, "-m", "bench.peers.raw_asgi", port, str(_TOKENS)])
    simulated = ours.serve(at["simulated"], *_SIMULATED)
    with (
        started(application, at["raw"], "/", bench.folder / "raw.log") as raw_pid,
        started(simulated, at["simulated"], ours.ready, bench.folder / "simulated.log") as simulated_pid,
    ):
        pids = {"raw": raw_pid, "simulated": simulated_pid}
        servers = [Server(name, name, "messages", "simulated", address, pids[name]) for name, address in at.items()]
        plans = {}
        for server in servers:
            seconds = drive(server, wave, bench.folder, PATIENCE * bench.seconds).seconds
            plans[server.name] = replace(wave, requests=_STREAMS * max(1, round(bench.seconds / 4 / seconds)))
        for number in range(bench.rounds):
            for server in servers:
                load = drive(server, plans[server.name], bench.folder, PATIENCE * bench.seconds)
                bench.records.add(Asgi(server.name, cpu_per_token(load), number))
