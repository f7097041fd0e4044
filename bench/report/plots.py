"""The plots of a report, drawn by matplotlib as SVG for use inside an HTML page.

Colours are CSS variables of the page, so one drawing serves light, dark and print. matplotlib takes only real colours:
each variable has a stand-in colour that is replaced in the SVG. A plot is as wide as a phone and grows downwards.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..figures import (
    Figure,
    Operation,
    Setting,
    added,
    against,
    figure,
    latency,
    level,
    operations,
    server_cpu,
    servers_of,
    stream_costs,
    throughput,
)
from ..records import DIRECT, Memory, Records, StreamCost
from .bars import FLOOR, MEMORY_LIMIT, OURS, OURS_H11, named
from .numbers import Write, duration, kibibytes, micros, plain, plain_duration, signed, significant, times
from .tables import PERCENTILES, clean, ordered, setting_name

STREAMS: Final = "CPU per token against the number of streams"
MEMORY: Final = "Memory of an open stream"
THROUGHPUT: Final = "Tokens per second"

_ROLES: Final = ("ours", "floor", "direct", "peer", "over", "ink", "soft", "grid", "paper")  # CSS variables
_COLOURS: Final = {role: f"#0101{number:02x}" for number, role in enumerate(_ROLES, 1)}  # their stand-ins
_INK, _SOFT, _GRID, _PAPER = (_COLOURS[role] for role in ("ink", "soft", "grid", "paper"))
_SHAPES: Final = dict(zip(PERCENTILES, ("o", "o", "|", "x"), strict=True))
_WIDTH: Final = 4.8  # inches, of 72 CSS pixels
_ROW: Final = 0.42  # inches per row
_MOST: Final = 64  # characters of a label
_STYLE: Final[Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bench",  # the same records give the same bytes
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": _SOFT,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": _GRID,
}
_SPREAD: Final = "A bar is the median of the rounds; the line over it reaches from the lowest to the highest."
_STROKE: Final = "The upright stroke is the bar: the most that is allowed."


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG drawing, its title, and how to read it."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One subject of a plot: a bar from `origin` to `value` with its spread, or points by percentile."""

    label: str
    note: str
    role: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    points: tuple[tuple[str, float], ...] = ()


def role(server: str) -> str:
    """What a server is to us: the only meaning of a colour."""
    return "ours" if server in (OURS, OURS_H11) else {FLOOR: "floor", DIRECT: "direct"}.get(server, "peer")


# drawing


def _rows_plot(
    title: str,
    axis: str,
    rows: Sequence[Row],
    *,
    write: Write = plain,
    log: bool = True,
    origin: float | None = None,
    mark: tuple[float, str] | None = None,
    note: str = "",
) -> Plot | None:
    """Rows below each other, each with its label and value above its bar. `mark` is a value with a dashed line."""
    if not rows:
        return None
    with mpl.rc_context(_STYLE):
        key = any(row.points for row in rows)
        height = _ROW * len(rows) + 0.62 + 0.2 * bool(mark) + 0.2 * key
        canvas = Canvas(figsize=(_WIDTH, height))
        axes = canvas.add_axes((0.01, 0.52 / height, 0.97, _ROW * len(rows) / height))
        if log:
            axes.set_xscale("log")
        values = [value for row in rows for value in _values(row)] + [one for one in (mark and mark[0], origin) if one]
        _limits(axes, values, log=log)
        left = axes.get_xlim()[0] if origin is None else origin
        for place, row in enumerate(rows):
            _draw(axes, len(rows) - place - 0.72, row, left)
        axes.set_ylim(0, len(rows))
        axes.yaxis.set_major_locator(NullLocator())
        _ticks(axes.xaxis, write, values, log=log)
        axes.grid(axis="x", zorder=0, linewidth=0.8)
        axes.set_xlabel(_short(f"{axis}, logarithmic" if log else axis), loc="left")
        if mark:
            _mark(axes, *mark)
        if key:
            _key(canvas)
        return Plot(title, _svg(canvas, title, [f"{row.label}: {row.note}" for row in rows]), note)


def _values(row: Row) -> list[float]:
    found = (row.value, row.low, row.high, row.limit, *(value for _, value in row.points))
    return [value for value in found if value is not None]


def _limits(axes: Any, values: Sequence[float], *, log: bool) -> None:
    if not log:
        axes.set_xlim(0, max(values) * 1.03 or 1)
        return
    positive = [value for value in values if value > 0] or [1.0]
    reach = max(positive) / min(positive)
    axes.set_xlim(min(positive) / max(1.15, reach**0.04), max(positive) * max(1.1, reach**0.03))


def _ticks(axis: Any, write: Write, values: Sequence[float], *, log: bool) -> None:
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        wide = max(positive) / min(positive) > 60
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=9))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    low, high = axis.get_view_interval()
    last = high / (high / low) ** 0.03 if log else high - 0.03 * (high - low)  # a label further right would be cut off
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value) if value <= last else ""))
    axis.set_tick_params(length=0)


def _draw(axes: Any, y: float, row: Row, left: float) -> None:
    colour = _COLOURS[row.role]
    tone = colour if row.role in ("ours", "over") else _INK
    place = axes.get_yaxis_transform()
    axes.text(0, y + 0.24, _short(row.label, _MOST - len(row.note)), color=tone, transform=place, va="bottom")
    axes.text(1, y + 0.24, _short(row.note), color=tone, transform=place, va="bottom", ha="right")
    if row.value is not None:
        axes.barh(y, row.value - left, 0.26, left, color=colour, zorder=2)
    if row.low is not None and row.high is not None and row.value is not None:
        reach = [[row.value - row.low], [row.high - row.value]]
        axes.errorbar(row.value, y, xerr=reach, color=_INK, capsize=3, linewidth=1.2, zorder=3)
    if row.points:
        axes.plot([value for _, value in row.points], [y] * len(row.points), color=colour, linewidth=1.6, zorder=2)
    for percentile, value in row.points:
        axes.plot(value, y, **_marker(percentile, colour), zorder=3)
    if row.limit is not None:
        axes.plot([row.limit] * 2, [y - 0.22, y + 0.22], color=_INK, linewidth=2.4, zorder=3)


def _marker(percentile: str, colour: str) -> dict[str, Any]:
    fill = _PAPER if percentile == "p90" else colour
    size = {"p50": 7.0, "p90": 6.0, "p99": 9.0}.get(percentile, 6.5)
    return {
        "marker": _SHAPES[percentile],
        "color": colour,
        "markerfacecolor": fill,
        "markersize": size,
        "markeredgewidth": 1.8,
        "linestyle": "none",
    }


def _mark(axes: Any, value: float, label: str) -> None:
    axes.axvline(value, color=_SOFT, linestyle=(0, (3, 3)), linewidth=1, zorder=1)
    right = axes.transAxes.inverted().transform(axes.transData.transform((value, 0)))[0] > 0.55
    place, align = ((-4, 3), "right") if right else ((4, 3), "left")
    where = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    axes.annotate(_short(label), (value, 1), place, ha=align, color=_SOFT, fontsize=8.5, **where)


def _key(canvas: Canvas) -> None:
    """The meaning of the markers, above the plot."""
    handles = [Line2D([], [], label=one, **_marker(one, _SOFT)) for one in PERCENTILES]
    canvas.legend(
        handles=handles, loc="upper left", ncols=4, frameon=False, labelcolor=_SOFT, fontsize=8.5, borderaxespad=0
    )


def _short(text: str, most: int = _MOST) -> str:
    text = clean(text)
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _svg(canvas: Canvas, title: str, described: Sequence[str]) -> str:
    """The drawing as an `svg` element with a description for those who cannot see it."""
    out = StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser draws the text, with its own fonts
        canvas.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace("xlink:href=", "href=")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    label = escape(clean(f"{title}. {'; '.join(described)}"))
    return f'<svg {box[0]} role="img" aria-label="{label}">' + svg[svg.index(">") + 1 :]


# the plots


def cpu_plot(records: Records, setting: Setting) -> Plot | None:
    """CPU per token by server under one load, with the floor marked."""
    rows = []
    for server in ordered(set(servers_of(records, setting)) - {DIRECT}):
        found = level(records, setting, server, server_cpu)
        if found:
            ratio = against(records, setting, server, FLOOR, server_cpu)
            relay = f" · {times(ratio.median)} relay" if ratio and server != FLOOR else ""
            rows.append(_bar(records, server, found, micros(found.median) + relay))
    floor = level(records, setting, FLOOR, server_cpu)
    mark = (floor.median, f"floor: {named(records, FLOOR)}") if floor else None
    title = f"CPU per token, {setting_name(setting)}"
    return _rows_plot(title, "µs of CPU per token", rows, mark=mark, note=_SPREAD)


def throughput_plot(records: Records, setting: Setting) -> Plot | None:
    """Tokens/s by server where streams are not paced."""
    rows = []
    for server in ordered(servers_of(records, setting)):
        found = level(records, setting, server, throughput)
        if found:
            rows.append(_bar(records, server, found, f"{significant(found.median)} tokens/s"))
    title = f"{THROUGHPUT}, {setting_name(setting)}"
    return _rows_plot(title, "tokens/s, all streams together", rows, log=False, note=_SPREAD)


def _bar(records: Records, server: str, found: Figure, note: str, limit: float | None = None) -> Row:
    low, high = (found.low, found.high) if len(found.values) > 1 else (None, None)
    return Row(named(records, server), note, role(server), found.median, low, high, limit)


def latency_plot(records: Records, setting: Setting, name: str, title: str) -> Plot | None:
    """Percentiles of `ttft` or `transit` by server, with the engine's own median marked."""
    rows = []
    for server in ordered(servers_of(records, setting)):
        seen = [(one, level(records, setting, server, latency(name, one))) for one in PERCENTILES]
        points = tuple((one, found.median) for one, found in seen if found and found.median > 0)
        more = added(records, setting, server, latency(name, "p50"))
        beside = f" · {signed(more.median)}" if more and server != DIRECT else ""
        note = f"{duration(seen[0][1].median)}{beside}" if seen[0][1] else ""
        rows += [Row(named(records, server), note, role(server), points=points)] if points else []
    own = level(records, setting, DIRECT, latency(name, "p50"))
    mark = (own.median, f"{named(records, DIRECT)}, p50") if own and own.median > 0 else None
    note = "Each percentile is the median of the rounds. On the right: the median, and what the server adds to it."
    title = f"{title}, {setting_name(setting)}"
    return _rows_plot(title, "time", rows, write=plain_duration, mark=mark, note=note)


def memory_plot(records: Records) -> Plot | None:
    """KiB per open stream, by server and number of streams."""
    found = records.of(Memory)
    rows = []
    for server in ordered(item.server for item in found):
        limit = MEMORY_LIMIT if server == OURS else None
        for streams in sorted({item.streams for item in found if item.server == server}):
            seen = figure(item.rss_kib_per_stream for item in found if (item.server, item.streams) == (server, streams))
            if seen:
                note = f"{kibibytes(seen.median)} at {plain(streams)} streams"
                rows.append(_bar(records, server, seen, note, limit))
    return _rows_plot(MEMORY, "KiB of resident memory per stream", rows, log=False, note=_STROKE)


def micro_plots(records: Records) -> list[Plot]:
    """One plot for each group of operations with one floor."""
    groups = dict.fromkeys((one.group, one.floor) for one in operations(records))
    plots = []
    for group, floor in groups:
        rows = [_micro_row(one) for one in operations(records) if (one.group, one.floor) == (group, floor)]
        plot = _rows_plot(f"{group}, against {floor}", f"times {floor}", rows, origin=1.0, mark=(1.0, "the floor"))
        plots += [plot] if plot else []
    return plots


def _micro_row(one: Operation) -> Row:
    ratio, limit = one.ratio.median, one.bar
    kind = "peer" if limit is None else "over" if ratio > limit else "ours"
    bar = "" if limit is None else f" (bar {plain(limit)})"
    return Row(one.name, f"{times(ratio)}{bar}", kind, ratio, limit=limit)


def streams_plot(records: Records) -> Plot | None:
    """CPU per token against the number of streams: one line per server, named at its end."""
    costs = records.of(StreamCost)
    lines: list[tuple[str, list[tuple[int, float]]]] = []
    for server in ordered(cost.server for cost in costs):
        counts = sorted({cost.streams for cost in costs if cost.server == server})
        found = [(count, figure(stream_costs(records, server, count).values())) for count in counts]
        lines.append((server, [(count, seen.median) for count, seen in found if seen]))
    if not lines:
        return None
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, 3.9))
        axes = canvas.add_axes((0.1, 0.13, 0.48, 0.78))
        axes.set_xscale("log")
        axes.set_yscale("log")
        for server, points in lines:
            colour = _COLOURS[role(server)]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=5, linewidth=1.8)
        ys = [y for _, points in lines for _, y in points]
        _ticks(axes.yaxis, plain, ys, log=True)
        axes.set_ylim(min(ys) * 0.8, max(ys) * 1.2)
        xs = sorted({x for _, points in lines for x, _ in points})
        axes.set_xticks(xs, [plain(x) for x in xs])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y", linewidth=0.8)
        axes.set_title("µs of CPU per token, logarithmic", loc="left", fontsize=9, color=_SOFT)
        axes.set_xlabel("streams, logarithmic", loc="left")
        _line_names(axes, [(points[-1], named(records, server), role(server)) for server, points in lines])
        described = [
            f"{named(records, server)}: " + ", ".join(f"{micros(y)} at {x}" for x, y in points)
            for server, points in lines
        ]
        note = "The total token rate is the same at each number of streams."
        return Plot(STREAMS, _svg(canvas, STREAMS, described), note)


def _line_names(axes: Any, ends: Sequence[tuple[tuple[int, float], str, str]]) -> None:
    """Write each name at the end of its line, moved up where it would overlap the one below."""
    lowest = float("-inf")
    for (x, y), label, kind in sorted(ends, key=lambda end: end[0][1]):
        place = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]
        lowest = max(place, lowest + 0.06)
        axes.annotate(
            _short(label, 30),
            (x, y),
            (1.06, lowest),
            textcoords=axes.transAxes,
            va="center",
            fontsize=9,
            color=_COLOURS[kind] if kind == "ours" else _SOFT,
            arrowprops={"arrowstyle": "-", "color": _GRID, "shrinkA": 1, "shrinkB": 3},
        )
