"""Made-up records, only for looking at a report and for testing it: no number here was ever measured."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

Line = dict[str, Any]

ROUNDS = 7
SERVERS = {  # label, version, CPU per token paced and saturated (µs), what a token and the first one take longer (s)
    "relay": ("byte relay (asyncio, uvloop)", "", 27.0, 6.0, 35e-6, 90e-6),
    "nginx": ("nginx proxy_pass", "nginx 1.22.1", 25.0, 5.2, 31e-6, 110e-6),
    "ours-fast": ("anthro-asgi, fast", "0.1.0", 45.0, 12.6, 71e-6, 640e-6),
    "ours-h11": ("anthro-asgi, h11 + asyncio", "0.1.0", 92.0, 33.0, 160e-6, 1100e-6),
    "ccr": ("claude-code-router core", "1.0.43", 210.0, 88.0, 420e-6, 5200e-6),
    "litellm": ("LiteLLM proxy", "1.80.0", 5200.0, 2900.0, 9800e-6, 48e-3),
}
SHARES = {"p50": 1.0, "p90": 1.7, "p99": 6.0, "p99.9": 15.0, "max": 40.0}


def percentiles(base: float, more: float = 0.0) -> Line:
    """A tail that grows with the percentile, in seconds."""
    return {name: base * share + more * share**0.6 for name, share in SHARES.items()} | {"n": 1000}


def load(cpu: float | None, *, transit: float = 0.0, ttft: float = 0.0, errors: Line | None = None) -> Line:
    """A summary of the load generator: `cpu` in µs a token, latencies as seconds on top of the engine's."""
    server = None if cpu is None else {"cpu_s": 1.0, "cpu_us_per_token": cpu, "rss_mib": 60.0, "rss_peak_mib": 61.0}
    return {
        "kind": "load",
        "url": "http://127.0.0.1:8484",
        "requests": 640,
        "ok": 640,
        "errors": errors or {},
        "tokens": 40960,
        "tokens_per_s": 900_000.0 / cpu if cpu else 3200.0,
        "ttft": percentiles(0.9e-3, ttft),
        "itl": percentiles(20e-3),
        "transit": percentiles(95e-6, transit),
        "server": server,
        "client": {"cpu_s": 0.2, "cpu_us_per_token": 3.9},
    }


def run(server: str, kind: str, number: int, summary: Line, *, streams: int = 64, rate: float | None = None) -> Line:
    """A "peer" record."""
    label, version = SERVERS[server][:2] if server in SERVERS else (server, "")
    place = {"round": number, "streams": streams, "rate": rate, "version": version}
    return {"kind": "peer", "run": kind, "server": server, "label": label, "load": summary, **place}


def direct(kind: str, number: int, summary: Line, *, streams: int = 64, rate: float | None = None) -> Line:
    """The engine itself."""
    line = run("direct", kind, number, summary, streams=streams, rate=rate)
    return line | {"kind": "direct", "label": "the engine itself", "version": None}


def micro(group: str, name: str, ratio: float, bar: float | None, floor: str = "orjson.loads of the chunk") -> Line:
    """A "micro" record."""
    floor_ns = 1150.0
    cost = {"ns": ratio * floor_ns, "floor_ns": floor_ns, "ratio": ratio}
    return {"kind": "micro", "group": group, "name": name, "floor": floor, "bar": bar, **cost}


def environment() -> Line:
    """An "env" record."""
    versions = {"uvicorn": "0.38.0", "h11": "0.16.0", "orjson": "3.11.4", "httptools": "0.7.1", "uvloop": "0.22.1"}
    commit = "db80082f00ba4c5d9a51d9f0c2a3e4b5c6d7e8f9"
    where = {"python": "3.11.7", "cpu": "A Processor @ 2.50GHz", "cores": 2, "kernel": "6.1.0", "versions": versions}
    return {"kind": "env", "date": "2026-11-24T12:00:00+00:00", "commit": commit, **where}


def runs(chance: random.Random) -> list[Line]:
    """Rounds in which a busy machine makes everybody dearer together."""
    lines = []
    for number in range(ROUNDS):
        busy = chance.uniform(0.9, 1.5)
        lines.append(direct("paced", number, load(None), rate=50.0))
        lines.append(direct("saturated", number, load(3.0 * busy), streams=4))
        lines.append(direct("ttft", number, load(None), streams=1))
        for server, (_, _, paced, saturated, transit, ttft) in SERVERS.items():
            own = busy * chance.uniform(0.96, 1.04)
            slow = load(paced * own, transit=transit * own, ttft=ttft * own)
            lines.append(run(server, "paced", number, slow, rate=50.0))
            lines.append(run(server, "saturated", number, load(saturated * own), streams=4))
            lines.append(run(server, "ttft", number, load(paced * 20, ttft=ttft * own / 2), streams=1))
    return lines


def operations() -> list[Line]:
    """Of the groups that `bench micro` has."""
    texts, body = "orjson.dumps of the text", "orjson.loads of the body"
    styles = ("vllm", "llamacpp", "openai")
    return [
        micro("encoder", "text(str)", 2.6, 3.0, texts),
        micro("encoder", "feed(list of 8)", 2.2, None, texts),
        micro("encoder", "slow oracle", 6.4, None, texts),
        *(micro("conversion", f"text, steady state, {style}", 0.81, 1.0) for style in styles),
        *(micro("conversion", f"text, 8 events a read, {style}", 0.55, 1.0) for style in styles),
        micro("conversion", "tool arguments, vllm", 2.34, 2.0),
        micro("conversion", "thinking, vllm", 1.4, 2.0),
        micro("conversion", "stop sequences active, vllm", 1.9, 2.0),
        micro("request", "check and convert, hello", 4.1, None, body),
        micro("request", "check and convert, agent of 1 MB", 1.7, 2.0, body),
    ]


def costs(chance: random.Random) -> list[Line]:
    """Against the number of streams."""
    found = []
    for server, cost in (("relay", 27.0), ("ours-fast", 44.0), ("ours-h11", 90.0)):
        for index, streams in enumerate((10, 100, 1000)):
            cpu = cost * (1 + 0.06 * index) * chance.uniform(0.98, 1.02)
            found.append({"kind": "streams", "server": server, "streams": streams, "cpu_us_per_token": cpu})
    return found


def memory() -> list[Line]:
    """Of us, with few and with many streams."""
    return [
        {
            "kind": "memory",
            "server": "ours-fast",
            "streams": streams,
            "rss_kib_per_stream": kib,
            "errors": {},
            "ok": streams,
        }
        for streams, kib in ((500, 38.5), (8000, 33.1))
    ]


def fairness() -> list[Line]:
    """In two rounds."""
    servers = (("direct", 20e-6), ("relay", 60e-6), ("ours-fast", 300e-6))
    return [
        {"kind": "fairness", "server": server, "slow_streams": 63, "round": number}
        | {"alone": percentiles(20e-3, 40e-6), "beside": percentiles(20e-3, more * (number + 1))}
        for number in range(2)
        for server, more in servers
    ]


def sample() -> list[Line]:
    """One session with everything in it."""
    chance = random.Random(4)
    return [
        environment(),
        *operations(),
        *runs(chance),
        {"kind": "missing", "server": "nginx-quic", "why": "no such package in this system's package lists"},
        {"kind": "missing", "server": "litellm", "why": "saturated, round 5: hangs: the load was not over after 54 s"},
        *({"kind": "grammar", "server": server, "faults": []} for server in ("ours-fast", "ours-h11")),
        {
            "kind": "grammar",
            "server": "ccr",
            "faults": ["message_stop: two of them", "content_block_stop without start"],
        },
        {"kind": "grammar", "server": "litellm", "faults": ["usage: output_tokens is missing in message_delta"]},
        *costs(chance),
        *memory(),
        *fairness(),
        *({"kind": "asgi", "name": name, "cpu_us_per_token": cpu} for name, cpu in (("raw", 9.0), ("simulated", 11.0))),
        {"kind": "hold", "body_bytes": 1_000_000, "longest_s": 0.0072},
    ]


def write(path: Path, lines: Sequence[Line]) -> Path:
    """A result file."""
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path
