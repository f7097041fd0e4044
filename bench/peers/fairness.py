"""Whether one fast stream starves slow ones: their inter-token latency alone, and beside a stream that never waits.

The fast stream has a client of its own, so that what is seen is the server's fairness and not a client's. The engine
and the floor are measured the same way, for on two cores the machine itself takes its share from the slow ones.
"""

from dataclasses import replace
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from .bench import Bench
from .driving import Load, Server, drive, driving
from .peer import Missing
from .serving import engine
from .steady import connections, pause
from .two_paces import UNPACED

_SLOW: Final = 63
_RATE: Final = 50  # tokens/s of each
_FAST_TOKENS: Final = 20_000  # of each of the fast client's requests, which follow each other
_MARGIN_SECONDS: Final = 4.0  # by which the fast client outlasts the slow ones
_PATIENCE: Final = 12


def fairness(bench: Bench) -> None:
    """For the engine itself, the floor and us, in rounds."""
    module = "bench.peers.two_paces"
    with engine(_RATE, bench.folder, module) as upstream:
        for number in range(bench.rounds):
            _attempt(bench, upstream, number)
            for prepared in bench.named("relay", "ours-fast"):
                try:
                    with bench.serving(prepared, upstream) as server:
                        _attempt(bench, server, number)
                except Missing as exc:
                    bench.records.missing(prepared.peer.name, f"fairness: {exc}")


def _attempt(bench: Bench, server: Server, number: int) -> None:
    """One round of one server."""
    try:
        alone = _slow(bench, server)
        beside, fast = _beside(bench, server)
    except Missing as exc:
        bench.records.missing(server.name, f"fairness: {exc}")
        return
    said = (alone, beside)
    bench.records.write(
        "fairness",
        server=server.name,
        slow_streams=_SLOW,
        alone=alone,
        beside=beside,
        fast_tokens_per_s=fast,
        round=number,
    )
    one, other = (f"p50 {itl['p50'] * 1e3:.2f} p99 {itl['p99'] * 1e3:.2f}" for itl in said)
    print(
        f"fairness: {server.name}: ITL ms alone {one}, beside a fast stream {other} ({fast:.0f} tokens/s)", flush=True
    )


def _beside(bench: Bench, server: Server) -> tuple[dict[str, Any], float]:
    """Percentiles of the slow streams, and the tokens/s of the fast one. Raises Missing."""
    lasting = bench.seconds + _MARGIN_SECONDS
    load = Load(tokens=_FAST_TOKENS, duration=lasting, concurrency=1)
    with driving(replace(server, model=UNPACED), load, bench.folder, "fast") as client:
        deadline = monotonic() + _MARGIN_SECONDS / 2
        while not connections(urlsplit(server.url).port or 0):
            if monotonic() > deadline:
                raise Missing("the fast client did not connect")
            pause(0.05)
        slow = _slow(bench, server)
        if not client.at_work:
            raise Missing("the fast stream ended before the slow ones")
        fast = client.summary(lasting)
    return slow, float(fast["tokens_per_s"])


def _slow(bench: Bench, server: Server) -> dict[str, Any]:
    """Percentiles of the inter-token latency of the slow streams, in seconds. Raises Missing."""
    load = Load(tokens=round(_RATE * bench.seconds), requests=_SLOW, concurrency=_SLOW)
    summary = drive(server, load, bench.folder, _PATIENCE * bench.seconds)
    itl: dict[str, Any] = summary["itl"]
    return itl
