"""What message batches cost: their throughput, and what they do to the clients beside them.

Throughput: a batch against a closed loop of as many connections as the batch has slots, both on a simulated engine that
is so fast that the CPU is the limit. The time of the batch is that between its `created_at` and its `ended_at`.

First token: streams of clients at a fixed rate, without a batch and beside one, by turns, with the default number of
slots for batches, on a simulated engine with the speed of a GPU.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from datetime import datetime
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final
from urllib.parse import urlsplit

from anthro_asgi.bench.client import Connection, Ending

from .process import serving

_THROUGHPUT: Final = 0.9  # at least, of a closed loop
_FIRST_TOKEN: Final = 1.1  # at most, times that without a batch
_RATE: Final = 25  # streams of clients per second
_REQUEST: Final = {"model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": "Say a word."}]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=10_000, help="of the batch and of the closed loop")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of streams, in each of the four turns")


def main(options: argparse.Namespace) -> int:
    """Measure and print; exit status 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as folder:
        fast = ("20ms", "1ms", "8", "--batch-concurrency", str(options.concurrency))
        with serving(_command(Path(folder) / "fast.db", *fast)) as (url, _):
            share = asyncio.run(_throughput(url, options.requests, options.concurrency))
        with serving(_command(Path(folder) / "gpu.db", "100ms", "10ms", "40")) as (url, _):
            times = asyncio.run(_beside(url, options.requests, options.seconds))
    missed = share < _THROUGHPUT or times > _FIRST_TOKEN
    print(f"bars: batch at least {_THROUGHPUT}, first token at most {_FIRST_TOKEN}: {'MISSED' if missed else 'kept'}")
    return int(missed)


def _command(store: Path, ttft: str, itl: str, tokens: str, *options: str) -> list[str]:
    command = [sys.executable, "-m", "anthro_asgi", "serve", "--simulate", "--port", "0", "--log-level", "warning"]
    command += ["--simulate-ttft", ttft, "--simulate-itl", itl, "--simulate-output-tokens", tokens]
    return [*command, "--batch-store", str(store), *options]


async def _throughput(url: str, requests: int, concurrency: int) -> float:
    """That of a batch, as a share of that of a closed loop."""
    loop = await _closed_loop(url, requests, concurrency)
    batch = requests / await _batch_seconds(url, requests)
    print(f"closed loop  {loop:7.0f} requests/s with {concurrency} connections")
    print(f"batch        {batch:7.0f} requests/s with {concurrency} slots: {batch / loop:.2f} of it")
    return batch / loop


async def _beside(url: str, requests: int, seconds: float) -> float:
    """The 99th percentile of the time to the first token beside a batch, as a multiple of that without one."""
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(2):
        alone += await _first_tokens(url, seconds)
        running = await asyncio.to_thread(_submit, url, requests)
        beside += await _first_tokens(url, seconds)
        batch = await asyncio.to_thread(_call, f"{url}/v1/messages/batches/{running}/cancel", b"")
        assert batch["processing_status"] == "canceling", "the batch ended before the streams did"
    without, with_batch = _p99(alone), _p99(beside)
    print(
        f"first token  p99 {without:.2f} ms without a batch, {with_batch:.2f} ms beside one: {with_batch / without:.2f}"
    )
    return with_batch / without


# clients


class _Call:
    """One request on a connection. `first` and `end` are resolved with the clock readings in nanoseconds."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.done: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def headed(self, status: int, content_type: bytes) -> None:
        assert status == 200, status

    def took(self, data: bytes, now: int) -> None:
        if self.first is None and b"content_block_delta" in data:
            self.first = now

    def ended(self, ending: Ending, now: int) -> None:
        self.done.set_result(ending)


def _request(url: str, *, stream: bool) -> bytes:
    body = json.dumps({**_REQUEST, "stream": stream}).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def _connect(url: str) -> Connection:
    at = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, at.hostname or "", at.port or 80)
    return connection


async def _closed_loop(url: str, requests: int, concurrency: int) -> float:
    """Requests per second."""
    request = _request(url, stream=False)
    left = iter(range(requests))

    async def client() -> None:
        connection = await _connect(url)
        for _ in left:
            call = _Call()
            connection.ask(request, call)
            assert await call.done == "complete"
        connection.abort()

    began = monotonic_ns()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return requests / (monotonic_ns() - began) * 1e9


async def _first_tokens(url: str, seconds: float) -> list[float]:
    """Milliseconds to the first token of each stream."""
    request = _request(url, stream=True)
    found: list[float] = []

    async def client() -> None:
        connection = await _connect(url)
        call = _Call()
        began = monotonic_ns()
        connection.ask(request, call)
        assert await call.done == "complete"
        assert call.first is not None
        found.append((call.first - began) / 1e6)
        connection.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(int(seconds * _RATE)):
            group.create_task(client())
            await asyncio.sleep(1 / _RATE)
    return found


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


# batches


async def _batch_seconds(url: str, requests: int) -> float:
    identity = await asyncio.to_thread(_submit, url, requests)
    while True:
        batch = await asyncio.to_thread(_call, f"{url}/v1/messages/batches/{identity}")
        if batch["processing_status"] == "ended":
            assert batch["request_counts"]["succeeded"] == requests, batch
            begin, end = (datetime.fromisoformat(batch[name]) for name in ("created_at", "ended_at"))
            return (end - begin).total_seconds()
        await asyncio.sleep(0.25)


def _submit(url: str, requests: int) -> str:
    entries = [{"custom_id": f"r{at}", "params": _REQUEST} for at in range(requests)]
    identity: str = _call(f"{url}/v1/messages/batches", json.dumps({"requests": entries}).encode())["id"]
    return identity


def _call(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(url, body, timeout=60) as response:  # noqa: S310 - a service of this bench
        return json.loads(response.read())
