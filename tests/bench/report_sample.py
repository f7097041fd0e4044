"""Invented records for looking at a report and for testing it: nothing here was measured."""

import random
from collections.abc import Iterable
from pathlib import Path

from anthro_asgi.bench.records import ClientCost, Load, Percentiles, ServerCost
from bench.records import (
    DIRECT,
    Asgi,
    Conformance,
    Env,
    Fairness,
    Grammar,
    Hold,
    Memory,
    Micro,
    Missing,
    Pauses,
    Record,
    Run,
    Start,
    json_line,
)

ROUNDS = 7
SERVERS = {  # label, version, CPU per token paced and saturated (µs), added transit and TTFT (s)
    "relay": ("byte relay (asyncio, uvloop)", "", 27.0, 6.0, 35e-6, 90e-6),
    "nginx": ("nginx proxy_pass", "nginx 1.22.1", 25.0, 5.2, 31e-6, 110e-6),
    "ours-fast": ("anthro-asgi, fast", "0.1.0", 45.0, 12.6, 71e-6, 640e-6),
    "ours-h11": ("anthro-asgi, h11 + asyncio", "0.1.0", 92.0, 33.0, 160e-6, 1100e-6),
    "ccr": ("claude-code-router core", "1.0.43", 210.0, 88.0, 420e-6, 5200e-6),
    "litellm": ("LiteLLM proxy", "1.80.0", 5200.0, 2900.0, 9800e-6, 48e-3),
}
SHARES = {"mean": 1.2, "std": 0.3, "p50": 1.0, "p90": 1.7, "p95": 3.0, "p99": 6.0, "p99.9": 15.0, "max": 40.0}


def percentiles(base: float, more: float = 0.0) -> Percentiles:
    """Seconds that grow with the percentile."""
    return {name: base * share + more * share**0.6 for name, share in SHARES.items()} | {"n": 1000}


def load(cpu: float | None, *, transit: float = 0.0, ttft: float = 0.0, errors: dict[str, int] | None = None) -> Load:
    """`cpu` is in µs per token; latencies are seconds on top of the engine's."""
    return Load(
        url="http://127.0.0.1:8484",
        api="messages",
        stream=True,
        concurrency=64,
        rate=None,
        requests=640,
        ok=640,
        errors=errors or {},
        unfinished=0,
        seconds=40960 / (900_000.0 / cpu if cpu else 3200.0),
        requests_per_s=640.0,
        chunks=40960,
        tokens=40960,
        input_tokens=percentiles(16.0),
        output_tokens=percentiles(64.0),
        tokens_per_s=900_000.0 / cpu if cpu else 3200.0,
        ttft=percentiles(0.9e-3, ttft),
        icl=percentiles(20e-3),
        itl=percentiles(20e-3),
        e2e=percentiles(0.4),
        transit=percentiles(95e-6, transit),
        late=None,
        goodput=None,
        server=None if cpu is None else ServerCost(1.0, cpu, 60.0, 61.0),
        client=ClientCost(0.2, 3.9),
    )


def run(server: str, kind: str, number: int, summary: Load, *, streams: int = 64, rate: float | None = None) -> Run:
    """A record of one server in one round."""
    label, version = SERVERS[server][:2] if server in SERVERS else (server, "")
    return Run(kind, server, label, number, streams, rate, summary, version)


def direct(kind: str, number: int, summary: Load, *, streams: int = 64, rate: float | None = None) -> Run:
    """A record of the engine itself."""
    return Run(kind, DIRECT, "the engine itself", number, streams, rate, summary)


def micro(group: str, name: str, ratio: float, bar: float | None, floor: str = "orjson.loads of the chunk") -> Micro:
    return Micro(group, name, ratio * 1150.0, floor, 1150.0, ratio, bar)


def environment() -> Env:
    versions = {"uvicorn": "0.38.0", "h11": "0.16.0", "orjson": "3.11.4", "httptools": "0.7.1", "uvloop": "0.22.1"}
    commit = "db80082f00ba4c5d9a51d9f0c2a3e4b5c6d7e8f9"
    return Env("2026-11-24T12:00:00+00:00", commit, "3.11.7", "A Processor @ 2.50GHz", 2, "6.1.0", versions)


def runs(chance: random.Random) -> Iterable[Run]:
    """Rounds in which a busy machine makes all servers more expensive together."""
    for number in range(ROUNDS):
        busy = chance.uniform(0.9, 1.5)
        yield direct("paced", number, load(None), rate=50.0)
        yield direct("saturated", number, load(3.0 * busy), streams=4)
        yield direct("ttft", number, load(None), streams=1)
        for server, (_, _, paced, saturated, transit, ttft) in SERVERS.items():
            own = busy * chance.uniform(0.96, 1.04)
            yield run(server, "paced", number, load(paced * own, transit=transit * own, ttft=ttft * own), rate=50.0)
            yield run(server, "saturated", number, load(saturated * own), streams=4)
            yield run(server, "ttft", number, load(paced * 20, ttft=ttft * own / 2), streams=1)


def operations() -> list[Micro]:
    texts, body = "orjson.dumps of the text", "orjson.loads of the body"
    return [
        micro("encoder", "text(str)", 2.6, 3.0, texts),
        micro("encoder", "slow oracle", 6.4, None, texts),
        micro("conversion", "text, steady state, vllm", 0.81, 1.0),
        micro("conversion", "text, 8 events a read, vllm", 0.55, 1.0),
        micro("conversion", "tool arguments, vllm", 2.34, 2.0),
        micro("request", "check and convert, agent of 1 MB", 1.7, 2.0, body),
    ]


def sample() -> list[Record]:
    """One session with every kind of record."""
    chance = random.Random(4)
    slow = ((DIRECT, 20e-6), ("relay", 60e-6), ("ours-fast", 300e-6))
    return [
        environment(),
        *operations(),
        *runs(chance),
        Missing("nginx-quic", "no such package in this system's package lists"),
        Missing("litellm", "saturated, round 5: hangs: the load was not over after 54 s"),
        Grammar("ours-fast", ()),
        Grammar("ccr", ("message_stop: two of them", "content_block_stop without start")),
        *(Pauses("ours-fast", n, percentiles(1e-4), percentiles(1e-3), 0.001, 40 + n / 400) for n in (1, 64, 8000)),
        *(Memory(server, 256, kib, 40.0) for server, kib in (("nginx", 18.2), ("ours-fast", 33.1))),
        *(Start(server, seconds) for server, seconds in (("nginx", 0.02), ("ours-fast", 0.3))),
        Conformance("ours-fast", 44, 44, 0),
        Conformance("ccr", 21, 44, 16),
        *(Fairness(server, 63, percentiles(20e-3, 40e-6), percentiles(20e-3, more)) for server, more in slow),
        Asgi("raw", 9.0),
        Asgi("simulated", 11.0),
        Hold(1_000_000, 0.0072),
    ]


def write(path: Path, lines: Iterable[Record]) -> Path:
    """A result file."""
    path.write_bytes(b"".join(map(json_line, lines)))
    return path
