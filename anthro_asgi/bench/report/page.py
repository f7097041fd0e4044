"""The page of a report: distributions, throughput, latency and good requests against load, and servers side by side."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..load.output import how
from ..records import Load, Percentiles
from . import charts
from .charts import Axis, Line, line_chart
from .html import Markup, Table, document, node, section, soft, table_node
from .numbers import GAP, duration, plain, plain_duration, significant, times
from .results import SHADES, Server

_TIMES: Final = (
    ("ttft", "Time to first token (TTFT)"),
    ("itl", "Inter-token latency (ITL, TPOT)"),
    ("e2e", "End to end (E2E)"),
)
_FIGURES: Final = ("requests/s", "tokens/s", "TTFT p50", "ITL p50", "E2E p50", "TTFT p99", "ITL p99", "E2E p99")
_MANY: Final = 4  # runs of a server whose distributions are drawn
_DEFINED: Final = (
    "ITL is (last chunk − first chunk) / (output tokens − 1), one value for each request; output tokens are those of "
    "the answer's usage. Latencies of an open loop count from the moment at which the request was due."
)

Quantity = Callable[[Load], float | None]


def page(servers: Sequence[Server], title: str) -> str:
    """The whole document."""
    parts = [
        section("Results", _table(servers), soft(_DEFINED), *_side_by_side(servers)),
        section("Distributions", _legend(servers), _distributions(servers)),
    ]
    for name, unit, runs in (("clients", "clients", Server.closed), ("the rate", "requests/s asked for", Server.open)):
        if any(len(runs(server)) > 1 for server in servers):
            parts.append(_against(f"Against {name}", unit, [(server.name, runs(server)) for server in servers]))
    parts += [_errors(servers), _runs(servers)]
    return document(title, node("header", node("h1", title), node("p", _lead(servers), class_="lead")), *parts)


def _lead(servers: Sequence[Server]) -> str:
    requests = sum(run.requests for server in servers for run in server.runs)
    failed = sum(sum(run.errors.values()) for server in servers for run in server.runs)
    names = ", ".join(server.name for server in servers)
    return f"{names}: {plain(requests)} requests, of which {plain(failed) if failed else 'none'} failed."


def _legend(servers: Sequence[Server]) -> Markup:
    items = (node("span", charts.mark(place), f" {server.name}") for place, server in enumerate(servers))
    return node("p", *items, class_="legend")


# --- tables ---


def _table(servers: Sequence[Server]) -> Markup:
    good = any(run.goodput for server in servers for run in server.runs)
    head = ("server, load", *_FIGURES, "failed", *(("goodput, requests/s", "good requests") if good else ()))
    rows = tuple(_row(server.name, run, good=good) for server in servers for run in server.runs)
    return table_node(Table("The runs", head, rows), {}, captioned=False)


def _row(name: str, run: Load, *, good: bool) -> tuple[str, ...]:
    values = [_rounded(run.requests_per_s), _rounded(run.tokens_per_s)]
    values += [_time(getattr(run, name)[part]) for part in ("p50", "p99") for name, _ in _TIMES]
    failed = plain(sum(run.errors.values()))
    asked = how(run).replace(" ", GAP)
    return (f"{name}, {asked}", *values, failed, *(_goodput(run) if good else ()))


def _goodput(run: Load) -> tuple[str, str]:
    if run.goodput is None:
        return "–", "–"
    return _rounded(run.goodput.requests_per_s), _percent(run.goodput.fraction or 0)


def _percent(share: float) -> str:
    return f"{plain(round(share * 100, 1))}{GAP}%"


def _limits(run: Load) -> str:
    """What a good request keeps, in words."""
    if run.goodput is None:
        return "no limits"
    limits = ((name.upper(), run.goodput.slo.get(name)) for name, _ in _TIMES)
    return ", ".join(f"{name} at most {plain_duration(limit)}" for name, limit in limits if limit is not None)


def _rounded(value: float | None) -> str:
    return "–" if value is None else significant(value)


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _side_by_side(servers: Sequence[Server]) -> Iterable[Markup]:
    """The second server as a multiple of the first, at each load that both had."""
    if len(servers) != 2:
        return []
    first, second = servers
    rows = []
    for run in first.runs:
        other = next((one for one in second.runs if (one.concurrency, one.rate) == (run.concurrency, run.rate)), None)
        if other is not None:
            pairs = zip(_figures(other), _figures(run), strict=True)
            rows.append((how(run), *("–" if not (a and b) else times(a / b) for a, b in pairs)))
    caption = f"{second.name}, as a multiple of {first.name}"
    return [table_node(Table(caption, ("load", *_FIGURES), tuple(rows)), {})] if rows else []


def _figures(run: Load) -> list[float | None]:
    parts = (getattr(run, name)[part] for part in ("p50", "p99") for name, _ in _TIMES)
    return [run.requests_per_s, run.tokens_per_s, *parts]


def _errors(servers: Sequence[Server]) -> Markup:
    rows = tuple(
        (server.name, how(run), kind, plain(count), run.error_details.get(kind, ""))
        for server in servers
        for run in server.runs
        for kind, count in run.errors.items()
    )
    if not rows:
        return section("Errors", soft("No request failed."))
    head = ("server", "load", "error", "requests", "what the first one said")
    return section("Errors", table_node(Table("Errors", head, rows, numeric=False), {}, captioned=False))


def _moment(date: str) -> str:
    """`2026-11-30 08:13:26 UTC` for a moment of `bench load`."""
    return date.replace("T", " ").replace("+00:00", f"{GAP}UTC")


def _runs(servers: Sequence[Server]) -> Markup:
    good = any(run.goodput for server in servers for run in server.runs)
    rows = tuple(
        (
            server.name,
            how(run),
            _moment(run.date),
            f"{run.url}, {run.api}, {'streamed' if run.stream else 'whole'}",
            run.workload,
            f"{_mean(run.input_tokens)} in, {_mean(run.output_tokens)} out",
            f"{plain(run.requests)} requests in {significant(run.seconds)} s, {run.unfinished} unfinished",
            f"{_time(run.late['p99'])} (p99)" if run.late else "closed loop",
            *((_limits(run),) if good else ()),
        )
        for server in servers
        for run in server.runs
    )
    what = ("when", "where", "requests", "tokens of a request (mean)", "length", "generator late by")
    head = ("server", "load", *what, *(("a good request",) if good else ()))
    return section("How it was measured", table_node(Table("Runs", head, rows, numeric=False), {}, captioned=False))


def _mean(values: Percentiles) -> str:
    return "not said" if values["mean"] is None else significant(values["mean"])


# --- charts ---


def _distributions(servers: Sequence[Server]) -> Markup:
    """For each latency, the share of requests that took at most so long."""
    figures = []
    for name, title in _TIMES:
        lines = [line for place, server in enumerate(servers) for line in _shares(server, place, name)]
        across = Axis("time, logarithmic", plain_duration, log=True)
        up = Axis("share of the requests", lambda value: f"{value:.0f}{GAP}%", ticks=(0, 25, 50, 75, 90, 100))
        note = "The share of requests that took at most this long; a stronger line is a greater load."
        figures.append(_figure(title, across, up, lines, note))
    return node("div", *figures, class_="plots")


def _shares(server: Server, place: int, name: str) -> list[Line]:
    step = max(1, -(-len(server.runs) // _MANY))
    drawn = server.runs[::-1][::step][::-1]  # the greatest load is always among them
    lines = []
    for number, run in enumerate(drawn, 1):
        values = run.quantiles.get(name) or []
        points = tuple((value, float(share)) for share, value in enumerate(values) if value > 0)
        opacity = SHADES[0] + (SHADES[1] - SHADES[0]) * number / len(drawn)
        lines += [Line(f"{server.name}, {how(run)}", points, place, opacity=opacity, marked=False)] if points else []
    return lines


def _against(title: str, unit: str, servers: Sequence[tuple[str, list[Load]]]) -> Markup:
    every = [run for _, runs in servers for run in runs]
    across = Axis(f"{unit}, logarithmic", plain, log=True, ticks=_loads(every))
    figures = [
        _load_figure("Output tokens/s", across, Axis("tokens/s", plain), servers, lambda run: run.tokens_per_s),
        _load_figure("Requests/s", across, Axis("requests/s", plain), servers, lambda run: run.requests_per_s),
    ]
    for name, text in _TIMES:
        figures.append(_latency_figure(text, across, Axis("time", plain_duration, log=True), servers, name))
    if any(run.goodput for run in every):
        rate = Axis("requests/s", plain)
        figures.append(_load_figure("Goodput: good requests/s", across, rate, servers, _good_rate))
        share = Axis("share", _percent, ticks=(0, 0.25, 0.5, 0.75, 1))
        figures.append(_load_figure("Share of good requests", across, share, servers, _good))
    return section(title, node("div", *figures, class_="plots"))


def _good(run: Load) -> float | None:
    return run.goodput.fraction if run.goodput else None


def _good_rate(run: Load) -> float | None:
    return run.goodput.requests_per_s if run.goodput else None


def _loads(runs: Sequence[Load]) -> tuple[float, ...]:
    """The loads themselves as ticks, where they are few."""
    found = tuple(sorted({float(run.concurrency or run.rate or 0) for run in runs}))
    return found if len(found) <= _MANY * 2 else ()


def _load_figure(
    title: str, across: Axis, up: Axis, servers: Sequence[tuple[str, list[Load]]], quantity: Quantity
) -> Markup:
    lines = [_series(name, runs, place, quantity) for place, (name, runs) in enumerate(servers)]
    return _figure(title, across, up, [line for line in lines if line.points], "")


def _latency_figure(title: str, across: Axis, up: Axis, servers: Sequence[tuple[str, list[Load]]], name: str) -> Markup:
    lines = []
    for place, (label, runs) in enumerate(servers):
        for part in ("p50", "p99"):
            line = _series(f"{label}, {part}", runs, place, _percentile(name, part), dashed=part == "p99")
            lines += [line] if line.points else []
    return _figure(title, across, up, lines, "p50 with filled marks, p99 dashed with hollow marks; logarithmic.")


def _percentile(name: str, part: str) -> Quantity:
    def quantity(run: Load) -> float | None:
        values: Percentiles = getattr(run, name)
        return values[part]

    return quantity


def _series(name: str, runs: Sequence[Load], place: int, quantity: Quantity, *, dashed: bool = False) -> Line:
    pairs = ((float(run.concurrency or run.rate or 0), quantity(run)) for run in runs)
    return Line(name, tuple((load, value) for load, value in pairs if value is not None), place, dashed=dashed)


def _figure(title: str, across: Axis, up: Axis, lines: Sequence[Line], note: str) -> Markup:
    caption = node("figcaption", node("strong", title), *([node("small", note)] if note else []))
    if not lines:
        return node("figure", caption, node("p", "Not measured.", class_="not-measured"))
    return node("figure", caption, line_chart(title, across, up, lines))
