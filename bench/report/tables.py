"""The tables of a report as plain words; the page and the Markdown both write these, so they cannot differ."""

from dataclasses import dataclass
from typing import Final

from .bars import judge
from .fields import PERCENTILES
from .figures import (
    FIRST,
    Figure,
    Setting,
    added,
    against,
    costs_of,
    failures,
    figure,
    latency,
    level,
    operations,
    server_cpu,
    servers_of,
    throughput,
    timed,
)
from .numbers import GAP, Write, duration, micros, plain, reach, signed, significant, times
from .records import DIRECT, Cost, Env, Fairness, Grammar, Hold, Missing, Records, Run
from .servers import FLOOR, mentioned, named, ordered

NOTHING: Final = "not measured"
_ADDED: Final = ("p50", "p99", "p99.9")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells row by row. The first column names the row; the others are numbers, if `numeric`."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True


def setting_name(setting: Setting) -> str:
    """A load in words: its kind, its streams and what each is paced at."""
    if setting.run == FIRST and setting.streams == 1:
        return "one short stream after the other"
    streams = f"{setting.run}, {plain(setting.streams)} streams"
    return f"{streams} × {plain(setting.rate)} tokens/s" if setting.rate else streams


def bars_table(records: Records) -> Table:
    """Every bar, what was measured, and whether it is met."""
    rows = tuple((item.bar.what, item.bar.text, item.measured, item.state) for item in judge(records))
    return Table("The numbers against the bars", ("what", "bar", "measured", "verdict"), rows, numeric=False)


def cpu_table(records: Records) -> Table:
    """CPU per token under each load, and tokens a second where nothing held them back."""
    loads = timed(records)
    head = ["server"]
    for setting in loads:
        name = setting_name(setting)
        head += [f"CPU per token, {name}", f"× byte relay, {setting.run}"]
        head += [] if setting.rate else [f"tokens/s, {setting.run}"]
    servers = ordered(name for setting in loads for name in servers_of(records, setting) if name != DIRECT)
    rows = tuple(_cpu_row(records, loads, server) for server in servers)
    return Table("CPU per token by server", (*head, "failed requests"), rows)


def _cpu_row(records: Records, loads: list[Setting], server: str) -> tuple[str, ...]:
    cells = [named(records, server)]
    for setting in loads:
        cells.append(spread(level(records, setting, server, server_cpu), micros))
        cells.append(middle(against(records, setting, server, FLOOR, server_cpu), times))
        if not setting.rate:
            cells.append(middle(level(records, setting, server, throughput), significant))
    return (*cells, plain(sum(failures(records, setting, server) for setting in loads)))


def spread(found: Figure | None, write: Write) -> str:
    """The median, and the least and the most of the rounds."""
    if found is None:
        return NOTHING
    if len(found.values) == 1:
        return write(found.median)
    return f"{write(found.median)} ({reach(write(found.low), write(found.high))})"


def middle(found: Figure | None, write: Write) -> str:
    """The median."""
    return NOTHING if found is None else write(found.median)


def latency_table(records: Records, setting: Setting, name: str, what: str) -> Table:
    """Percentiles of `ttft` or `transit` by server, and what each server adds to the engine's."""
    head = ("server", *PERCENTILES, *(f"added {percentile}" for percentile in _ADDED))
    rows = []
    for server in ordered(servers_of(records, setting)):
        seen = [level(records, setting, server, latency(name, percentile)) for percentile in PERCENTILES]
        cells = [middle(found, duration) for found in seen]
        for percentile in _ADDED:
            more = added(records, setting, server, latency(name, percentile))
            cells.append("the base" if server == DIRECT else middle(more, signed))
        rows.append((named(records, server), *cells))
    return Table(f"{what}, {setting_name(setting)}", head, tuple(rows))


def streams_table(records: Records) -> Table | None:
    """CPU per token by server and number of streams."""
    costs = records.of(Cost)
    counts = sorted({cost.streams for cost in costs})
    rows = tuple(
        (named(records, server), *(spread(figure(costs_of(records, server, count)), micros) for count in counts))
        for server in ordered(cost.server for cost in costs)
    )
    head = ("server", *(f"{plain(count)} streams" for count in counts))
    return Table("CPU per token against the number of streams", head, rows) if rows else None


def micro_table(records: Records) -> Table | None:
    """Every operation with its time, its floor's, and the ratio."""
    rows = tuple(
        (
            f"{item.group}: {item.name}",
            duration(item.cost.median / 1e9),
            duration(item.floor_cost.median / 1e9),
            times(item.ratio.median),
            "none" if item.bar is None else f"≤{GAP}{plain(item.bar)}{GAP}×",
        )
        for item in operations(records)
    )
    return Table("Time of an operation", ("operation", "time", "its floor", "ratio", "bar"), rows) if rows else None


def fairness_table(records: Records) -> Table | None:
    """What a stream as fast as it can be does to slow ones beside it."""
    head = ("server", "slow streams", *(f"{when}, {p}" for p in ("p50", "p99") for when in ("alone", "beside")))
    taken = ordered(item.server for item in records.of(Fairness))
    rows = tuple(_fairness_row(records, server) for server in taken)
    return Table("Inter-token latency beside a saturated stream", (*head, "p99 beside / alone"), rows) if rows else None


def _fairness_row(records: Records, server: str) -> tuple[str, ...]:
    found = [item for item in records.of(Fairness) if item.server == server]
    cells = []
    for percentile in ("p50", "p99"):
        for seen in ([item.alone for item in found], [item.beside for item in found]):
            values = figure(one[percentile] for one in seen if percentile in one)
            cells.append(middle(values, duration))
    both = [(item.beside["p99"], item.alone.get("p99")) for item in found if "p99" in item.beside]
    ratio = figure(beside / alone for beside, alone in both if alone)
    streams = ", ".join(dict.fromkeys(plain(item.slow_streams) for item in found))
    return (named(records, server), streams, *cells, middle(ratio, times))


def hold_table(records: Records) -> Table | None:
    """How long one request held the event loop."""
    rows = tuple((f"{plain(item.body_bytes)} bytes", duration(item.longest)) for item in records.of(Hold))
    return Table("Event loop held by one request", ("body of the request", "longest hold"), rows) if rows else None


def peers_table(records: Records) -> Table:
    """Who took part, in which version, and what is wrong with whom: nobody is left out."""
    rows = tuple(
        (named(records, server), _versions(records, server), _grammar(records, server), _missing(records, server))
        for server in mentioned(records)
    )
    return Table(
        "Who took part", ("server", "version", "its stream against the grammar", "not measured"), rows, numeric=False
    )


def _versions(records: Records, server: str) -> str:
    found = dict.fromkeys(run.version for run in records.of(Run) if run.server == server and run.version)
    return ", ".join(found) or "not recorded"


def _grammar(records: Records, server: str) -> str:
    said = [item.faults for item in records.of(Grammar) if item.server == server]
    if not said:
        return "not checked"
    return "; ".join(dict.fromkeys(fault for faults in said for fault in faults)) or "no fault found"


def _missing(records: Records, server: str) -> str:
    return "; ".join(dict.fromkeys(item.why for item in records.of(Missing) if item.server == server)) or "nothing"


def machine_table(records: Records) -> Table | None:
    """Where and when each session was measured, and with what."""
    found = records.of(Env)
    names = dict.fromkeys(name for env in found for name in env.versions)
    rows = [
        (name, *(getattr(env, name) or "not recorded" for env in found))
        for name in ("date", "commit", "python", "cpu", "cores", "kernel")
    ]
    rows += [(name, *(env.versions.get(name, "not recorded") for env in found)) for name in names]
    head = ("", *(f"session {number}" for number in range(1, len(found) + 1)))
    return Table("Machine and versions", head, tuple(rows), numeric=False) if found else None
