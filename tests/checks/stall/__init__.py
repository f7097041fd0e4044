"""`python -m bench hold`: the longest time for which one request blocks the event loop.

While the loop is blocked, no token of another stream is read or sent: every client waits for one client's long prompt.
The whole service is measured, from the first byte of the body to the end of a short answer: the application with the
engine for OpenAI-compatible upstreams, on uvloop, in front of a scripted engine in its own process. The body arrives as
a server passes it on, in pieces of 64 KiB, one per event loop iteration.

A ticker runs in every iteration and keeps the longest gap between two of its runs. A gap may be the machine's, so the
best of several repetitions counts. Beside it are the median, and the longest gap in equal time without a request.
"""

import argparse
import asyncio
import gc
import statistics
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final

import orjson
import uvloop
from msgspec import structs

from anthro_asgi import MessagesApp
from anthro_asgi.bench.options import positive
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from bench import bodies
from bench.process import serving
from bench.records import Hold, json_line

BAR: Final = 0.005  # seconds
_PIECE: Final = 64 * 1024
_TOKENS: Final = 4
_REPETITIONS: Final = 7
_IMAGE: Final = 31_000_000
_HEADERS: Final = ((b"host", b"localhost"), (b"content-type", b"application/json"))

App = Callable[..., Any]
Clock = Callable[[], float]


def requests() -> dict[str, bytes]:
    """The measured bodies by name: agents after a long conversation, and one image of the largest allowed size."""
    agents = {f"agent, {size} MB": _brief(bodies.agent(size * 1_000_000)) for size in (1, 4, 16)}
    return {**agents, f"image, {_IMAGE // 1_000_000} MB": image(_IMAGE)}


def _brief(body: bytes) -> bytes:
    """The same request with a short answer."""
    return orjson.dumps({**orjson.loads(body), "max_tokens": _TOKENS})


def image(size: int) -> bytes:
    """A request with one image of about `size` bytes of base64, the same for the same size."""
    data = b64encode(Random(4).randbytes(size * 3 // 4)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is wrong in this picture?"}]
    message = {"role": "user", "content": content}
    return orjson.dumps({"model": "bench", "max_tokens": _TOKENS, "stream": True, "messages": [message]})


class Ticker:
    """The longest time between two event loop iterations inside the `with` block, and when it began (`at`)."""

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
    """Calls an application as a server does, and notes when the first token is sent."""

    def __init__(self, data: bytes, clock: Clock) -> None:
        self._pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self._length = len(data)
        self._taken = 0
        self._answer = bytearray()
        self._complete = asyncio.Event()
        self._clock = clock
        self._first: float | None = None

    async def ask(self, app: App) -> float:
        """The time of the first token of a complete answer. Raises AssertionError when there is none."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "query_string": b"",
            "headers": [*_HEADERS, (b"content-length", b"%d" % self._length)],
        }
        await app(scope, self._receive, self._send)
        if self._first is None:
            raise AssertionError(f"no token was sent: {bytes(self._answer[:500])!r}")
        return self._first

    async def _receive(self) -> dict[str, Any]:
        if self._taken == len(self._pieces):
            await self._complete.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        piece, self._pieces[self._taken] = self._pieces[self._taken], b""  # a server does not keep it either
        self._taken += 1
        return {"type": "http.request", "body": piece, "more_body": self._taken < len(self._pieces)}

    async def _send(self, message: dict[str, Any]) -> None:
        self._answer += message.get("body", b"")
        if self._first is None and b"content_block_delta" in self._answer:
            self._first = self._clock()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._complete.set()


async def once(app: App, name: str, body: bytes, clock: Clock = perf_counter) -> Hold:
    """One request to `app`, answered to its end; then the same time without one."""
    client = _Client(body, clock)
    gc.collect()
    began = clock()
    with Ticker(clock) as ticker:
        total = await client.ask(app) - began
    with Ticker(clock) as quiet:
        await asyncio.sleep(total)
    return Hold(len(body), ticker.longest, name, ticker.longest, ticker.at - began, total, quiet.longest)


def best(holds: Sequence[Hold]) -> Hold:
    """The repetition with the shortest hold, with the median hold, and the shortest gap without a request."""
    usual = statistics.median(hold.longest_s for hold in holds)
    return structs.replace(
        min(holds, key=lambda hold: hold.longest_s), median_s=usual, alone_s=min(hold.alone_s for hold in holds)
    )


async def _measure(url: str, chosen: dict[str, bytes], repetitions: int) -> list[Hold]:
    engine = OpenAIEngine(Origin.parse(url))
    await engine.start()
    app = MessagesApp(engine)
    try:
        return [best([await once(app, name, body) for _ in range(repetitions)]) for name, body in chosen.items()]
    finally:
        await engine.stop()


def show(holds: Iterable[Hold]) -> None:
    """Print the table."""
    heads = ("longest hold", "median", "began at", "first token", "no request")
    print(f"{'request, times in ms':<20} {'bytes':>12} " + " ".join(f"{head:>12}" for head in heads))
    for hold in holds:
        times = (hold.longest_s, hold.median_s, hold.at_s, hold.total_s, hold.alone_s)
        cells = " ".join(f"{seconds * 1e3:>12.2f}" for seconds in times)
        missed = "" if hold.longest_s <= BAR else "   missed"
        print(f"{hold.name:<20} {hold.body_bytes:>12,} {cells}{missed}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--repetitions", type=positive, default=_REPETITIONS, metavar="N", help="best of N (default 7)")
    parser.add_argument("--only", metavar="SUBSTRING", default="", help="only requests whose name contains this")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the results to FILE too, as JSON lines")


def main(options: argparse.Namespace) -> int:
    """The exit status is 2 when no request was chosen."""
    chosen = {name: body for name, body in requests().items() if options.only in name}
    if not chosen:
        print(f"no request contains {options.only!r} in its name", file=sys.stderr)
        return 2
    with serving((sys.executable, "-m", "bench.scripted")) as (url, _):
        holds = uvloop.run(_measure(f"{url}/v1", chosen, options.repetitions))
    show(holds)
    if options.out is not None:
        options.out.write_bytes(b"".join(map(json_line, holds)))
    return 0
