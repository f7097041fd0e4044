"""Result files: JSON lines, each an object with a `kind`. The classes below are the format, for writing and reading.

Only values that were measured side by side may be compared. So `Records` knows the session of each record: a session
begins with a file, and again with each `env` record in it.
"""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Final, Self, TypeVar, get_args, get_origin, get_type_hints

import orjson

DIRECT: Final = "direct"  # the server name of the engine itself, measured without any server in between
CHECKOUT: Final = Path(__file__).resolve().parents[1]

Percentiles = dict[str, float | None]
"""`p50`, `p90`, `p99`, `p99.9` and `max` in seconds, each None without a sample; `n` is the number of samples."""


@dataclass(frozen=True, slots=True)
class Env:
    """The machine, the commit and the versions of a session."""

    date: str = ""
    commit: str | None = None
    python: str = ""
    cpu: str = ""
    cores: int | None = None
    kernel: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Micro:
    """One operation and its floor in nanoseconds; `bar` is the highest ratio that is allowed."""

    group: str
    name: str
    ns: float
    floor: str
    floor_ns: float
    ratio: float
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that kept the service level objective `slo` (limits in seconds)."""

    slo: dict[str, float | None]
    requests_per_s: float | None
    fraction: float | None


@dataclass(frozen=True, slots=True)
class ServerCost:
    """CPU and resident memory of the measured processes."""

    cpu_s: float
    cpu_us_per_token: float | None
    rss_mib: float
    rss_peak_mib: float


@dataclass(frozen=True, slots=True)
class ClientCost:
    """CPU of the load generator."""

    cpu_s: float
    cpu_us_per_token: float | None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Run:
    """One server under one load in one round. `rate` is tokens/s of each stream, None for as fast as possible."""

    run: str
    server: str
    label: str
    round: int
    streams: int
    rate: float | None
    load: Load
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """A server that could not be measured, and why."""

    server: str
    why: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """The rules of the Messages stream grammar that a server's stream breaks."""

    server: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamCost:
    """Microseconds of CPU per token with this many open streams, at one total token rate."""

    server: str
    streams: int
    cpu_us_per_token: float
    round: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """KiB of resident memory per open stream; `errors` is None when the run did not count them."""

    server: str
    streams: int
    rss_kib_per_stream: float
    errors: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Fairness:
    """Inter-token latency of slow streams, alone and beside one stream that is never paced."""

    server: str
    slow_streams: int
    alone: Percentiles
    beside: Percentiles
    fast_tokens_per_s: float = 0.0
    round: int = 0


@dataclass(frozen=True, slots=True)
class Asgi:
    """Microseconds of CPU per token of an application without upstream; `name` is `raw` or `simulated`."""

    name: str
    cpu_us_per_token: float
    round: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Seconds for which one request blocked the event loop: see `tests.checks.stall`."""

    body_bytes: int
    longest_s: float
    name: str = ""
    median_s: float = 0.0
    at_s: float = 0.0
    total_s: float = 0.0
    alone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pauses:
    """Latencies with this many open streams; `collection_s` is the longest garbage collection of the service."""

    server: str
    streams: int
    transit: Percentiles
    ttft: Percentiles
    collection_s: float | None = None


Record = Env | Micro | Run | Missing | Grammar | StreamCost | Memory | Fairness | Asgi | Hold | Pauses
R = TypeVar("R", bound=Record)

KINDS: Final[dict[str, type[Record]]] = {
    "env": Env,
    "micro": Micro,
    "peer": Run,
    "direct": Run,
    "missing": Missing,
    "grammar": Grammar,
    "streams": StreamCost,
    "memory": Memory,
    "fairness": Fairness,
    "asgi": Asgi,
    "hold": Hold,
    "pauses": Pauses,
}
_NAMES: Final = {kind: name for name, kind in KINDS.items()}


def json_line(record: Record) -> bytes:
    """The record as a line of a result file."""
    kind = "peer" if isinstance(record, Run) and record.server != DIRECT else _NAMES[type(record)]
    return orjson.dumps({"kind": kind, **{one.name: getattr(record, one.name) for one in fields(record)}}) + b"\n"


class Records:
    """All records with their sessions, in order. `others` counts the lines of kinds that no report shows."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, Record]] = []
        self.others: Counter[str] = Counter()
        self._session = 0

    def of(self, kind: type[R]) -> list[R]:
        """The records of one class."""
        return [record for _, record in self.entries if isinstance(record, kind)]

    def begin_session(self) -> None:
        """Records that follow are not compared with those before."""
        self._session += 1

    def add(self, record: Record) -> None:
        if isinstance(record, Env):
            self.begin_session()
        self.entries.append((self._session, record))


class ResultFile(Records):
    """A new result file at `path`. Each record is written at once, so an interrupted run keeps what it measured."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, record: Record) -> None:
        super().add(record)
        self._file.write(json_line(record))
        self._file.flush()

    def missing(self, server: str, why: str) -> None:
        """Print and record that a server is not measured, or not to the end."""
        print(f"{server}: MISSING: {why}", flush=True)
        self.add(Missing(server, why))


def environment(versions: dict[str, str]) -> Env:
    """The current moment and machine. `versions` are those of the measured servers."""
    git = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        cpuinfo = []
    names = (line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name"))
    return Env(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit or None,
        python=platform.python_version(),
        cpu=next(names, platform.machine()),
        cores=os.cpu_count(),
        kernel=platform.release(),
        versions=versions,
    )


# reading


class RecordError(ValueError):
    """A line is not a valid record. The message names the file, the line and the field."""


def read(paths: Iterable[Path]) -> Records:
    """All records of all files. Raises OSError and RecordError."""
    records = Records()
    for path in paths:
        records.begin_session()
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if line.strip():
                _add(records, line, f"{path.name}:{number}")
    return records


def _add(records: Records, line: bytes, where: str) -> None:
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise RecordError(f"{where}: not JSON: {exc.msg}") from exc
    kind = _convert(_convert(data, dict[str, Any], where).get("kind"), str, f"{where}: 'kind'")
    if kind in KINDS:
        records.add(_convert(data, KINDS[kind], where))
    else:
        records.others[kind] += 1


def load_from(line: bytes) -> Load:
    """The summary in a line that the load generator wrote. Raises RecordError."""
    summary: Load = _convert(orjson.loads(line), Load, "load")
    return summary


_hints = cache(get_type_hints)


def _convert(value: Any, kind: Any, where: str) -> Any:
    """`value`, which JSON gave, as the annotated type `kind`. All numbers are finite and not negative."""
    if isinstance(kind, UnionType):
        return None if value is None else _convert(value, get_args(kind)[0], where)
    if is_dataclass(kind):
        return _build(kind, _convert(value, dict[str, Any], where), where)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _convert(item, get_args(kind)[1], f"{where}: {key!r}") for key, item in value.items()}
    if get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is Any or (kind in (str, bool) and isinstance(value, kind)):
        return value
    numeric = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if kind in (int, float) and numeric and isfinite(value) and value >= 0:
        return value
    raise RecordError(f"{where} must be {_WANTED[get_origin(kind) or kind]}, not {str(value)[:40]!r}")


_WANTED: Final = {
    dict: "an object",
    tuple: "a list of strings",
    str: "a string",
    bool: "true or false",
    int: "a whole number that is not negative",
    float: "a number that is not negative",
}


def _build(kind: Any, data: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    required = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    names = [name for name in hints if name in data or name in required]
    return kind(**{name: _convert(data.get(name), hints[name], f"{where}: {name!r}") for name in names})
