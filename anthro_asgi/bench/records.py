"""The results of the load generator: a JSON line for each run, with `"kind": "load"`."""

from dataclasses import dataclass, fields
from typing import Any

import orjson

Percentiles = dict[str, float | None]
"""`p50`, `p90`, `p99`, `p99.9` and `max` in seconds, each None without a sample; `n` is the number of samples."""


@dataclass(slots=True)
class Goodput:
    """Requests that kept the service level objective `slo` (limits in seconds)."""

    slo: dict[str, float | None]
    requests_per_s: float | None
    fraction: float | None


@dataclass(slots=True)
class ServerCost:
    """CPU and resident memory of the measured processes."""

    cpu_s: float
    cpu_us_per_token: float | None
    rss_mib: float
    rss_peak_mib: float


@dataclass(slots=True)
class ClientCost:
    """CPU of the load generator."""

    cpu_s: float
    cpu_us_per_token: float | None


@dataclass(slots=True)
class Load:
    """The summary of one run of the load generator."""

    url: str
    api: str
    stream: bool
    concurrency: int | None
    rate: float | None
    requests: int
    ok: int
    errors: dict[str, int]
    unfinished: int
    seconds: float
    tokens: int
    tokens_per_s: float | None
    ttft: Percentiles
    itl: Percentiles
    e2e: Percentiles
    transit: Percentiles | None
    late: Percentiles | None
    goodput: Goodput | None
    server: ServerCost | None
    client: ClientCost
    kind: str = "load"


_NESTED: dict[str, Any] = {"goodput": Goodput, "server": ServerCost, "client": ClientCost}


def load_from(line: bytes) -> Load:
    """The summary in a line that the load generator wrote. Raises ValueError."""
    value = orjson.loads(line)
    if not isinstance(value, dict) or value.get("kind") != "load":
        raise ValueError('not the summary of a load: no "kind": "load"')
    try:
        found = {field.name: value[field.name] for field in fields(Load)}
        return Load(**{**found, **{name: kind(**found[name]) for name, kind in _NESTED.items() if found[name]}})
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not the summary of a load: {type(exc).__name__}: {exc}") from exc
