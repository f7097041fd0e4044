"""The tables and sentences of a report as plain text. Page and Markdown both use these, so they cannot differ."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from anthro_asgi.bench.report.html import Table, clean
from anthro_asgi.bench.report.numbers import (
    GAP,
    Write,
    duration,
    kibibytes,
    mebibytes,
    micros,
    plain,
    signed,
    significant,
    span,
    times,
)

from ..figures import (
    TTFT_RUN,
    Figure,
    Setting,
    added,
    against,
    failures,
    figure,
    latency,
    level,
    main_setting,
    operations,
    server_cpu,
    servers_of,
    throughput,
    timed,
)
from ..records import (
    DIRECT,
    Conformance,
    Env,
    Fairness,
    Grammar,
    Hold,
    Memory,
    Missing,
    Pauses,
    Records,
    Run,
    Start,
)
from .bars import FLOOR, MET, NAMES, NGINX, NOT_MEASURED, NOT_MET, OURS, judge, named

PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")
_ADDED: Final = ("p50", "p99", "p99.9")

HOW: Final = (
    "All servers of a table with a rate are at work at the same time. A ratio is taken within one second; the median "
    "over the seconds is shown, with its quartiles in brackets. Saturated servers take turns: a ratio is taken within "
    "a round, and the lowest and the highest round are in brackets. CPU is user and system time of the server's "
    "process and its children. LiteLLM gets a fifth of the tokens and requests of the others: all of them would take "
    "a whole core."
)
LATENCY: Final = (
    "Transit is the time from the engine writing a token to the client reading it. What a server adds is its transit "
    "minus the same percentile of the engine asked directly in the same round. Delays of the whole machine are in both."
)
MICRO: Final = (
    "The cost of an operation as a multiple of its floor. Left of the dashed line it costs less than the floor; the "
    "upright stroke is the operation's bar; an operation that exceeds its bar is red."
)


def ordered(servers: Iterable[str]) -> list[str]:
    """Each server once: the known ones in the order of `NAMES`, then the others by name."""
    unique = set(servers)
    return [name for name in NAMES if name in unique] + sorted(unique.difference(NAMES))


def setting_name(setting: Setting) -> str:
    """A load in words, such as `paced, 64 streams` and their rate."""
    if setting.run == TTFT_RUN and setting.streams == 1:
        return "one short stream after the other"
    if "request" in setting.run:
        return f"{setting.run}, {plain(setting.rate or 0)} requests/s"
    streams = f"{setting.run}, {plain(setting.streams)} streams"
    return f"{streams} × {plain(setting.rate)} tokens/s" if setting.rate else streams


# tables


def bars_table(records: Records) -> Table:
    """Every bar, what was measured, and the verdict."""
    rows = tuple((item.bar.what, item.bar.text, item.measured, item.state) for item in judge(records))
    return Table("The numbers against the bars", ("what", "bar", "measured", "verdict"), rows, numeric=False)


def cost_tables(records: Records) -> list[Table]:
    """One table for each kind of run: paced, in lockstep, saturated, requests."""
    return [cost_table(records, run) for run in dict.fromkeys(setting.run for setting in timed(records))]


def cost_table(records: Records, run: str) -> Table:
    """CPU per token or request, as a multiple of the relay's and nginx's, from few to many streams."""
    loads = sorted((one for one in timed(records) if one.run == run), key=lambda one: one.streams)
    unit = "request" if "request" in run else "token"
    head = ["server"]
    for setting in loads:
        streams = "" if unit == "request" else f", {plain(setting.streams)} streams"
        streams += f" × {plain(setting.rate)} {unit}s/s" if setting.rate else ""
        head += [f"CPU per {unit}{streams}", "× byte relay", "× nginx"]
        head += [] if setting.rate else ["tokens/s"]
    servers = ordered(name for setting in loads for name in servers_of(records, setting) if name != DIRECT)
    rows = tuple(_cost_row(records, loads, server) for server in servers)
    return Table(f"CPU per {unit}: {run}", (*head, "failed requests"), rows)


def _cost_row(records: Records, loads: list[Setting], server: str) -> tuple[str, ...]:
    cells = [named(records, server)]
    for setting in loads:
        cells.append(_median(level(records, setting, server, server_cpu), micros))
        cells += [_spread(against(records, setting, server, base, server_cpu), times) for base in (FLOOR, NGINX)]
        if not setting.rate:
            cells.append(_median(level(records, setting, server, throughput), significant))
    return (*cells, plain(sum(failures(records, setting, server) for setting in loads)))


def _spread(found: Figure | None, write: Write) -> str:
    if found is None or len(found.values) == 1:
        return _median(found, write)
    return f"{write(found.median)} ({span(write(found.low), write(found.high))})"


def _median(found: Figure | None, write: Write) -> str:
    return NOT_MEASURED if found is None else write(found.median)


def latency_table(records: Records, setting: Setting, name: str, what: str) -> Table:
    """Percentiles of `ttft` or `transit` by server, and what each server adds to the engine's."""
    head = ("server", *PERCENTILES, *(f"added {percentile}" for percentile in _ADDED))
    rows = []
    for server in ordered(servers_of(records, setting)):
        cells = [_median(level(records, setting, server, latency(name, one)), duration) for one in PERCENTILES]
        for percentile in _ADDED:
            more = added(records, setting, server, latency(name, percentile))
            cells.append("the base" if server == DIRECT else _median(more, signed))
        rows.append((named(records, server), *cells))
    return Table(f"{what}, {setting_name(setting)}", head, tuple(rows))


def pauses_table(records: Records) -> Table | None:
    """Latencies and cost by number of open streams."""
    rows = tuple(
        (
            f"{named(records, item.server)}, {plain(item.streams)} streams",
            *(_median(figure([value] if value else []), duration) for value in _pauses(item)),
            _median(figure([item.cpu_us_per_token] if item.cpu_us_per_token else []), micros),
        )
        for item in records.of(Pauses)
    )
    head = ("server", "transit p50", "transit p99", "transit max", "TTFT p99", "longest collection", "CPU per token")
    return Table("Pauses with many streams open", head, rows) if rows else None


def _pauses(item: Pauses) -> list[float | None]:
    return [*(item.transit.get(one) for one in ("p50", "p99", "max")), item.ttft.get("p99"), item.collection_s]


def micro_table(records: Records) -> Table | None:
    """Every operation with its time, its floor's time, and the ratio."""
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
    """The effect of one unpaced stream on slow streams beside it."""
    head = ("server", "slow streams", *(f"{when}, {p}" for p in ("p50", "p99") for when in ("alone", "beside")))
    rows = tuple(_fairness_row(records, server) for server in ordered(one.server for one in records.of(Fairness)))
    return Table("Inter-token latency beside a saturated stream", (*head, "p99 beside / alone"), rows) if rows else None


def _fairness_row(records: Records, server: str) -> tuple[str, ...]:
    found = [item for item in records.of(Fairness) if item.server == server]
    cells = []
    for percentile in ("p50", "p99"):
        for seen in ([item.alone for item in found], [item.beside for item in found]):
            values = [value for one in seen if (value := one.get(percentile)) is not None]
            cells.append(_median(figure(values), duration))
    pairs = [(item.beside.get("p99"), item.alone.get("p99")) for item in found]
    ratio = figure(beside / alone for beside, alone in pairs if beside is not None and alone)
    streams = ", ".join(dict.fromkeys(plain(item.slow_streams) for item in found))
    return (named(records, server), streams, *cells, _median(ratio, times))


def hold_table(records: Records) -> Table | None:
    """How long one request blocked the event loop."""
    rows = tuple((f"{plain(item.body_bytes)} bytes", duration(item.longest_s)) for item in records.of(Hold))
    return Table("Event loop held by one request", ("body of the request", "longest hold"), rows) if rows else None


def peers_table(records: Records) -> Table:
    """Every server that a record names: its version, correctness, start, memory, and what is missing."""
    kinds = (Run, Missing, Grammar, Memory, Fairness, Conformance)
    names = ordered(record.server for _, record in records.entries if isinstance(record, kinds))
    head = ("server", "version", "conformance", "its stream", "start", "idle memory", "memory per stream")
    return Table("Servers", (*head, "not measured"), tuple(_peer_row(records, one) for one in names), numeric=False)


def _peer_row(records: Records, server: str) -> tuple[str, ...]:
    runs = [run for run in records.of(Run) if run.server == server]
    checked = [item.faults for item in records.of(Grammar) if item.server == server]
    faults = dict.fromkeys(fault for one in checked for fault in one)
    judged = [f"{one.passed} of {one.judged} rules" for one in records.of(Conformance) if one.server == server]
    judged = judged or ["relays bytes" for run in runs[:1] if run.load.api == "chat"]
    weighed = [item for item in records.of(Memory) if item.server == server]
    missing = dict.fromkeys(item.why for item in records.of(Missing) if item.server == server)
    return (
        named(records, server),
        ", ".join(dict.fromkeys(run.version for run in runs if run.version)) or "not recorded",
        ", ".join(dict.fromkeys(judged)) or NOT_MEASURED,
        "; ".join(faults) or ("no fault found" if checked else "not checked"),
        _median(figure(item.seconds for item in records.of(Start) if item.server == server), duration),
        _median(figure(item.idle_mib for item in weighed if item.idle_mib is not None), mebibytes),
        _median(figure(item.rss_kib_per_stream for item in weighed), kibibytes),
        "; ".join(missing) or "nothing",
    )


def machine_table(records: Records) -> Table | None:
    """Where and when each session was measured, and with which versions."""
    found = records.of(Env)
    rows = [
        (name, *(str(getattr(env, name) or "not recorded") for env in found))
        for name in ("date", "commit", "python", "cpu", "cores", "kernel")
    ]
    packages = dict.fromkeys(name for env in found for name in env.versions)
    rows += [(name, *(env.versions.get(name, "not recorded") for env in found)) for name in packages]
    head = ("", *(f"session {number}" for number in range(1, len(found) + 1)))
    return Table("Machine and versions", head, tuple(rows), numeric=False) if found else None


def as_text(table: Table) -> str:
    """The table for a terminal: its caption, then columns of equal width."""
    rows = [("", *table.head[1:]), *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([table.caption, *lines])


# sentences


def finding(records: Records) -> str:
    """The main result: what a token costs in a paced, proxied stream."""
    setting = main_setting(records, "paced")
    cost = level(records, setting, OURS, server_cpu) if setting else None
    if setting is None or cost is None:
        return "What a token costs through a proxied stream was not measured."
    ratio = against(records, setting, OURS, FLOOR, server_cpu)
    more = added(records, setting, OURS, latency("transit", "p50"))
    relay = f", {times(ratio.median)} what a byte relay takes" if ratio else ""
    text = f"A token through this service takes {micros(cost.median)} of CPU{relay} ({setting_name(setting)})."
    return f"{text} Its added latency is {duration(more.median)} (p50)." if more else text


def verdict_count(records: Records) -> str:
    """How many bars are met, not met and not measured."""
    states = [item.state for item in judge(records)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (MET, NOT_MET, NOT_MEASURED))
    return f"{len(states)} bars: {counts}."


def provenance(records: Records) -> str:
    """When, at which commit and on which machine: one sentence per session."""
    sentences = dict.fromkeys(
        f"Measured {env.date[:16].replace('T', ' ') or 'on an unknown day'} at "
        f"{f'commit {env.commit[:12]}' if env.commit else 'an unknown commit'}, Python {env.python or 'unknown'}, "
        f"on {env.cpu or 'an unknown processor'} ({env.cores or 'unknown'} cores), kernel {env.kernel or 'unknown'}."
        for env in records.of(Env)
    )
    return " ".join(sentences) or "No record says when, where or with what this was measured."


def missing_servers(records: Records) -> list[str]:
    """A line for each server that was not measured, or only in part."""
    measured = {run.server for run in records.of(Run)}
    lines = (
        f"{named(records, item.server)} is {'incomplete' if item.server in measured else 'missing'}: {item.why}"
        for item in records.of(Missing)
    )
    return list(dict.fromkeys(lines))


def generator_cost(records: Records) -> str:
    """The CPU of the load generator itself; empty when it was not recorded."""
    costs = (run.load.client.cpu_us_per_chunk for run in records.of(Run) if run.run != TTFT_RUN)
    found = figure(cost for cost in costs if cost)
    return f"The load generator itself took {micros(found.median)} of CPU per token (median)." if found else ""


def failed_requests(records: Records) -> list[str]:
    """A line for each server with failed requests: the kinds of failure, and how many of each."""
    lines = []
    for server in ordered(run.server for run in records.of(Run)):
        totals: Counter[str] = Counter()
        for run in records.of(Run):
            totals.update(run.load.errors if run.server == server else {})
        kinds = ", ".join(f"{kind} × {number}" for kind, number in totals.items() if number)
        lines += [f"{named(records, server)}: {kinds}"] if kinds else []
    return lines


def unknown_kinds(records: Records) -> str:
    """Which lines of the result files are not in the report; empty when all are."""
    kinds = ", ".join(f"{kind} ({number})" for kind, number in records.others.items())
    return f"Lines of kinds that this report does not show: {kinds}." if kinds else ""


# Markdown

BEGIN: Final = "<!-- bench report: begin -->"
END: Final = "<!-- bench report: end -->"
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~&])")


def markdown(records: Records) -> str:
    """The bars, the tables of costs and servers, and what belongs to them, between the two marks."""
    tables = [*cost_tables(records), peers_table(records), pauses_table(records)]
    parts = [
        BEGIN,
        escaped(f"{provenance(records)} {verdict_count(records)}"),
        _markdown_table(bars_table(records)),
        HOW,
        *(f"### {escaped(one.caption)}\n\n{_markdown_table(one)}" for one in tables if one and one.rows),
        *(escaped(line) for line in (*missing_servers(records), *failed_requests(records))),
        END,
    ]
    return "\n\n".join(parts) + "\n"


def renewed(path: Path, text: str) -> str:
    """The content of `path` with `text` in place of what stands between the marks; `text` alone for a new file.

    Raises ValueError when the file exists and has no marks.
    """
    if not path.exists():
        return text
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no place for the report: put {BEGIN} and {END} where it should be")
    return before + text.rstrip("\n") + after


def escaped(text: str) -> str:
    """`text` without markup, with plain spaces."""
    return _SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", clean(text)).strip())


def _markdown_table(table: Table) -> str:
    rule = "|" + "---|" + ("---:|" if table.numeric else "---|") * (len(table.head) - 1)
    lines = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in (table.head, *table.rows)]
    return "\n".join([lines[0], rule, *lines[1:]])
