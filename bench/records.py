"""Result files: JSON lines, each an object with a `kind`. The classes below are the format, for writing and reading.

Only values that were measured side by side may be compared. So `Records` knows the session of each record: a session
begins with a file, and again with each `env` record in it.
"""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from anthro_asgi.bench.records import Load, Percentiles

DIRECT: Final = "direct"  # the server name of the engine itself, measured without any server in between
CHECKOUT: Final = Path(__file__).resolve().parents[1]

Number = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Record(Struct, tag_field="kind", tag=str.lower):
    """A line of a result file. Its `kind` is the name of the class."""


class Env(Record):
    """The machine, the commit and the versions of a session."""

    date: str = ""
    commit: str | None = None
    python: str = ""
    cpu: str = ""
    cores: Count | None = None
    kernel: str = ""
    versions: dict[str, str] = {}


class Micro(Record):
    """One operation and its floor in nanoseconds; `bar` is the highest ratio that is allowed."""

    group: str
    name: str
    ns: Number
    floor: str
    floor_ns: Number
    ratio: Number
    bar: Number | None = None


class Run(Record):
    """One server under one load in one round. `rate` is tokens/s of each stream, None for as fast as possible.

    `windows` are microseconds of CPU per token, or per request, in each second of a round in which all servers were at
    work at the same time; then `round` is the number of the batch.
    """

    run: str
    server: str
    label: str
    round: Count
    streams: Count
    rate: Number | None
    load: Load
    version: str | None = None
    windows: tuple[Number, ...] = ()


class Missing(Record):
    """A server that could not be measured, and why."""

    server: str
    why: str


class Grammar(Record):
    """The rules of the Messages stream grammar that a server's stream breaks."""

    server: str
    faults: tuple[str, ...]


class Conformance(Record):
    """Rules of the conformance suite's profile `gateway`: how many a server keeps of those that apply to it."""

    server: str
    passed: Count
    judged: Count
    broken_musts: Count


class Start(Record):
    """Seconds from the start of a server's process to its first answer."""

    server: str
    seconds: Number


class Memory(Record):
    """KiB of resident memory per open stream, and MiB of the idle server."""

    server: str
    streams: Count
    rss_kib_per_stream: Number
    idle_mib: Number | None = None


class Fairness(Record):
    """Inter-token latency of slow streams, alone and beside one stream that is never paced."""

    server: str
    slow_streams: Count
    alone: Percentiles
    beside: Percentiles
    fast_tokens_per_s: Number = 0.0
    round: Count = 0


class Asgi(Record):
    """Microseconds of CPU per token of an application without upstream; `name` is `raw` or `simulated`."""

    name: str
    cpu_us_per_token: Number
    round: Count = 0


class Hold(Record):
    """Seconds for which one request blocked the event loop: see `tests.checks.stall`."""

    body_bytes: Count
    longest_s: Number
    name: str = ""
    median_s: Number = 0.0
    at_s: Number = 0.0
    total_s: Number = 0.0
    alone_s: Number = 0.0


class Pauses(Record):
    """Latencies with this many open streams; `collection_s` is the longest garbage collection of the service.

    `cpu_us_per_token` is that of the service while all streams are open.
    """

    server: str
    streams: Count
    transit: Percentiles
    ttft: Percentiles
    collection_s: Number | None = None
    cpu_us_per_token: Number | None = None


R = TypeVar("R", bound=Record)
KINDS: Final = {str(one.__struct_config__.tag): one for one in Record.__subclasses__()}


def json_line(record: Record) -> bytes:
    """The record as a line of a result file."""
    return msgspec.json.encode(record) + b"\n"


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


class _Line(Struct):
    kind: str


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
        kind = msgspec.json.decode(line, type=_Line).kind
        if kind in KINDS:
            records.add(msgspec.json.decode(line, type=KINDS[kind]))
        else:
            records.others[kind] += 1
    except msgspec.MsgspecError as exc:
        raise RecordError(f"{where}: {exc}") from exc
