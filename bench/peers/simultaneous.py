"""All peers at work at the same time: what a token, a request and an open stream cost each of them.

A shared machine makes everything dearer for minutes, or for seconds. Here every server has its own streams, or its own
requests, at the same time as the others, and its CPU clock is read once per second. What a second cost one server is
divided by what the same second cost the byte relay, and nginx. Such ratios scatter by 3 to 10 per cent over the
windows, where those of turns taken one after the other scatter by 50.

Two cores bear about seven servers at once, so the peers are measured in batches. Each batch has the relay and nginx.
A peer that could not bear the rate beside others gets a part of it (`Peer.share`), from an engine of its own.

The tokens of one load are pieces of the arguments of a tool call instead of a text.

Staggered streams write at moments that are spread evenly; in lockstep all write at one moment, as in an engine that
decodes in batches. Over Unix sockets both sides of a server are such sockets; the relay and nginx over TCP are in the
same batch, as the base.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

import orjson

from anthro_asgi.bench.processes import Meter, family, resident
from anthro_asgi.bench.records import Load

from .. import bodies
from ..figures import settings
from ..records import DIRECT, Memory, Run
from ..report.tables import as_text, cost_table, latency_table
from ..scripted.serving import CALLING
from .harness import (
    Bench,
    Client,
    Plan,
    Prepared,
    Server,
    ask,
    await_open,
    driving,
    engine,
    free_address,
    opened,
    pause,
)
from .peer import Unavailable

STREAMS: Final = (6, 24, 64)
RATE: Final = 50.0  # tokens/s of each stream, and less where a server would get more than _MOST
WINDOWS: Final = 12
BASE: Final = ("relay", "nginx")
STAGGERED: Final = "paced"
ARGUMENTS: Final = "tool arguments"
LOCKSTEP: Final = "lockstep"
UNIX: Final = "Unix sockets"
_MOST: Final = 1_600.0  # tokens/s of a server: two cores bear no more for all servers of a batch
_BATCH: Final = 5  # servers beside the base
_WINDOW_SECONDS: Final = 1.0
_RAMP: Final = 1.0  # seconds, over which the streams of a server begin
_SETTLING_SECONDS: Final = 1.0
_PATIENCE: Final = 40.0  # seconds for all clients to start
_LASTING: Final = 120.0  # seconds; streams are longer than the measurement, after which the engine ends them
_LATE: Final = 0.25  # a server whose transit has this p99 has not kept up with its streams
_REQUESTS_PER_SECOND: Final = 40.0  # of each server
_OPEN: Final = 256  # streams, of which memory is counted
_OPENED_PER_SECOND: Final = 50
_AGENT: Final = 86_000  # bytes
_TOKENS: Final = 2  # of the answer to a request

Crew = list[tuple[Server, float]]
"""Servers at work together, with their shares of the rate."""


@dataclass(frozen=True, slots=True)
class Work:
    """What each server is to do: `streams` at `rate` tokens/s each; or, without streams, `rate` requests/s.

    `body` is a JSON object that is merged into the body of each request.
    """

    run: str
    rate: float
    streams: int = 0
    lockstep: bool = False
    body: str = ""

    def plan(self, share: float) -> Plan:
        """The load of one server."""
        rate = self.rate * share
        if self.streams:
            tokens = round(rate * _LASTING)
            extra = self.body or None
            return Plan(tokens=tokens, requests=self.streams, concurrency=self.streams, ramp=_RAMP, extra=extra)
        return Plan(tokens=_TOKENS, duration=_LASTING, rate=rate, extra=self.body or None)

    def units(self, share: float) -> float:
        """Tokens or requests per second of one server."""
        return self.rate * share * (self.streams or 1)


def tokens_of(run: str, streams: Sequence[int]) -> list[Work]:
    """The token loads of one kind of run, from few to many streams."""
    return [Work(run, min(RATE, _MOST / number), number, lockstep=run.startswith(LOCKSTEP)) for number in streams]


def arguments_of(streams: int) -> Work:
    """The tokens are pieces of a tool call's arguments."""
    return replace(tokens_of(ARGUMENTS, [streams])[0], body=orjson.dumps({"model": CALLING}).decode())


def request_works() -> list[Work]:
    """A small request, and that of a coding agent with 20 tools."""
    agent = orjson.loads(bodies.agent(_AGENT, messages=6))
    agent["messages"][-1]["content"].append({"type": "text", "text": "\x00"})  # where the client writes its number
    kept = {name: agent[name] for name in ("system", "tools", "messages")}
    return [
        Work("small request", _REQUESTS_PER_SECOND),
        Work("agent request, 86 KB", _REQUESTS_PER_SECOND, body=orjson.dumps(kept).decode()),
    ]


# the servers


def batches(prepared: Sequence[Prepared], base: Sequence[Prepared]) -> list[list[Prepared]]:
    """The peers in groups that two cores bear, each after the base."""
    others = [one for one in prepared if one not in base]
    groups = [others[first : first + _BATCH] for first in range(0, len(others), _BATCH)] or [[]]
    return [[*base, *group] for group in groups]


class Engines:
    """The scripted engines of a run: one for each share of the rate."""

    def __init__(self, bench: Bench, stack: ExitStack, shares: Sequence[float]) -> None:
        self.servers = {share: stack.enter_context(engine(0, bench.folder, f"{share:g}.sock")) for share in shares}
        self._folder = bench.folder

    def socket(self, share: float) -> str:
        """The path of an engine's Unix socket."""
        return str(self._folder / f"{share:g}.sock")

    def set_pace(self, work: Work) -> None:
        for share, server in self.servers.items():
            rate = work.rate * share if work.streams else 0
            ask(server.address, f"/pace?{rate:g}{'&lockstep' if work.lockstep else ''}")

    def end_streams(self) -> None:
        """End all open streams. Not every peer does so when its client leaves."""
        for server in self.servers.values():
            ask(server.address, "/end")

    def open(self) -> int:
        """Streams that are open."""
        return sum(map(opened, self.servers.values()))

    def begun(self) -> int:
        """Streams that have begun so far."""
        return sum(int(ask(server.address, "/begun")[1]) for server in self.servers.values())


@contextmanager
def crew(bench: Bench, group: Sequence[Prepared], *, unix: bool = False) -> Iterator[tuple[Engines, Crew]]:
    """The servers of a batch that start, the engine itself first. With `unix`, those over Unix sockets follow."""
    with ExitStack() as stack:
        shares = sorted({1.0, *(one.peer.share for one in group)}, reverse=True)
        engines = Engines(bench, stack, shares)
        servers: Crew = [(engines.servers[1.0], 1.0)]
        for one in group:
            share = one.peer.share
            if not unix or one.peer.name in BASE:
                upstream = engines.servers[share].address
                servers += _start(bench, stack, one, upstream, free_address())
            if unix and one.peer.unix:
                path = str(bench.folder / f"{one.peer.name}.sock")
                servers += [
                    (replace(server, name=f"{server.name}-unix", label=f"{server.label}, {UNIX}"), share)
                    for server, share in _start(bench, stack, one, engines.socket(share), path)
                ]
        yield engines, servers


def _start(bench: Bench, stack: ExitStack, one: Prepared, upstream: str, listen: str) -> Crew:
    try:
        return [(stack.enter_context(bench.serving(one, upstream, listen=listen)), one.peer.share)]
    except Unavailable as exc:
        bench.records.missing(one.peer.name, str(exc))
        return []


# the measurement


def measure(bench: Bench, engines: Engines, servers: Crew, work: Work, batch: int) -> None:
    """Put all servers to work, and record the cost of each in every window."""
    engines.set_pace(work)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(driving(server, work.plan(share), bench.folder, server.name))
            for server, share in servers
        ]
        _await_start(engines, servers, work, clients)
        costs = _windows([server.pid for server, _ in servers], bench.windows)
        loads: dict[str, Load] = {}
        lasting = [client.running for client in clients]
        if work.streams:
            engines.end_streams()
        else:
            for client in clients:
                client.interrupt()
        for (server, _), client, lasted in zip(servers, clients, lasting, strict=True):
            try:
                loads[server.name] = _kept_up(client.summary(_PATIENCE), lasted)
            except Unavailable as exc:
                why = "the machine was too busy: " if server.name == DIRECT else ""
                bench.records.missing(server.name, f"{work.run}, {work.streams or 'no'} streams: {why}{exc}")
    for number, (server, share) in enumerate(servers):
        if server.name in loads and DIRECT in loads:
            found = tuple(cpu / seconds / work.units(share) * 1e6 for seconds, cpu in (row[number] for row in costs))
            own = () if server.name == DIRECT else found
            load, rate = loads[server.name], work.rate
            streams, version = work.streams or 1, server.version
            bench.records.add(
                Run(work.run, server.name, server.label, batch, streams, rate, load, version, windows=own)
            )


def _kept_up(load: Load, lasted: bool) -> Load:
    """The same. Raises Unavailable when requests failed, the server was behind, or its load ended too soon."""
    if load.errors:
        raise Unavailable(f"requests failed: {load.errors}")
    if not lasted:
        raise Unavailable("its load ended before the measurement")
    late = (load.transit or {}).get("p99") or 0.0
    if late > _LATE:
        raise Unavailable(f"it did not keep up with the engine: transit p99 {late:.2g} s")
    return load


def _await_start(engines: Engines, servers: Crew, work: Work, clients: Sequence[Client]) -> None:
    """Return when all streams are open, or when requests arrive at their full rate.

    A client that has ended is not waited for; its summary says why.
    """
    deadline = monotonic() + _PATIENCE
    while monotonic() < deadline:
        alive = [share for (_, share), client in zip(servers, clients, strict=True) if client.running]
        expected = work.streams * len(alive) or 0.9 * _SETTLING_SECONDS * sum(map(work.units, alive))
        begun = all(client.begun or not client.running for client in clients)
        if begun and (engines.open() if work.streams else _arrived(engines)) >= expected:
            break
        pause(0.1)
    pause(_SETTLING_SECONDS)


def _arrived(engines: Engines) -> int:
    """Requests that begin in the settling time."""
    before = engines.begun()
    pause(_SETTLING_SECONDS)
    return engines.begun() - before


def _windows(pids: Sequence[int], count: int) -> list[list[tuple[float, float]]]:
    """For each window and process: seconds, and CPU seconds of the process and its descendants."""
    meters = [Meter([pid]) for pid in pids]
    found: list[list[tuple[float, float]]] = []
    for meter in meters:
        meter.start()
    before = [(monotonic(), 0.0) for _ in pids]
    for _ in range(count):
        pause(_WINDOW_SECONDS)
        now = [(monotonic(), meter.stop().cpu_s) for meter in meters]
        found.append([(here - there, cpu - less) for (here, cpu), (there, less) in zip(now, before, strict=True)])
        before = now
    return found


# the runs


def together(bench: Bench, works: Sequence[Work], *, unix: bool = False, weigh: bool = False) -> None:
    """Measure each of `works` in every batch; with `weigh` the memory of open streams too."""
    peers = [one for one in bench.peers if one.peer.unix or not unix]
    for batch, group in enumerate(batches(peers, bench.named(*BASE))):
        with crew(bench, group, unix=unix) as (engines, servers):
            if weigh:
                _weigh(bench, engines, [server for server, _ in servers if server.name != DIRECT])
            for work in works:
                print(f"{work.run}, {work.streams or 'no'} streams, batch {batch}", file=sys.stderr, flush=True)
                measure(bench, engines, servers, work, batch)


def tcp(bench: Bench) -> None:
    """CPU per token, staggered and in lockstep; CPU per piece of tool arguments, with as many streams as in the middle
    of `bench.streams`; CPU per request; and memory per stream. Over TCP.
    """
    tokens = [*tokens_of(STAGGERED, bench.streams), *tokens_of(LOCKSTEP, bench.streams)]
    works = [*tokens, arguments_of(sorted(bench.streams)[len(bench.streams) // 2]), *request_works()]
    together(bench, works, weigh=True)
    _print(bench, works)


def unix(bench: Bench) -> None:
    """CPU per token, staggered and in lockstep. Over Unix sockets."""
    works = [work for run in (STAGGERED, LOCKSTEP) for work in tokens_of(f"{run}, {UNIX}", bench.streams)]
    together(bench, works, unix=True)
    _print(bench, works)


def _print(bench: Bench, works: Sequence[Work]) -> None:
    for run in dict.fromkeys(work.run for work in works):
        print("\n" + as_text(cost_table(bench.records, run)), flush=True)
    for run in dict.fromkeys(work.run for work in works if work.streams and not work.body):  # arguments hold no times
        for setting in settings(bench.records, run):
            print("\n" + as_text(latency_table(bench.records, setting, "transit", "transit")), flush=True)


def _weigh(bench: Bench, engines: Engines, servers: Sequence[Server]) -> None:
    """Resident memory of an open stream: with many nearly idle streams, less that of the idle server."""
    plan = Plan(tokens=round(_LASTING), requests=_OPEN, concurrency=_OPEN, ramp=_OPEN / _OPENED_PER_SECOND)
    engines.set_pace(Work("memory", rate=1.0, streams=_OPEN))
    idle = {server.name: weight(server.pid) for server in servers}
    with ExitStack() as stack:
        clients = [stack.enter_context(driving(server, plan, bench.folder, server.name)) for server in servers]
        try:
            await_open(engines.open, _OPEN * len(servers), clients, _PATIENCE)
        except Unavailable as exc:
            bench.records.missing(DIRECT, f"memory: {exc}")
        else:
            for server in servers:
                kib = max(0.0, (weight(server.pid) - idle[server.name]) / 1024 / _OPEN)
                bench.records.add(Memory(server.name, _OPEN, kib, idle[server.name] / 1024 / 1024))
                print(f"{server.name}: {kib:.1f} KiB per open stream", flush=True)
        engines.end_streams()
        for client in clients:
            client.wait(_PATIENCE)


def weight(pid: int) -> int:
    """Bytes of resident memory of a process and its descendants."""
    return sum(map(resident, family(pid)))
