"""CPU per token against the number of streams, at the same number of tokens a second in all.

Only the middle is measured: from when all streams are open, for as long as they are. What it costs to begin a stream
does not grow with their number, and would be all that is seen where a stream has few tokens.
"""

from time import monotonic
from typing import Final

from ..process import Meter
from .bench import Bench, Prepared
from .driving import Load, Server, driving
from .figures import median, ratio
from .peer import Missing
from .serving import engine
from .steady import Gauge, await_open, pause

LEVELS: Final = (10, 100, 1_000)
_TOKENS_PER_SECOND: Final = 2_000  # of all streams together
_OPENING_SECONDS: Final = 5.0  # how long the streams last beyond what is measured
_SETTLING_SECONDS: Final = 0.5
_BEHIND: Final = 0.05  # of what is measured, that tokens may be late by


def streams(bench: Bench) -> None:
    """For the floor and for us, in rounds over the levels."""
    for number in range(bench.rounds):
        for level in LEVELS:
            for prepared in bench.named("relay", "ours-fast"):
                try:
                    cost = _cost(bench, prepared, level, bench.seconds / 2)
                except Missing as exc:
                    bench.records.missing(prepared.peer.name, f"streams, {level} of them: {exc}")
                    continue
                name = prepared.peer.name
                bench.records.write("streams", server=name, streams=level, cpu_us_per_token=cost, round=number)
    _print(bench)


def _cost(bench: Bench, prepared: Prepared, level: int, seconds: float) -> float:
    """Microseconds of CPU a token. Raises Missing."""
    rate = _TOKENS_PER_SECOND / level
    lasting = seconds + _SETTLING_SECONDS + _OPENING_SECONDS
    load = Load(requests=level, tokens=round(rate * lasting), concurrency=level)
    with engine(rate, bench.folder) as upstream, bench.serving(prepared, upstream, tokens=1) as server:
        gauge = Gauge(upstream)
        with driving(server, load, bench.folder) as client:
            await_open(gauge, level, client, lasting)
            pause(_SETTLING_SECONDS)
            cost = _per_token(server, seconds)
            if gauge.open() < level or not client.at_work:
                raise Missing("the streams ended before the measurement")
            summary = client.summary(lasting)
    if summary["ok"] != level or summary["errors"]:
        raise Missing(f"{summary['ok']} streams of {level} went well: {summary['errors']}")
    if summary["transit"]["p99"] > seconds * _BEHIND:
        raise Missing("tokens came so late that it is not known how many the measurement was of")
    return cost


def _per_token(server: Server, seconds: float) -> float:
    """Microseconds of CPU a token, measured for so long."""
    meter = Meter([server.pid])
    meter.start()
    began = monotonic()
    pause(seconds)
    cost, lasted = meter.stop(), monotonic() - began
    return cost.cpu_s * 1e6 / (_TOKENS_PER_SECOND * lasted)


def _print(bench: Bench) -> None:
    print(f"\nstreams: CPU µs/token at {_TOKENS_PER_SECOND} tokens/s in all, medians of the rounds")
    found: dict[str, dict[int, dict[int, float]]] = {}  # by server, level and round
    for record in bench.records.all:
        if record["kind"] == "streams":
            levels = found.setdefault(record["server"], {})
            levels.setdefault(record["streams"], {})[record["round"]] = record["cpu_us_per_token"]
    for name, levels in found.items():
        shown = ", ".join(f"{median(costs):.1f} at {level}" for level, costs in levels.items())
        growth = ratio(levels[max(levels)], levels[min(levels)])
        print(f"{name}: {shown}; most over fewest {'-' if growth is None else f'{growth:.2f}'}", flush=True)
