"""`python -m bench hold`: the longest time that one request keeps the event loop from everything else.

While the loop is held no other stream's token is read or sent, so this is a latency that every client pays for one
client's long prompt. The whole service is measured, from the first byte of the body to the end of a short answer: the
application over the engine for OpenAI-compatible upstreams, on uvloop, in front of a scripted engine in a process of
its own. The body comes as a server hands it over, 64 KiB a piece and each in a turn of its own.

A ticker runs in every turn of the loop and keeps the longest gap between two of its runs. On a machine that is busy
with other things a gap may be the machine's, so of several repetitions the best counts. Beside it stand the median, and
what the ticker sees, just as often and as long, when no request is there.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final

import orjson
import uvloop

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin

from . import bodies
from .options import positive
from .process import serving

BAR: Final = 0.005  # seconds
_PIECE: Final = 64 * 1024
_TOKENS: Final = 4
_REPETITIONS: Final = 7
_IMAGE: Final = 31_000_000
_HEADERS: Final = ((b"host", b"localhost"), (b"content-type", b"application/json"))
_FIRST: Final = b"content_block_delta"

App = Callable[..., Any]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Body:
    """A request to measure with."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """Seconds. `longest` began `at` after the first byte, `total` is until the first token.

    `usual` is the median of the longest in each repetition, `alone` the longest in as much time without a request.
    """

    body: Body
    longest: float
    usual: float
    at: float
    total: float
    alone: float

    def record(self) -> dict[str, Any]:
        """A line of a result file."""
        return {
            "kind": "hold",
            "name": self.body.name,
            "body_bytes": len(self.body.data),
            "longest_s": self.longest,
            "median_s": self.usual,
            "at_s": self.at,
            "total_s": self.total,
            "alone_s": self.alone,
        }


def requests() -> list[Body]:
    """What is measured: agents after a long afternoon, and one image as large as a body may be."""
    agents = [Body(f"agent, {size} MB", _brief(bodies.agent(size * 1_000_000))) for size in (1, 4, 16)]
    return [*agents, Body(f"image, {_IMAGE // 1_000_000} MB", image(_IMAGE))]


def _brief(body: bytes) -> bytes:
    """The same request for a short answer."""
    return orjson.dumps({**orjson.loads(body), "max_tokens": _TOKENS})


def image(size: int) -> bytes:
    """A request with one image of about `size` bytes of base64, the same for the same size."""
    data = b64encode(Random(4).randbytes(size * 3 // 4)).decode()  # noqa: S311 - repeatable, not secret
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is wrong in this picture?"}]
    message = {"role": "user", "content": content}
    return orjson.dumps({"model": "bench", "max_tokens": _TOKENS, "stream": True, "messages": [message]})


class Ticker:
    """Notes the longest time between two turns of the loop, while a `with` lasts. `at` is when it began."""

    def __init__(self, clock: Clock = perf_counter) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.longest = 0.0
        self.at = 0.0

    def __enter__(self) -> "Ticker":
        self._last = self._clock()
        self._handle = self._loop.call_soon(self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()
        self._note()

    def _tick(self) -> None:
        self._note()
        self._handle = self._loop.call_soon(self._tick)

    def _note(self) -> None:
        now = self._clock()
        if now - self._last > self.longest:
            self.longest, self.at = now - self._last, self._last
        self._last = now


class _Client:
    """Asks an application as a server does, and notes when the first token comes."""

    def __init__(self, data: bytes, clock: Clock) -> None:
        self._pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self._length = len(data)
        self._taken = 0
        self._answer = bytearray()
        self._complete = asyncio.Event()
        self._clock = clock
        self._first: float | None = None

    async def ask(self, app: App) -> float:
        """When the first token came of the answer, which is over. Raises AssertionError when there is none."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "query_string": b"",
            "headers": [*_HEADERS, (b"content-length", b"%d" % self._length)],
        }
        await app(scope, self._receive, self._send)
        if self._first is None:
            raise AssertionError(f"no token came: {bytes(self._answer[:500])!r}")
        return self._first

    async def _receive(self) -> dict[str, Any]:
        if self._taken == len(self._pieces):
            await self._complete.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        piece, self._pieces[self._taken] = self._pieces[self._taken], b""  # a server keeps none either
        self._taken += 1
        return {"type": "http.request", "body": piece, "more_body": self._taken < len(self._pieces)}

    async def _send(self, message: dict[str, Any]) -> None:
        self._answer += message.get("body", b"")
        if self._first is None and _FIRST in self._answer:
            self._first = self._clock()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._complete.set()


async def once(app: App, body: Body, clock: Clock = perf_counter) -> Hold:
    """One request to `app`, answered to its end; then as long without one."""
    client = _Client(body.data, clock)
    gc.collect()
    began = clock()
    with Ticker(clock) as ticker:
        total = await client.ask(app) - began
    with Ticker(clock) as quiet:
        await asyncio.sleep(total)
    return Hold(body, ticker.longest, ticker.longest, ticker.at - began, total, quiet.longest)


def best(holds: Sequence[Hold]) -> Hold:
    """The one with the shortest hold, and the shortest gap of any without a request."""
    usual = statistics.median(hold.longest for hold in holds)
    return replace(min(holds, key=lambda hold: hold.longest), usual=usual, alone=min(hold.alone for hold in holds))


async def _measure(url: str, chosen: Iterable[Body], repetitions: int) -> list[Hold]:
    engine = OpenAIEngine(Origin.parse(url))
    await engine.start()
    app = MessagesApp(engine)
    try:
        return [best([await once(app, body) for _ in range(repetitions)]) for body in chosen]
    finally:
        await engine.stop()


def measure(url: str, chosen: Iterable[Body] | None = None, repetitions: int = _REPETITIONS) -> list[Hold]:
    """Every request in front of the scripted engine at `url`, best of so many `repetitions`, on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(url, requests() if chosen is None else chosen, repetitions))


def show(holds: Iterable[Hold]) -> None:
    """Print the table."""
    heads = ("longest hold", "median", "began at", "first token", "no request")
    print(f"{'request, times in ms':<20} {'bytes':>12} " + " ".join(f"{head:>12}" for head in heads))
    for hold in holds:
        times = (hold.longest, hold.usual, hold.at, hold.total, hold.alone)
        cells = " ".join(f"{seconds * 1e3:>12.2f}" for seconds in times)
        missed = "" if hold.longest <= BAR else "   missed"
        print(f"{hold.body.name:<20} {len(hold.body.data):>12,} {cells}{missed}", flush=True)


# from the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--repetitions", type=positive, default=_REPETITIONS, metavar="N", help="best of N (default 7)")
    parser.add_argument("--only", metavar="SUBSTRING", default="", help="only requests that have this in their name")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the results there too, a JSON line each")


def main(options: argparse.Namespace) -> int:
    """Measure, print, write. The exit status is 2 when nothing was chosen."""
    chosen = [body for body in requests() if options.only in body.name]
    if not chosen:
        print(f"nothing has {options.only!r} in its name", file=sys.stderr)
        return 2
    with serving((sys.executable, "-m", "bench.scripted")) as (url, _):
        holds = measure(f"{url}/v1", chosen, options.repetitions)
    show(holds)
    if options.out is not None:
        options.out.write_text("".join(json.dumps(hold.record()) + "\n" for hold in holds))
    return 0


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m bench.hold", description="How long one request holds the loop.")
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
