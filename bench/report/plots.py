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
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from anthro_asgi.bench.report.html import clean
from anthro_asgi.bench.report.numbers import (
    Write,
    duration,
    kibibytes,
    micros,
    plain,
    plain_duration,
    signed,
    significant,
    times,
)

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
    throughput,
)
from ..records import DIRECT, Memory, Records
from .bars import FLOOR, MEMORY_LIMIT, OURS, OURS_H11, named
from .tables import PERCENTILES, ordered, setting_name

MEMORY: Final = "Memory of an open stream"
THROUGHPUT: Final = "Tokens per second"

_ROLES: Final = ("ours", "floor", "direct", "peer", "over", "ink", "soft", "grid", "paper")  # CSS variables
_COLOURS: Final = {role: f"#0101{number:02x}" for number, role in enumerate(_ROLES, 1)}  # their stand-ins
_INK, _SOFT, _GRID, _PAPER = (_COLOURS[role] for role in ("ink", "soft", "grid", "paper"))
_MARKERS: Final[dict[str, dict[str, Any]]] = {
    "p50": {"marker": "o", "markersize": 7.0},
    "p90": {"marker": "o", "markerfacecolor": _PAPER},
    "p99": {"marker": "|", "markersize": 9.0},
    "p99.9": {"marker": "x"},
}
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
    "legend.labelcolor": _SOFT,
    "lines.markeredgewidth": 1.8,
    "grid.color": _GRID,
}
_SPREAD: Final = (
    "A bar is the median; the line over it spans the rounds, or the middle half of the windows of a second."
)
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

    def values(self) -> list[float]:
        """All that must be inside the plot."""
        found = (self.value, self.low, self.high, self.limit, *(value for _, value in self.points))
        return [value for value in found if value is not None]


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
    values = [value for row in rows for value in row.values()] + [one for one in (mark and mark[0], origin) if one]
    low, high = min((value for value in values if value > 0), default=1.0), max(*values, 1e-9)
    with mpl.rc_context(_STYLE):
        key = any(row.points for row in rows)
        height = _ROW * len(rows) + 0.62 + 0.2 * bool(mark) + 0.2 * key
        canvas = Canvas(figsize=(_WIDTH, height))
        axes = canvas.add_axes((0.01, 0.52 / height, 0.97, _ROW * len(rows) / height))
        axes.set(ylim=(0, len(rows)), yticks=[], xlim=(low / 1.15, high * 1.15) if log else (0, high * 1.03))
        _ticks(axes, axes.xaxis, write, log=log)
        axes.grid(axis="x", linewidth=0.8)
        axes.set_xlabel(_short(f"{axis}, logarithmic" if log else axis), loc="left")
        left = axes.get_xlim()[0] if origin is None else origin
        for place, row in enumerate(rows):
            _draw(axes, len(rows) - place - 0.72, row, left)
        if mark:
            axes.axvline(mark[0], color=_SOFT, linestyle=(0, (3, 3)), linewidth=1, zorder=1)
            side = "left" if mark[0] < (low * high) ** 0.5 else "right"
            where = axes.get_xaxis_transform()
            axes.text(mark[0], 1.01, _short(f" {mark[1]} "), ha=side, color=_SOFT, fontsize=8.5, transform=where)
        if key:
            handles = [Line2D([], [], linestyle="", color=_SOFT, label=one, **_MARKERS[one]) for one in PERCENTILES]
            canvas.legend(handles=handles, loc="upper left", ncols=4, frameon=False, fontsize=8.5, borderaxespad=0)
        return Plot(title, _svg(canvas, title, [f"{row.label}: {row.note}" for row in rows]), note)


def _ticks(axes: Any, axis: Any, write: Write, *, log: bool) -> None:
    """Few ticks, none of which is so far to the right that its label would be cut off."""
    low, high = axis.get_view_interval()
    if log:
        axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 60 else (1.0, 2.0, 5.0), numticks=9))
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    last = high / (high / low) ** 0.03 if log else high - 0.03 * (high - low)
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
        if row.low is not None and row.high is not None:
            reach = [[row.value - row.low], [row.high - row.value]]
            axes.errorbar(row.value, y, xerr=reach, color=_INK, capsize=3, linewidth=1.2, zorder=3)
    axes.plot([value for _, value in row.points], [y] * len(row.points), color=colour, linewidth=1.6, zorder=2)
    for percentile, value in row.points:
        axes.plot(value, y, color=colour, zorder=3, **_MARKERS[percentile])
    if row.limit is not None:
        axes.plot([row.limit] * 2, [y - 0.22, y + 0.22], color=_INK, linewidth=2.4, zorder=3)


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
