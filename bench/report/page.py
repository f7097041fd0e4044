"""The report as one HTML page: no network, no script; plots and style are inside it."""

from collections.abc import Iterable
from typing import Final

from anthro_asgi.bench.report.html import Markup, Table, document, node, section, soft, table_node

from ..figures import TTFT_RUN, settings, timed
from ..records import Records
from . import plots, tables
from .bars import MET, NOT_MEASURED, NOT_MET
from .plots import Plot

_TITLE: Final = "What a token costs"
_LATENCIES: Final = (("transit", "Transit time of a token"), ("ttft", "TTFT"))
_CLASSES: Final = {MET: "met", NOT_MET: "not-met", NOT_MEASURED: "not-measured"}


def page(records: Records) -> str:
    """The whole document."""
    return document(_TITLE, _opening(records), *_sections(records))


def _opening(records: Records) -> Markup:
    return node(
        "header",
        node("h1", _TITLE),
        node("p", tables.finding(records), class_="lead"),
        node("p", tables.verdict_count(records), class_="lead"),
        soft(tables.provenance(records)),
        *(node("p", line, class_="missing") for line in tables.missing_servers(records)),
    )


def _sections(records: Records) -> list[Markup]:
    bars = tables.bars_table(records)
    return [
        section(bars.caption, soft(tables.HOW), _table(bars, captioned=False)),
        _cpu(records),
        _latencies(records),
        _streams(records),
        section(
            "Operations against their floors",
            soft(tables.MICRO),
            _plots(plots.micro_plots(records)),
            _table(tables.micro_table(records), absent=False),
        ),
        section("Fairness", _table(tables.fairness_table(records))),
        section("The request side", _table(tables.hold_table(records))),
        _peers(records),
        section(
            "Machine and versions",
            soft(tables.unknown_kinds(records)),
            _table(tables.machine_table(records), captioned=False),
        ),
    ]


def _not_measured() -> Markup:
    return node("p", f"{NOT_MEASURED.capitalize()}.", class_="not-measured")


def _cpu(records: Records) -> Markup:
    drawn = _plots(plots.cpu_plot(records, setting) for setting in timed(records))
    shown = map(_table, tables.cost_tables(records))
    return section("CPU per token and request", drawn, *shown, soft(tables.generator_cost(records)))


def _latencies(records: Records) -> Markup:
    """Only where tokens are paced: a saturated server has a queue, whose length is all that its latency would show."""
    loads = settings(records)
    shown = [(setting, name, what) for setting in loads if setting.rate for name, what in _LATENCIES]
    shown += [(setting, *_LATENCIES[-1]) for setting in loads if setting.run == TTFT_RUN]
    drawn = _plots(plots.latency_plot(records, *one) for one in shown)
    listed = [_table(tables.latency_table(records, *one)) for one in shown]
    return section("Added latency", soft(tables.LATENCY), drawn, *listed)


def _streams(records: Records) -> Markup:
    speeds = [plots.throughput_plot(records, setting) for setting in timed(records) if not setting.rate]
    panels = [(plots.MEMORY, plots.memory_plot(records))]
    panels += [(plots.THROUGHPUT, speed) for speed in speeds or [None]]
    drawn = node("div", *(_panel(title, plot) for title, plot in panels), class_="plots")
    return section("Streams, memory and throughput", drawn, _table(tables.pauses_table(records)))


def _peers(records: Records) -> Markup:
    table = tables.peers_table(records)
    if not table.rows:
        return section("Servers", _not_measured())
    lines = tables.failed_requests(records)
    failed = node("ul", *(node("li", line) for line in lines)) if lines else soft("No request failed in any run.")
    return section("Servers", _table(table, captioned=False), node("h3", "Requests that failed"), failed)


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
    return table_node(table, _CLASSES, captioned=captioned)
