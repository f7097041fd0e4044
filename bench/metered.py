"""`python -m bench metered`: what `/metrics` adds to the cost of a token.

Measured is all of a token's way except the kernel's part: from the bytes of the engine's connection through chunk,
delta, event and uvicorn to the bytes for the client. Two streams in one process alternate in random order. For one of
them the intervals between tokens are discarded instead of counted. Both still append a clock reading, which is taken
anyway, to a list: some 20 ns.

There are no sockets, and the pause of a fast stream (`read_coalescer`) is off, because the bench sets the pace here.
"""

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any, Final
from unittest.mock import patch

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from anthro_asgi import MessagesApp
from anthro_asgi.bench.options import positive
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.openai.read_coalescer import ReadCoalescer
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.upstream.connect import Dialer
from anthro_asgi.upstream.origin import Origin

from .in_process import END, HEAD, REQUEST, Sink, chunked, connection
from .micro.case import Comparison, collector_off
from .micro.streams import STYLES, stream, varied

BAR: Final = 0.05
_ROUNDS: Final = 101
_TOKENS: Final = 320  # per round and stream
_BODY: Final = b'{"model":"m","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'


class Unmetered(Metrics):
    """Discards the intervals between tokens."""

    def observe_gaps(self, marks: list[float]) -> None:
        marks.clear()


class Pipeline:
    """One open stream, from the engine's connection to the client's."""

    def __init__(self, metrics: type[Metrics]) -> None:
        self.engine = OpenAIEngine(Origin.parse("http://127.0.0.1:9/v1"), dialect="vllm")
        self.app = MessagesApp(self.engine)
        self.app.metrics.__class__ = metrics
        self._connection: Any = None
        self._dialled = asyncio.Event()

    async def open(self, head: Sequence[bytes]) -> None:
        """Send the request, and let the engine begin its answer."""
        server = connection(self.app, HttpToolsProtocol)
        self.client = Sink(server)
        with patch.object(Dialer, "dial", self._dial):
            server.data_received(REQUEST % len(_BODY) + _BODY)
            await self._dialled.wait()
        await asyncio.sleep(0)
        await self.feed([HEAD, *map(chunked, head)])

    async def _dial(self, connection: Any) -> None:
        Sink(connection)
        self._connection = connection
        self._dialled.set()

    async def close(self, tail: Sequence[bytes]) -> None:
        """Let the engine end its answer."""
        await self.feed([*map(chunked, tail), END])
        await self.engine.stop()
        self.client.close()

    async def feed(self, reads: Sequence[bytes]) -> int:
        """Pass on the reads, one per event loop iteration; returns the nanoseconds that they took."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        left = iter(reads)
        spent = 0

        def read() -> None:
            nonlocal spent
            data = next(left, None)
            if data is None:
                done.set_result(None)
                return
            began = perf_counter_ns()
            self._connection.data_received(data)
            spent += perf_counter_ns() - began
            loop.call_soon(read)

        loop.call_soon(read)
        await done
        return spent


@asynccontextmanager
async def paths() -> AsyncIterator[tuple[Pipeline, Pipeline]]:
    """Two open streams: one whose intervals are discarded, and one whose intervals are counted."""
    answer = stream(STYLES[0], "text", ["Hello"])
    opened = Pipeline(Unmetered), Pipeline(Metrics)
    with patch.object(ReadCoalescer, "should_pause", lambda _: False):
        for path in opened:
            await path.open([*answer.head, *answer.chunks])
        yield opened
        for path in opened:
            await path.close(answer.tail)


async def _measured(rounds: int) -> Comparison:
    reads = [chunked(chunk) for chunk in stream(STYLES[0], "text", varied(_TOKENS)).chunks]
    chance = random.Random(1)  # noqa: S311 (an order, no secret)
    pairs: list[tuple[float, float]] = []
    async with paths() as both:
        for _ in range(rounds + 1):
            took = {path: await path.feed(reads) / _TOKENS for path in chance.sample(both, 2)}
            pairs.append((took[both[0]], took[both[1]]))
    return Comparison.of(pairs[1:])  # the first round warms up


def measure(rounds: int = _ROUNDS) -> Comparison:
    """Nanoseconds per token without and with metrics, and the ratio."""
    with collector_off():
        return uvloop.run(_measured(rounds))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--rounds", type=positive, default=_ROUNDS, help=f"pairs of measurements (default {_ROUNDS})")


def main(options: argparse.Namespace) -> int:
    """Measure and print."""
    cost = measure(options.rounds)
    print(
        f"a token's way in the process: {cost.floor_ns:.0f} ns without metrics, {cost.subject_ns:.0f} ns with: "
        f"{cost.ratio - 1:+.1%} (bar {BAR:.0%})"
    )
    return 0
