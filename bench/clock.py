"""`python -m bench clock`: how exactly the simulated engine keeps the schedule of its tokens.

Two measurements at each number of streams:

*engine*: many streams of the engine in this process, on uvloop, driven as the service drives them. Measured is the time
from a token's scheduled moment to the moment the stream continues.

*client*: `anthro-asgi serve` in its own process, and a client on loopback that notes when it reads each token. A token
is compared with the schedule of its stream, anchored at the stream's least late token, so a stream that began late does
not count as late with every token. The delay of the begin is *first token*: the time from the request to the first
token, minus the configured time to first token.

Streams begin one after the other, at most a thousand per second, with evenly spread phases. *drift* is the mean error
of the last quarter of each stream's tokens minus that of the first quarter; it grows when a schedule is not absolute.

A delay may be the machine's. So the round with the best p99 is shown, beside the median p99 of all rounds.
"""

import argparse
import asyncio
import gc
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from time import monotonic, monotonic_ns
from typing import Final

import uvloop

from anthro_asgi.bench.client import Connection, Ending
from anthro_asgi.bench.counting import Counter
from anthro_asgi.bench.load.target import Target
from anthro_asgi.bench.load.workload import Content, Workload
from anthro_asgi.bench.options import positive
from anthro_asgi.bench.processes import many_files
from anthro_asgi.http.inline_driver import InlineDriver
from anthro_asgi.simulator import LoopClock, SimulatedEngine, Sleeper
from anthro_asgi.simulator.distributions import Distribution
from anthro_asgi.wire.request import MessagesRequest

from .process import serving

_TTFT: Final = 0.5  # seconds
_STREAMS_PER_SECOND: Final = 1000  # that begin
_PATIENCE: Final = 30.0  # seconds beyond the scheduled end

Rows = list[list[float]]
"""For each stream, how late each of its tokens was, in seconds."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The schedule of every stream: seconds between tokens, and the number of tokens."""

    itl: float
    tokens: int


class _WatchedSleeper:
    """Notes the first moment that it waits for."""

    def __init__(self, sleeper: Sleeper, first: list[float]) -> None:
        self._sleeper = sleeper
        self._first: list[float] | None = first

    async def until(self, when: float) -> None:
        if self._first is not None:
            self._first.append(when)
            self._first = None
        await self._sleeper.until(when)


class _WatchedClock(LoopClock):
    """`first` holds the first moment that each of its sleepers waited for, in the order they began."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[float] = []

    def sleeper(self) -> Sleeper:
        return _WatchedSleeper(super().sleeper(), self.first)


async def _spread(streams: int, itl: float, begin: Callable[[int], Awaitable[None]]) -> None:
    """Begin the streams one after the other, with phases evenly spread over an interval, and wait for all."""
    tasks = []
    start, ramp = monotonic(), itl * ceil(streams / (_STREAMS_PER_SECOND * itl))
    for number in range(streams):
        await asyncio.sleep(start + number * ramp / streams - monotonic())
        tasks.append(asyncio.ensure_future(begin(number)))
    await asyncio.gather(*tasks)


async def engine(streams: int, timing: Timing) -> Rows:
    """How late the tokens are in this process."""
    clock = _WatchedClock()
    simulated = SimulatedEngine(ttft=_TTFT, itl=timing.itl, output_tokens=timing.tokens, clock=clock)

    async def consume(number: int, row: list[float]) -> None:
        message = {"role": "user", "content": f"stream {number}"}
        place = len(clock.first)  # the sleeper begins before any other task runs
        async for batch in simulated.stream(MessagesRequest("bench", timing.tokens, [message])):
            now = monotonic() - clock.first[place]
            tokens = sum(isinstance(delta, str) for delta in batch) if isinstance(batch, list) else 1
            row += [now - (len(row) + more) * timing.itl for more in range(tokens)]

    async def driven(number: int) -> None:
        await InlineDriver(consume(number, rows[number]))

    rows: Rows = [[] for _ in range(streams)]
    await _spread(streams, timing.itl, driven)
    await simulated.stop()
    return rows


class _Stream:
    """A Receiver that notes when each token was read."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.sent = 0
        self.over: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._counter = Counter("messages")

    def headed(self, status: int, content_type: bytes) -> None:
        if status != 200:
            raise RuntimeError(f"status {status}")

    def took(self, data: bytes, now: int) -> None:
        self.read += [now] * self._counter.feed(data)

    def ended(self, ending: Ending, now: int) -> None:
        self.over.set_result(ending)


async def client(url: str, streams: int, timing: Timing) -> tuple[list[float], Rows]:
    """How late the first tokens are, and how late all tokens are by the schedule of their own stream."""
    target = Target.parse(url, "messages")
    lengths = (Distribution.of(8), Distribution.of(timing.tokens))
    workload = Workload(target, Content("messages", "bench", None, True, *lengths))
    loop = asyncio.get_running_loop()
    connected = [await loop.create_connection(Connection, target.hosts[0], target.port) for _ in range(streams)]
    received = [_Stream() for _ in range(streams)]

    async def ask(number: int) -> None:
        stream = received[number]
        stream.sent = monotonic_ns()
        connected[number][1].ask(workload.numbered(number), stream)
        await asyncio.wait_for(stream.over, _TTFT + timing.itl * timing.tokens + _PATIENCE)

    try:
        await _spread(streams, timing.itl, ask)
    finally:
        for _, connection in connected:
            with suppress(AttributeError):
                connection.abort()
    short = sum(len(stream.read) != timing.tokens for stream in received)
    if short:
        raise RuntimeError(f"{short} streams do not have {timing.tokens} tokens")
    first = [(stream.read[0] - stream.sent) / 1e9 - _TTFT for stream in received]
    return first, [anchored(stream.read, timing.itl) for stream in received]


def anchored(read: Iterable[int], itl: float) -> list[float]:
    """Seconds by which each of a stream's tokens was late, from the nanoseconds at which they were read."""
    offsets = [now / 1e9 - number * itl for number, now in enumerate(read)]
    return [offset - min(offsets) for offset in offsets]


def drift(rows: Rows) -> float:
    """The mean lateness of the last quarter of the tokens minus that of the first quarter."""
    quarters = [(row[: len(row) // 4], row[-(len(row) // 4) :]) for row in rows if len(row) >= 8]
    return statistics.fmean(statistics.fmean(last) - statistics.fmean(first) for first, last in quarters)


def _at(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement: absolute errors in seconds, and the drift if there is one."""

    errors: Sequence[float]
    drift: float | None = None

    @property
    def p99(self) -> float:
        return _at(self.errors, 0.99)

    @classmethod
    def of(cls, rows: Rows) -> "Round":
        return cls([abs(late) for row in rows for late in row], drift(rows))


def rounds(url: str, streams: int, timing: Timing, number: int) -> dict[str, list[Round]]:
    """The rounds of each measurement."""
    found: dict[str, list[Round]] = {"engine": [], "client": [], "client, first token": []}
    for _ in range(number):
        gc.collect()
        gc.freeze()  # a collection of the measured values would delay the measurement
        found["engine"].append(Round.of(uvloop.run(engine(streams, timing))))
        first, rows = uvloop.run(client(url, streams, timing))
        found["client"].append(Round.of(rows))
        found["client, first token"].append(Round([abs(late) for late in first]))
    return found


def show(streams: int, found: dict[str, list[Round]]) -> None:
    """Print a row for each measurement."""
    for what, measured in found.items():
        best = min(measured, key=lambda one: one.p99)
        usual = statistics.median(one.p99 for one in measured)
        values = [_at(best.errors, 0.5), best.p99, usual, max(best.errors)]
        cells = "".join(f"{value * 1e6:>12,.0f}" for value in values)
        last = "" if best.drift is None else f"{best.drift * 1e6:>12,.1f}"
        print(f"{streams:>8,} {what:<22}{len(best.errors):>10,}{cells}{last}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    add = parser.add_argument
    add("--streams", type=positive, nargs="+", default=[100, 2000], metavar="N", help="at once (default 100 2000)")
    add("--itl", type=float, default=0.1, metavar="S", help="seconds between tokens (default 0.1)")
    add("--tokens", type=positive, default=60, metavar="N", help="of each stream (default 60)")
    add("--rounds", type=positive, default=3, metavar="N", help="show the best of N rounds (default 3)")


def main(options: argparse.Namespace) -> int:
    """Measure and print."""
    many_files()
    timing = Timing(options.itl, options.tokens)
    heads = "".join(f"{head:>12}" for head in ("p50", "p99", "usual p99", "max", "drift"))
    print(f"{'streams':>8} {'|actual - meant|, µs':<22}{'n':>10}{heads}", flush=True)
    command = (sys.executable, "-m", "anthro_asgi", "serve", "--port", "0", "--simulate", "--log-level", "warning")
    pace = ("--simulate-ttft", f"{_TTFT:g}s", "--simulate-itl", f"{timing.itl * 1e3:g}ms")
    length = ("--simulate-output-tokens", str(timing.tokens), "--max-concurrency", "65536")
    with serving((*command, *pace, *length)) as (url, _):
        for streams in options.streams:
            show(streams, rounds(url, streams, timing, options.rounds))
    return 0
