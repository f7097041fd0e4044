"""The results of the load generator: a JSON line for each run, with `"kind": "load"`."""

from dataclasses import dataclass, field, fields
from typing import Any

import orjson

Percentiles = dict[str, float | None]
"""`mean`, `std`, `p50`, `p90`, `p95`, `p99`, `p99.9`, `max`, each None without a sample; `n`, the number of samples."""


@dataclass(slots=True)
class Goodput:
    """Good requests, which kept the service level objective `slo` (limits in seconds).

    `requests_per_s` is the goodput: good requests per second. `fraction` is their share of all requests.
    """

    slo: dict[str, float | None]
    requests_per_s: float | None
    fraction: float | None


@dataclass(slots=True)
class ServerCost:
    """CPU and resident memory of the measured processes."""

    cpu_s: float
    cpu_us_per_chunk: float | None
    rss_mib: float
    rss_peak_mib: float


@dataclass(slots=True)
class ClientCost:
    """CPU of the load generator."""

    cpu_s: float
    cpu_us_per_chunk: float | None


@dataclass(slots=True)
class Load:
    """The summary of one run of the load generator. Times are in seconds; `tally` says what each name means.

    `chunks` and `tokens` are those of the counted part; `input_tokens` and `output_tokens` are those of each request.
    `error_details` is what the first error of each kind said. `quantiles` holds 101 values for each of `ttft`, `icl`,
    `itl` and `e2e`: the smallest, the percentiles 1 to 99, and the largest.
    """

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
    requests_per_s: float | None
    chunks: int
    tokens: int
    tokens_per_s: float | None
    input_tokens: Percentiles
    output_tokens: Percentiles
    ttft: Percentiles
    icl: Percentiles
    itl: Percentiles
    e2e: Percentiles
    transit: Percentiles | None
    late: Percentiles | None
    goodput: Goodput | None
    server: ServerCost | None
    client: ClientCost
    error_details: dict[str, str] = field(default_factory=dict)
    quantiles: dict[str, list[float]] = field(default_factory=dict)
    label: str = ""
    workload: str = ""
    date: str = ""
    kind: str = "load"


_NESTED: dict[str, Any] = {"goodput": Goodput, "server": ServerCost, "client": ClientCost}


def load_from(line: bytes) -> Load:
    """The summary in a line that the load generator wrote. Raises ValueError."""
    value = orjson.loads(line)
    if not isinstance(value, dict) or value.get("kind") != "load":
        raise ValueError('not the summary of a load: no "kind": "load"')
    try:
        found = {one.name: value[one.name] for one in fields(Load)}
        return Load(**{**found, **{name: kind(**found[name]) for name, kind in _NESTED.items() if found[name]}})
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not the summary of a load: {type(exc).__name__}: {exc}") from exc
