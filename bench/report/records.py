"""What was measured, read from result files: JSON lines, every line an object with a "kind".

Only numbers that were taken side by side may be compared, so each record knows its session: a session begins with a
file, and again with each "env" record in it. Nothing here computes; see `figures`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from .fields import Fields, Percentiles, RecordError

DIRECT: Final = "direct"  # the name of the engine itself, without any server between


@dataclass(frozen=True, slots=True)
class Env:
    """The machine and the versions of a session."""

    session: int
    date: str
    commit: str
    python: str
    cpu: str
    cores: str
    kernel: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Micro:
    """One operation against its floor, both in nanoseconds; `bar` is the ratio it may have."""

    session: int
    group: str
    name: str
    ns: float
    floor: str
    floor_ns: float
    ratio: float
    bar: float | None


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator saw. Percentiles are seconds, CPU is microseconds a token, None where none was seen."""

    requests: int
    errors: dict[str, int]
    tokens_per_s: float
    ttft: Percentiles
    itl: Percentiles
    transit: Percentiles
    server_cpu: float | None
    client_cpu: float | None

    @property
    def failed(self) -> int:
        """Requests that did not end well."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Run:
    """One server under one load in one round."""

    session: int
    run: str
    server: str
    label: str
    round: int
    streams: int
    rate: float | None
    version: str
    load: Load


@dataclass(frozen=True, slots=True)
class Missing:
    """A peer that could not be measured, and why."""

    server: str
    why: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the grammar checker said of a server's stream: nothing, if all is well."""

    server: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU per token, in microseconds, with so many streams open."""

    session: int
    round: int
    server: str
    streams: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Memory:
    """KiB of resident set for each open stream; `errors` is None when the run did not count them."""

    session: int
    server: str
    streams: int
    kib: float
    errors: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class Fairness:
    """Inter-token latency of slow streams, in seconds: alone, and beside a stream as fast as it can be."""

    server: str
    slow_streams: int
    alone: Percentiles
    beside: Percentiles


@dataclass(frozen=True, slots=True)
class Asgi:
    """CPU per token, in microseconds, of an application without an upstream: "raw" or "simulated"."""

    session: int
    round: int
    name: str
    cpu: float


@dataclass(frozen=True, slots=True)
class Hold:
    """The longest time, in seconds, that one request with such a body held the event loop."""

    body_bytes: int
    longest: float


Record = Env | Micro | Run | Missing | Grammar | Cost | Memory | Fairness | Asgi | Hold
R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class Records:
    """All that was read, in its order; `others` counts the lines of kinds that no report shows."""

    found: list[Record] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    sessions: int = 0

    def of(self, kind: type[R]) -> list[R]:
        """The records of one class."""
        return [record for record in self.found if isinstance(record, kind)]

    def add(self, line: Fields) -> None:
        """Take in one line. Raises RecordError when it does not say what its kind must say."""
        kind = line.text("kind")
        self.sessions += kind == "env"
        if kind in _KINDS:
            self.found.append(_KINDS[kind](line, self.sessions))
        else:
            self.others[kind] += 1


def read(paths: Iterable[Path]) -> Records:
    """All lines of all files. Raises OSError, and RecordError that names the file and the line."""
    records = Records()
    for path in paths:
        records.sessions += 1
        for line in _lines(path):
            records.add(line)
    return records


def _lines(path: Path) -> Iterator[Fields]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise RecordError(f"{path.name}: not UTF-8: {exc.reason}") from exc
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield Fields.parse(line, f"{path.name}:{number}")


def _env(line: Fields, session: int) -> Env:
    says = {name: line.plain(name) for name in ("date", "commit", "python", "cpu", "cores", "kernel")}
    return Env(session, **says, versions=line.words("versions"))


def _micro(line: Fields, session: int) -> Micro:
    return Micro(
        session,
        line.text("group"),
        line.text("name"),
        line.number("ns"),
        line.text("floor"),
        line.number("floor_ns"),
        line.number("ratio"),
        line.maybe("bar"),
    )


def _peer(line: Fields, session: int) -> Run:
    server = line.text("server")
    return _run(line, session, server, line.plain("label") or server)


def _direct(line: Fields, session: int) -> Run:
    return _run(line, session, DIRECT, line.plain("label") or "the engine directly")


def _run(line: Fields, session: int, server: str, label: str) -> Run:
    streams, rate = line.count("streams"), line.maybe("rate")
    version = line.plain("version")
    load = _load(line.inner("load"))
    return Run(session, line.text("run"), server, label, line.count("round"), streams, rate or None, version, load)


def _load(load: Fields) -> Load:
    server, client = load.maybe_inner("server"), load.maybe_inner("client")
    return Load(
        requests=load.count("requests"),
        errors=load.counts("errors"),
        tokens_per_s=load.number("tokens_per_s"),
        ttft=load.percentiles("ttft"),
        itl=load.percentiles("itl"),
        transit=load.percentiles("transit"),
        # a cost of nothing is a meter that saw nothing
        server_cpu=(server.maybe("cpu_us_per_token") or None) if server else None,
        client_cpu=(client.maybe("cpu_us_per_token") or None) if client else None,
    )


def _missing(line: Fields, session: int) -> Missing:
    return Missing(line.text("server"), line.text("why"))


def _grammar(line: Fields, session: int) -> Grammar:
    return Grammar(line.text("server"), line.texts("faults"))


def _cost(line: Fields, session: int) -> Cost:
    cpu = line.positive("cpu_us_per_token")
    return Cost(session, line.count("round", 0), line.text("server"), line.count("streams"), cpu)


def _memory(line: Fields, session: int) -> Memory:
    errors = line.counts("errors") if line.has("errors") else None
    kib = line.number("rss_kib_per_stream")
    return Memory(session, line.text("server"), line.count("streams"), kib, errors)


def _fairness(line: Fields, session: int) -> Fairness:
    alone, beside = line.percentiles("alone"), line.percentiles("beside")
    return Fairness(line.text("server"), line.count("slow_streams"), alone, beside)


def _asgi(line: Fields, session: int) -> Asgi:
    return Asgi(session, line.count("round", 0), line.text("name"), line.positive("cpu_us_per_token"))


def _hold(line: Fields, session: int) -> Hold:
    return Hold(line.count("body_bytes"), line.number("longest_s"))


_KINDS: Final[dict[str, Callable[[Fields, int], Record]]] = {
    "env": _env,
    "micro": _micro,
    "peer": _peer,
    "direct": _direct,
    "missing": _missing,
    "grammar": _grammar,
    "streams": _cost,
    "memory": _memory,
    "fairness": _fairness,
    "asgi": _asgi,
    "hold": _hold,
}
