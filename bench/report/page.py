"""The report as one HTML page: no network, no script; plots and style are inside it."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

from ..figures import TTFT_RUN, settings, timed
from ..records import Records
from . import plots, tables
from .bars import MET, NOT_MEASURED, NOT_MET
from .plots import Plot
from .tables import Table, clean

_TITLE: Final = "What a token costs"
_CSS: Final = Path(__file__).with_name("page.css")
_LATENCIES: Final = (("transit", "Transit time of a token"), ("ttft", "TTFT"))
_CLASSES: Final = {MET: "met", NOT_MET: "not-met", NOT_MEASURED: "not-measured"}


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def node(tag: str, *children: str, **attributes: str) -> Markup:
    """An element. Children that are not Markup are escaped. `class_` is written `class`, `aria_label` `aria-label`."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean(value))}"' for name, value in attributes.items() if value
    )
    inside = "".join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup(f"<{tag}{words}>{inside}</{tag}>")


def page(records: Records) -> str:
    """The whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_TITLE}</title>\n<style>\n{_CSS.read_text()}</style>\n</head>\n"
        f"{node('body', _opening(records), *_sections(records))}\n</html>\n"
    )


def _opening(records: Records) -> Markup:
    return node(
        "header",
        node("h1", _TITLE),
        node("p", tables.finding(records), class_="lead"),
        node("p", tables.verdict_count(records), class_="lead"),
        _paragraph(tables.provenance(records)),
        *(node("p", line, class_="missing") for line in tables.missing_servers(records)),
    )


def _sections(records: Records) -> list[Markup]:
    bars = tables.bars_table(records)
    return [
        _section(bars.caption, _paragraph(tables.HOW), _table(bars, captioned=False)),
        _cpu(records),
        _latencies(records),
        _streams(records),
        _section(
            "Operations against their floors",
            _paragraph(tables.MICRO),
            _plots(plots.micro_plots(records)),
            _table(tables.micro_table(records), absent=False),
        ),
        _section("Fairness", _table(tables.fairness_table(records))),
        _section("The request side", _table(tables.hold_table(records))),
        _peers(records),
        _section(
            "Machine and versions",
            _paragraph(tables.unknown_kinds(records)),
            _table(tables.machine_table(records), captioned=False),
        ),
    ]


def _section(title: str, *children: Markup) -> Markup:
    return node("section", node("h2", title), *children)


def _paragraph(text: str) -> Markup:
    return node("p", text, class_="soft") if text else Markup()


def _not_measured() -> Markup:
    return node("p", f"{NOT_MEASURED.capitalize()}.", class_="not-measured")


def _cpu(records: Records) -> Markup:
    drawn = _plots(plots.cpu_plot(records, setting) for setting in timed(records))
    shown = map(_table, tables.cost_tables(records))
    return _section("CPU per token and request", drawn, *shown, _paragraph(tables.generator_cost(records)))


def _latencies(records: Records) -> Markup:
    """Only where tokens are paced: a saturated server has a queue, whose length is all that its latency would show."""
    loads = settings(records)
    shown = [(setting, name, what) for setting in loads if setting.rate for name, what in _LATENCIES]
    shown += [(setting, *_LATENCIES[-1]) for setting in loads if setting.run == TTFT_RUN]
    drawn = _plots(plots.latency_plot(records, *one) for one in shown)
    listed = [_table(tables.latency_table(records, *one)) for one in shown]
    return _section("Added latency", _paragraph(tables.LATENCY), drawn, *listed)


def _streams(records: Records) -> Markup:
    speeds = [plots.throughput_plot(records, setting) for setting in timed(records) if not setting.rate]
    panels = [(plots.MEMORY, plots.memory_plot(records))]
    panels += [(plots.THROUGHPUT, speed) for speed in speeds or [None]]
    drawn = node("div", *(_panel(title, plot) for title, plot in panels), class_="plots")
    return _section("Streams, memory and throughput", drawn, _table(tables.pauses_table(records)))


def _peers(records: Records) -> Markup:
    table = tables.peers_table(records)
    if not table.rows:
        return _section("Servers", _not_measured())
    lines = tables.failed_requests(records)
    failed = node("ul", *(node("li", line) for line in lines)) if lines else _paragraph("No request failed in any run.")
    return _section("Servers", _table(table, captioned=False), node("h3", "Requests that failed"), failed)


def _plots(drawn: Iterable[Plot | None]) -> Markup:
    found = [_panel(plot.title, plot) for plot in drawn if plot]
    return node("div", *found, class_="plots") if found else _not_measured()


def _panel(title: str, plot: Plot | None) -> Markup:
    if plot is None:
        return node("figure", node("figcaption", node("strong", title)), _not_measured())
    note = node("small", plot.note) if plot.note else Markup()
    return node("figure", node("figcaption", node("strong", plot.title), note), Markup(plot.svg))


def _table(table: Table | None, *, captioned: bool = True, absent: bool = True) -> Markup:
    """A table that scrolls by itself where it is too wide. Without one, `absent` says that nothing was measured."""
    if table is None:
        return _not_measured() if absent else Markup()
    caption = node("caption", table.caption) if captioned else Markup()
    head = node("thead", node("tr", *(node("th", cell, scope="col") for cell in table.head)))
    body = node("tbody", *(_line(table, row) for row in table.rows))
    shown = node("table", caption, head, body, class_="numbers" if table.numeric else "words")
    return node("div", shown, class_="wide", tabindex="0", role="region", aria_label=table.caption)


def _line(table: Table, row: tuple[str, ...]) -> Markup:
    cells = zip(table.head[1:], row[1:], strict=True)
    data = (node("td", cell, data_label=label, class_=_CLASSES.get(cell, "")) for label, cell in cells)
    return node("tr", node("th", row[0], scope="row"), *data)
