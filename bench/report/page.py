"""The report as one HTML page that needs nothing else: no network, no script, its plots and its style inside it."""

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element

from . import words
from .figures import FIRST, settings, timed
from .markup import append, node, written
from .plots import (
    MEMORY,
    STREAMS,
    THROUGHPUT,
    Plot,
    cpu_plot,
    latency_plot,
    memory_plot,
    micro_plots,
    streams_plot,
    throughput_plot,
)
from .records import Records
from .style import CSS
from .tables import (
    NOTHING,
    Table,
    bars_table,
    cpu_table,
    fairness_table,
    hold_table,
    latency_table,
    machine_table,
    micro_table,
    peers_table,
    streams_table,
)

_TITLE: Final = "What a token costs"
_LATENCIES: Final = (("transit", "Transit time of a token"), ("ttft", "TTFT"))


_DOCUMENT: Final = f"""<!DOCTYPE html>
<html lang="en"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_TITLE}</title>
<style>{CSS}</style>
</head>
"""


def page(records: Records) -> str:
    """The whole document."""
    return f"{_DOCUMENT}{written(node('body', _opening(records), *_sections(records)))}\n</html>\n"


def _opening(records: Records) -> Element:
    return node(
        "header",
        node("h1", _TITLE),
        node("p", words.finding(records), class_="lead"),
        node("p", words.count(records), class_="lead"),
        node("p", words.place(records), class_="soft"),
        *(node("p", line, class_="missing") for line in words.missing(records)),
    )


def _sections(records: Records) -> list[Element]:
    return [
        _section("The numbers against the bars", _paragraph(words.HOW), _table(bars_table(records), captioned=False)),
        _cpu(records),
        _latencies(records),
        _streams(records),
        _operations(records),
        _section("Fairness", _table(fairness_table(records))),
        _section("The request side", _table(hold_table(records))),
        _peers(records),
        _section(
            "Machine and versions", _paragraph(words.others(records)), _table(machine_table(records), captioned=False)
        ),
    ]


def _section(title: str, *children: Element | None) -> Element:
    """A heading and what is there to say; where that is nothing, so it says."""
    return node("section", node("h2", title), *(child for child in children if child is not None))


def _paragraph(text: str) -> Element | None:
    return node("p", text, class_="soft") if text else None


def _absent() -> Element:
    return node("p", f"{NOTHING.capitalize()}.", class_="not-measured")


def _cpu(records: Records) -> Element:
    plots = _plots([cpu_plot(records, setting) for setting in timed(records)])
    table = cpu_table(records)
    generator = _paragraph(words.generator(records))
    return _section("CPU per token by server", plots, _table(table, captioned=False) if table.rows else None, generator)


def _latencies(records: Records) -> Element:
    """Only where tokens are paced: a server as fast as it can be has a queue, and a queue has no latency of its own."""
    loads = settings(records)
    shown = [(setting, name, what) for setting in loads if setting.rate for name, what in _LATENCIES]
    shown += [(setting, *_LATENCIES[-1]) for setting in loads if setting.run == FIRST]
    plots = _plots([latency_plot(records, *one) for one in shown])
    tables = [_table(latency_table(records, *one)) for one in shown]
    return _section("Added latency", _paragraph(words.LATENCY), plots, *tables)


def _streams(records: Records) -> Element:
    """What the number of streams does, and what there is to be had of everything."""
    saturated = [setting for setting in timed(records) if not setting.rate]
    speeds = [throughput_plot(records, setting) for setting in saturated]
    plots = [_panel(STREAMS, streams_plot(records)), _panel(MEMORY, memory_plot(records))]
    plots += [_panel(THROUGHPUT, speed) for speed in speeds or [None]]
    table = streams_table(records)
    return _section(
        "Streams, memory and throughput", node("div", *plots, class_="plots"), _table(table) if table else None
    )


def _operations(records: Records) -> Element:
    table = micro_table(records)
    plots = _plots(micro_plots(records))
    return _section("Operations against their floors", _paragraph(words.MICRO), plots, _table(table) if table else None)


def _peers(records: Records) -> Element:
    lines = words.errors(records)
    failed = node("ul", *(node("li", line) for line in lines)) if lines else _paragraph("No request failed in any run.")
    table = peers_table(records)
    if not table.rows:
        return _section("Peers", _absent())
    return _section("Peers", _table(table), node("h3", "Requests that failed"), failed)


def _plots(plots: Sequence[Plot | None]) -> Element:
    found = [plot for plot in plots if plot]
    if not found:
        return _absent()
    return node("div", *(_figure(plot) for plot in found), class_="plots")


def _panel(title: str, plot: Plot | None) -> Element:
    """A plot, or in its place that there is nothing to be drawn."""
    return _figure(plot) if plot else node("figure", node("figcaption", node("strong", title)), _absent())


def _figure(plot: Plot) -> Element:
    caption = node("figcaption", node("strong", plot.title))
    if plot.note:
        append(caption, node("small", plot.note))
    return node("figure", caption, plot.drawing)


def _table(table: Table | None, *, captioned: bool = True) -> Element:
    """A table, which scrolls by itself where it is too wide. Under a heading of the same words it has no caption."""
    if table is None:
        return _absent()
    caption = [node("caption", table.caption)] if captioned else []
    head = node("tr", *(node("th", cell, scope="col") for cell in table.head))
    body = [_line(table, row) for row in table.rows]
    kind = "numbers" if table.numeric else "words"
    found = node("table", *caption, node("thead", head), node("tbody", *body), class_=kind)
    return node("div", found, class_="wide", tabindex="0", role="region", aria_label=table.caption)


def _line(table: Table, row: Sequence[str]) -> Element:
    name, *cells = row
    line = node("tr", node("th", name, scope="row"))
    for label, cell in zip(table.head[1:], cells, strict=True):
        line.append(node("td", cell, data_label=label, class_=_STATES.get(cell, "")))
    return line


_STATES: Final = {"met": "met", "not met": "not-met", NOTHING: "not-measured"}
