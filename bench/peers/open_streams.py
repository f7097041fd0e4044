"""Measurements with a given number of streams open at once: CPU per token against that number, and memory per stream.

CPU per token: the tokens per second of all streams together are always the same. Only the time during which
all streams are open counts, as starting a stream costs more than its few tokens.

Memory: a stream's sockets, buffers and tasks, and what the allocator keeps. Many nearly idle streams are opened at a
fixed rate, not all at once, so that no burst is measured. While all are open, memory is compared with that of the idle
server.
"""

from statistics import median
from time import monotonic
from typing import Final
from urllib.request import urlopen

from anthro_asgi.bench.processes import Meter, family, resident
from anthro_asgi.bench.records import Load

from ..figures import Rounds, figure, ratios, stream_costs
from ..records import Memory, StreamCost
from .harness import SLACK_SECONDS, Bench, Client, Plan, Prepared, Server, driving, engine, pause
from .peer import Unavailable

LEVELS: Final = (10, 100, 1_000)
_TOKENS_PER_SECOND: Final = 2_000  # of all streams together
_OPENING_SECONDS: Final = 5.0  # for which streams last beyond the measurement
_SETTLING_SECONDS: Final = 0.5
_BEHIND: Final = 0.05  # the part of the measurement by which tokens may be late

_FEW: Final = 500
_OPENED_PER_SECOND: Final = 400
_TOGETHER_SECONDS: Final = 10.0  # during which all streams are open
_TOKENS: Final = 9
_SAMPLE_SECONDS: Final = 0.5


def opened(upstream: Server) -> int:
    """The number of streams that the scripted engine has open; 0 when it has ended."""
    try:
        with urlopen(f"{upstream.url}/streams", timeout=5) as answer:  # noqa: S310 (our own engine)
            return int(answer.read())
    except OSError:
        return 0


def await_open(upstream: Server, streams: int, client: Client, seconds: float) -> None:
    """Return once this many streams are open. Raises Unavailable after `seconds`, or when the client has ended."""
    deadline = monotonic() + SLACK_SECONDS + seconds
    while opened(upstream) < streams:
        if monotonic() > deadline or not client.running:
            raise Unavailable(f"{streams} streams were never open at once")
        pause(0.1)


# CPU per token


def streams(bench: Bench) -> None:
    """For the relay and for us, in rounds over the levels."""
    for number in range(bench.rounds):
        for level in LEVELS:
            for prepared in bench.named("relay", "ours-fast"):
                name = prepared.peer.name
                try:
                    cost = _cost(bench, prepared, level, bench.seconds / 2)
                except Unavailable as exc:
                    bench.records.missing(name, f"streams, {level} of them: {exc}")
                else:
                    bench.records.add(StreamCost(name, level, cost, number))
    print(f"\nstreams: CPU µs/token at {_TOKENS_PER_SECOND} tokens/s in all, medians of the rounds")
    for name in dict.fromkeys(cost.server for cost in bench.records.of(StreamCost)):
        found = {level: costs for level in LEVELS if (costs := stream_costs(bench.records, name, level))}
        shown = ", ".join(f"{median(costs.values()):.1f} at {level}" for level, costs in found.items())
        print(f"{name}: {shown}; most over fewest {_growth(list(found.values()))}", flush=True)


def _growth(found: list[Rounds]) -> str:
    growth = figure(ratios(found[-1], found[0]))
    return f"{growth.median:.2f}" if growth else "-"


def _cost(bench: Bench, prepared: Prepared, level: int, seconds: float) -> float:
    """Microseconds of CPU per token. Raises Unavailable."""
    rate = _TOKENS_PER_SECOND / level
    lasting = seconds + _SETTLING_SECONDS + _OPENING_SECONDS
    plan = Plan(requests=level, tokens=round(rate * lasting), concurrency=level)
    with (
        engine(rate, bench.folder) as upstream,
        bench.serving(prepared, upstream, tokens=1) as server,
        driving(server, plan, bench.folder) as client,
    ):
        await_open(upstream, level, client, lasting)
        pause(_SETTLING_SECONDS)
        cost = _per_token(server, seconds)
        if opened(upstream) < level or not client.running:
            raise Unavailable("the streams ended before the measurement")
        load = client.summary(lasting)
    if load.ok != level or load.errors:
        raise Unavailable(f"{load.ok} streams of {level} succeeded: {load.errors}")
    if ((load.transit or {}).get("p99") or 0.0) > seconds * _BEHIND:
        raise Unavailable("tokens were so late that their number during the measurement is unknown")
    return cost


def _per_token(server: Server, seconds: float) -> float:
    meter = Meter([server.pid])
    meter.start()
    began = monotonic()
    pause(seconds)
    cost, lasted = meter.stop(), monotonic() - began
    return cost.cpu_s * 1e6 / (_TOKENS_PER_SECOND * lasted)


# memory


def memory(bench: Bench) -> None:
    """For us, with few and with many streams."""
    print("\nmemory: KiB resident per open stream")
    for prepared in bench.named("ours-fast"):
        name = prepared.peer.name
        for number in sorted({min(_FEW, bench.memory_streams), bench.memory_streams}):
            try:
                kib, load = _weigh(bench, prepared, number)
            except Unavailable as exc:
                bench.records.missing(name, f"memory, {number} streams: {exc}")
                continue
            unfinished = number - load.ok - sum(load.errors.values())
            errors = load.errors | ({"unfinished": unfinished} if unfinished else {})
            bench.records.add(Memory(name, number, max(0.0, kib), errors))
            print(f"{name}: {kib:.1f} at {number} streams, errors: {errors or 'none'}", flush=True)


def _weigh(bench: Bench, prepared: Prepared, number: int) -> tuple[float, Load]:
    """KiB per stream, and how the streams ended. Raises Unavailable."""
    opening = number / _OPENED_PER_SECOND
    rate = (_TOKENS - 1) / (opening + _TOGETHER_SECONDS)
    plan = Plan(requests=number, tokens=_TOKENS, rate=_OPENED_PER_SECOND)
    with engine(rate, bench.folder) as upstream, bench.serving(prepared, upstream, tokens=1) as server:
        idle, most = _resident(server), 0
        with driving(server, plan, bench.folder) as client:
            await_open(upstream, number, client, 2 * opening + _TOGETHER_SECONDS)
            while client.running and opened(upstream) >= number:
                most = max(most, _resident(server))
                pause(_SAMPLE_SECONDS)
            load = client.summary(2 * opening + 2 * _TOGETHER_SECONDS)
    if not most:
        raise Unavailable("the streams ended before memory was read")
    return (most - idle) / 1024 / number, load


def _resident(server: Server) -> int:
    return sum(map(resident, family(server.pid)))
