"""The plots of a report: records in, drawings out, None where nothing was recorded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from xml.etree.ElementTree import Element

from .bars import BARS
from .fields import PERCENTILES
from .figures import (
    Figure,
    Operation,
    Setting,
    added,
    against,
    costs_of,
    figure,
    latency,
    level,
    operations,
    server_cpu,
    servers_of,
    settings,
    throughput,
)
from .lines import Series, lines_plot
from .measures import StreamMemory
from .numbers import duration, kibibytes, micros, plain, plain_duration, signed, significant, times
from .records import DIRECT, Cost, Memory, Records
from .rows import Mark, Point, Row, rows_plot
from .servers import FLOOR, named, ordered, role
from .svg import Axis, Text
from .tables import setting_name


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing, what it shows, and how to read it."""

    title: str
    drawing: Element
    note: str = ""


STREAMS: Final = "CPU per token against the number of streams"
MEMORY: Final = "Memory of an open stream"
THROUGHPUT: Final = "Tokens a second"

_SPREAD: Final = "A bar is the median of the rounds, the line over it reaches from the lowest to the highest."
_STROKE: Final = "The upright stroke is the bar: the most that it may be."
_CPU: Final = Axis("µs of CPU a token", plain, log=True)


def cpu_plot(records: Records, setting: Setting) -> Plot | None:
    """CPU per token by server under one load, the floor marked."""
    rows = []
    for server in ordered(servers_of(records, setting) - {DIRECT}):
        found = level(records, setting, server, server_cpu)
        if found:
            ratio = against(records, setting, server, FLOOR, server_cpu)
            beside = f" · {times(ratio.median)} relay" if ratio and server != FLOOR else ""
            rows.append(_row(records, server, found, micros(found.median) + beside))
    floor = level(records, setting, FLOOR, server_cpu)
    marks = [Mark(floor.median, f"floor: {named(records, FLOOR)}")] if floor else []
    return _rows(_name("cpu", records, setting), f"CPU per token, {setting_name(setting)}", _CPU, rows, marks, _SPREAD)


def throughput_plot(records: Records, setting: Setting) -> Plot | None:
    """Tokens a second by server where nothing but the server held them back."""
    rows = []
    for server in ordered(servers_of(records, setting)):
        found = level(records, setting, server, throughput)
        if found:
            rows.append(_row(records, server, found, f"{significant(found.median)} tokens/s"))
    title = f"{THROUGHPUT}, {setting_name(setting)}"
    return _rows(
        _name("throughput", records, setting), title, Axis("tokens/s, all streams together", plain), rows, [], _SPREAD
    )


def _row(records: Records, server: str, found: Figure, note: str) -> Row:
    reach = (found.low, found.high) if len(found.values) > 1 else None
    return Row(named(records, server), note, role(server), bar=found.median, spread=reach)


def _rows(name: str, title: str, axis: Axis, rows: Sequence[Row], marks: Sequence[Mark], note: str) -> Plot | None:
    if not rows:
        return None
    return Plot(title, rows_plot(_text(name, title, rows), axis, rows, marks), note)


def _name(kind: str, records: Records, setting: Setting) -> str:
    """Unique on the page, and without a word from a record in it."""
    return f"{kind}-{settings(records).index(setting)}"


def _text(name: str, title: str, rows: Iterable[Row]) -> Text:
    return Text(name, title, "; ".join(f"{row.label}: {row.note}" for row in rows))


def latency_plot(records: Records, setting: Setting, name: str, title: str) -> Plot | None:
    """Percentiles of `ttft` or `transit` by server, from the median to the tail, the engine's own median marked."""
    rows = []
    for server in ordered(servers_of(records, setting)):
        points = _points(records, setting, server, name)
        if points:
            rows.append(
                Row(named(records, server), _middle(records, setting, server, name), role(server), points=points)
            )
    if not rows:
        return None
    title = f"{title}, {setting_name(setting)}"
    text = _text(_name(name, records, setting), title, rows)
    own = level(records, setting, DIRECT, latency(name, "p50"))
    marks = [Mark(own.median, f"{named(records, DIRECT)}, p50")] if own and own.median > 0 else []
    drawing = rows_plot(text, Axis("time", plain_duration, log=True), rows, marks, PERCENTILES)
    return Plot(
        title, drawing, "Each percentile is the median of the rounds. At the right: the median, and what was added."
    )


def _points(records: Records, setting: Setting, server: str, name: str) -> tuple[Point, ...]:
    found = [(shape, level(records, setting, server, latency(name, shape))) for shape in PERCENTILES]
    return tuple(Point(seen.median, shape) for shape, seen in found if seen and seen.median > 0)


def _middle(records: Records, setting: Setting, server: str, name: str) -> str:
    """The median in words, and what it has on top of the engine's."""
    own, more = (find(records, setting, server, latency(name, "p50")) for find in (level, added))
    beside = f" · {signed(more.median)}" if more and server != DIRECT else ""
    return f"{duration(own.median)}{beside}" if own else ""


def streams_plot(records: Records) -> Plot | None:
    """CPU per token against the number of streams."""
    costs = records.of(Cost)
    series = []
    for server in ordered(cost.server for cost in costs):
        counts = sorted({cost.streams for cost in costs if cost.server == server})
        found = [(count, figure(costs_of(records, server, count))) for count in counts]
        points = tuple((float(count), seen.median) for count, seen in found if seen)
        series.append(Series(named(records, server), role(server), points))
    if not series:
        return None
    said = "; ".join(f"{one.label}: " + ", ".join(f"{micros(y)} at {x:g}" for x, y in one.points) for one in series)
    drawing = lines_plot(Text("streams", STREAMS, said), Axis("streams", plain, log=True), _CPU, series)
    return Plot(STREAMS, drawing, "The total token rate is the same at each number of streams.")


def memory_plot(records: Records) -> Plot | None:
    """KiB for each open stream, by server and number of streams."""
    found = records.of(Memory)
    rows = []
    for server in ordered(item.server for item in found):
        limit = next((bar.limit for bar in BARS if bar.measure == StreamMemory(server)), None)
        for streams in sorted({item.streams for item in found if item.server == server}):
            seen = figure(item.kib for item in found if (item.server, item.streams) == (server, streams))
            if seen:
                note = f"{kibibytes(seen.median)} at {plain(streams)} streams"
                rows.append(replace(_row(records, server, seen, note), limit=limit))
    return _rows("memory", MEMORY, Axis("KiB of resident set a stream", plain), rows, [], _STROKE)


def micro_plots(records: Records) -> list[Plot]:
    """One plot for each group of operations with one floor: how many times the floor each costs."""
    groups = dict.fromkeys((operation.group, operation.floor) for operation in operations(records))
    return [_micro_plot(records, group, floor, number) for number, (group, floor) in enumerate(groups)]


def _micro_plot(records: Records, group: str, floor: str, number: int) -> Plot:
    found = [operation for operation in operations(records) if (operation.group, operation.floor) == (group, floor)]
    rows = [_micro_row(operation) for operation in found]
    title = f"{group}, against {floor}"
    axis = Axis(f"times {floor}", plain, log=True)
    return Plot(title, rows_plot(_text(f"micro-{number}", title, rows), axis, rows, [Mark(1.0, "the floor")]))


def _micro_row(operation: Operation) -> Row:
    ratio, limit = operation.ratio.median, operation.bar
    kind = "peer" if limit is None else "over" if ratio > limit else "ours"
    gate = "" if limit is None else f" (bar {plain(limit)})"
    return Row(operation.name, f"{times(ratio)}{gate}", kind, bar=ratio, limit=limit, origin=1.0)
