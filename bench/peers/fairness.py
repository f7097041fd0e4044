"""Whether one fast stream delays slow ones: their inter-token latency alone, and beside a stream that is never paced.

The fast stream has its own client, so that the server is measured and not a client. The engine and the relay are
measured the same way: on two cores the fast stream takes time from the slow ones on the machine itself too.
"""

from dataclasses import replace
from time import monotonic
from typing import Final

from anthro_asgi.bench.records import Percentiles

from ..records import Fairness
from ..scripted.serving import UNPACED
from .harness import PATIENCE, Bench, Plan, Server, drive, driving, engine, opened, pause
from .peer import Unavailable

_SLOW: Final = 63  # streams
_RATE: Final = 50  # tokens/s of each
_FAST_TOKENS: Final = 20_000  # of each request of the fast client, one after the other
_MARGIN_SECONDS: Final = 4.0  # for which the fast client runs longer than the slow ones


def fairness(bench: Bench) -> None:
    """For the engine itself, the relay and us, in rounds."""
    with engine(_RATE, bench.folder) as upstream:
        for number in range(bench.rounds):
            _attempt(bench, upstream, upstream, number)
            for prepared in bench.named("relay", "ours-fast"):
                try:
                    with bench.serving(prepared, upstream.address) as server:
                        _attempt(bench, server, upstream, number)
                except Unavailable as exc:
                    bench.records.missing(prepared.peer.name, f"fairness: {exc}")


def _attempt(bench: Bench, server: Server, upstream: Server, number: int) -> None:
    try:
        alone = _slow(bench, server)
        beside, fast = _beside(bench, server, upstream)
    except Unavailable as exc:
        bench.records.missing(server.name, f"fairness: {exc}")
        return
    bench.records.add(Fairness(server.name, _SLOW, alone, beside, fast, number))
    one, other = (
        ", ".join(f"{name} {(itl[name] or 0) * 1e3:.2f}" for name in ("p50", "p99")) for itl in (alone, beside)
    )
    print(
        f"fairness: {server.name}: ITL ms alone {one}; beside a fast stream {other} ({fast:.0f} tokens/s)", flush=True
    )


def _beside(bench: Bench, server: Server, upstream: Server) -> tuple[Percentiles, float]:
    """Percentiles of the slow streams, and the tokens/s of the fast one. Raises Unavailable."""
    lasting = bench.seconds + _MARGIN_SECONDS
    plan = Plan(tokens=_FAST_TOKENS, duration=lasting, concurrency=1)
    with driving(replace(server, model=UNPACED), plan, bench.folder, "fast") as client:
        deadline = monotonic() + _MARGIN_SECONDS / 2
        while not opened(upstream):
            if monotonic() > deadline:
                raise Unavailable("the fast stream did not begin")
            pause(0.05)
        slow = _slow(bench, server)
        if not client.running:
            raise Unavailable("the fast stream ended before the slow ones")
        return slow, client.summary(lasting).tokens_per_s or 0.0


def _slow(bench: Bench, server: Server) -> Percentiles:
    """Percentiles of the slow streams' inter-token latency. Raises Unavailable."""
    plan = Plan(tokens=round(_RATE * bench.seconds), requests=_SLOW, concurrency=_SLOW)
    return drive(server, plan, bench.folder, PATIENCE * bench.seconds).icl
