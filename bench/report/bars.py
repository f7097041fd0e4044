"""The bars: how much each thing may cost, as data, and the verdict on each from the records.

A bar without records is `not measured`, which is not the same as met.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Final

from anthro_asgi.bench.report.numbers import (
    GAP,
    Show,
    distinct,
    duration,
    growth,
    kibibytes,
    micros,
    part,
    plain,
    plain_duration,
    span,
    times,
)

from ..figures import (
    TTFT_RUN,
    Figure,
    added,
    against,
    asgi_costs,
    figure,
    latency,
    level,
    main_setting,
    operations,
    ratios,
    server_cpu,
    settings,
)
from ..records import DIRECT, Hold, Memory, Missing, Pauses, Records, Run, Start

FLOOR: Final = "relay"
OURS: Final = "ours-fast"
OURS_H11: Final = "ours-h11"
OURS_NATIVE: Final = "ours-native"
OURS_LOOP: Final = "ours-loop"
NGINX: Final = "nginx"
HAPROXY: Final = "haproxy"
ENVOY: Final = "envoy"
ROLTER: Final = "rolter"
DYNAMO: Final = "dynamo"
ROUTER: Final = "ccr"
LITELLM: Final = "litellm"
NAMES: Final = {  # in the order of tables and plots
    DIRECT: "the engine itself",
    FLOOR: "byte relay",
    NGINX: "nginx",
    HAPROXY: "HAProxy",
    ENVOY: "Envoy",
    ROLTER: "rolter",
    OURS_NATIVE: "ours, fast and native",
    OURS_LOOP: "ours, fast and native, without a thread",
    OURS: "ours, fast",
    OURS_H11: "ours, h11",
    ROUTER: "claude-code-router core",
    DYNAMO: "NVIDIA Dynamo's frontend",
    LITELLM: "LiteLLM proxy",
}

MET: Final = "met"
NOT_MET: Final = "not met"
NOT_MEASURED: Final = "not measured"

PACED_LIMIT: Final = 1.6  # CPU per token, paced, as a multiple of the byte relay's
NATIVE_LIMIT: Final = 0.9  # the same with the native path
MEMORY_LIMIT: Final = 40.0  # KiB per open stream
NATIVE_MEMORY_LIMIT: Final = 18.0
_MANY: Final = 24  # streams; the bars hold for this number and for more

Measure = Callable[[Records], Figure | None]


@dataclass(frozen=True, slots=True)
class Bar:
    """The median of `measure` may be at most `limit`, which `text` writes out. `servers` are those it needs."""

    what: str
    text: str
    limit: float
    show: Show
    measure: Measure
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state` is MET, NOT_MET or NOT_MEASURED."""

    bar: Bar
    state: str
    measured: str


def named(records: Records, server: str) -> str:
    """The label of a server in the records, else the default one."""
    labels = (run.label for run in records.of(Run) if run.server == server)
    return next(labels, NAMES.get(server, server))


# measures


def micro_ratio(group: str, prefix: str = "", excluded: str | None = None) -> Measure:
    """The worst ratio of the group's operations whose names start with `prefix` and not with `excluded`."""

    def measure(records: Records) -> Figure | None:
        found = [one for one in operations(records) if one.group == group and one.name.startswith(prefix)]
        found = [one for one in found if excluded is None or not one.name.startswith(excluded)]
        worst = max(found, key=lambda one: one.ratio.median, default=None)
        return None if worst is None else replace(worst.ratio, detail=worst.name if len(found) > 1 else "")

    return measure


def cpu_ratio(run: str, server: str, base: str) -> Measure:
    """CPU per token as a multiple of another server's: the worst of the numbers of streams that the bars are for."""

    def measure(records: Records) -> Figure | None:
        loads = [one for one in settings(records, run) if not one.rate or one.streams >= _MANY]
        found = [(one, ratio) for one in loads if (ratio := against(records, one, server, base, server_cpu))]
        if not found:
            return None
        setting, worst = max(found, key=lambda pair: pair[1].median)
        return replace(worst, detail=f"{setting.streams} streams" if len(found) > 1 else "")

    return measure


def request_cost(run: str) -> Measure:
    """Microseconds of our CPU per request."""

    def measure(records: Records) -> Figure | None:
        setting = main_setting(records, run)
        return level(records, setting, OURS, server_cpu) if setting else None

    return measure


def added_latency(run: str, name: str, percentile: str) -> Measure:
    """Seconds that our service adds to a percentile of `ttft` or `transit` of the engine itself."""

    def measure(records: Records) -> Figure | None:
        setting = main_setting(records, run)
        return added(records, setting, OURS, latency(name, percentile)) if setting else None

    return measure


def cost_growth(few: int, many: int) -> Measure:
    """CPU per token with `many` streams as a multiple of that with `few`, in one run of `bench pauses`."""

    def measure(records: Records) -> Figure | None:
        costs = {item.streams: item.cpu_us_per_token for item in records.of(Pauses) if item.server == OURS}
        less, more = costs.get(few), costs.get(many)
        return figure([more / less] if less and more else [])

    return measure


def stream_memory(server: str) -> Measure:
    """KiB per open stream."""
    return lambda records: figure(one.rss_kib_per_stream for one in records.of(Memory) if one.server == server)


def start_seconds(records: Records) -> Figure | None:
    """Seconds until our process answers."""
    return figure(item.seconds for item in records.of(Start) if item.server == OURS)


def paused(streams: int, value: Callable[[Pauses], float | None]) -> Measure:
    """Seconds with this many streams open, all of which succeeded."""

    def measure(records: Records) -> Figure | None:
        found = (value(item) for item in records.of(Pauses) if (item.server, item.streams) == (OURS, streams))
        return figure(one for one in found if one is not None)

    return measure


def asgi_ratio(records: Records) -> Figure | None:
    """CPU per token of the simulated engine as a multiple of a raw ASGI application's."""
    return figure(ratios(asgi_costs(records, "simulated"), asgi_costs(records, "raw")))


def longest_hold(records: Records) -> Figure | None:
    """Seconds, over all request bodies."""
    holds = [hold.longest_s for hold in records.of(Hold)]
    return figure([max(holds)] if holds else [])


# the bars

_SATURATED: Final = "proxy, saturated: CPU per token"
_PACED: Final = "proxy, paced: CPU per token"
_NATIVE: Final = " with the native path"
_H11: Final = "without the fast extra (h11)"


def _micro(what: str, limit: float, of: str, measure: Measure) -> Bar:
    return Bar(what, f"≤{GAP}{plain(limit)}{GAP}× {of}", limit, times, measure)


def _cpu(what: str, limit: float, of: str, run: str, base: str, server: str = OURS) -> Bar:
    fraction = limit < 0.5
    text = f"≤{GAP}1/{round(1 / limit)} of {of}" if fraction else f"≤{GAP}{plain(limit)}{GAP}× {of}"
    return Bar(what, text, limit, part if fraction else times, cpu_ratio(run, server, base), (server, base))


def _memory(what: str, limit: float, server: str) -> Bar:
    return Bar(what, f"≤{GAP}{plain(limit)}{GAP}KiB", limit, kibibytes, stream_memory(server), (server,))


def _paused(what: str, limit: float, value: Callable[[Pauses], float | None]) -> Bar:
    text = f"≤{GAP}{plain_duration(limit)}"
    return Bar(f"8\u202f000 streams open: {what}", text, limit, duration, paused(8000, value), (OURS,))


def _added(what: str, limit: float, name: str, percentile: str, run: str = "paced") -> Bar:
    text = f"≤{GAP}{plain_duration(limit)}"
    return Bar(what, text, limit, duration, added_latency(run, name, percentile), (OURS,))


BARS: Final = (
    _micro(
        "text token, steady state, bytes to bytes",
        1,
        "orjson.loads of the chunk",
        micro_ratio("conversion", "text, steady state"),
    ),
    _micro(
        "token on the general path, bytes to bytes",
        2,
        "orjson.loads of the chunk",
        micro_ratio("conversion", excluded="text, "),
    ),
    _cpu(_SATURATED, 1 / 3, "claude-code-router core", "saturated", ROUTER),
    _cpu(_SATURATED, 1 / 120, "LiteLLM proxy", "saturated", LITELLM),
    _cpu(_SATURATED, 2, "the byte relay", "saturated", FLOOR),
    _cpu(_PACED, PACED_LIMIT, "the byte relay", "paced", FLOOR),
    _cpu(f"CPU per paced token{_NATIVE}", NATIVE_LIMIT, "the byte relay", "paced", FLOOR, OURS_NATIVE),
    _cpu(f"CPU per paced token{_NATIVE}", NATIVE_LIMIT, "nginx", "paced", NGINX, OURS_NATIVE),
    _cpu(f"CPU per paced token{_NATIVE}, without a thread", 1.05, "nginx", "paced", NGINX, OURS_LOOP),
    _cpu(f"CPU per token in lockstep{_NATIVE}", 1, "nginx", "lockstep", NGINX, OURS_NATIVE),
    _cpu(
        f"CPU per paced token, Unix sockets on both sides{_NATIVE}",
        0.6,
        "the byte relay over TCP",
        "paced, Unix sockets",
        FLOOR,
        f"{OURS_NATIVE}-unix",
    ),
    _cpu(f"CPU per token, as fast as possible{_NATIVE}", 0.6, "the byte relay", "saturated", FLOOR, OURS_NATIVE),
    _cpu(_PACED, 1.8, "nginx", "paced", NGINX),
    _cpu(_PACED, 1 / 4, "claude-code-router core", "paced", ROUTER),
    _added("proxy, paced: added inter-token latency, p50", 100e-6, "transit", "p50"),
    _added("proxy, paced: added inter-token latency, p99", 1e-3, "transit", "p99"),
    _added("proxy, paced: added TTFT, p50, one stream beginning among 64", 1e-3, "ttft", "p50"),
    _added("proxy, one stream after the other: added TTFT, p50", 1e-3, "ttft", "p50", TTFT_RUN),
    _micro("simulated engine: CPU per token", 1.3, "a raw ASGI application", asgi_ratio),
    Bar("small request: CPU", f"≤{GAP}200{GAP}µs", 200, micros, request_cost("small request"), (OURS,)),
    Bar("agent request, 86 KB: CPU", f"≤{GAP}400{GAP}µs", 400, micros, request_cost("agent request, 86 KB"), (OURS,)),
    Bar("start to first answer", f"≤{GAP}{plain_duration(0.2)}", 0.2, duration, start_seconds, (OURS,)),
    Bar(
        "CPU per token, 8\u202f000 streams against 64",
        f"≤{GAP}25{GAP}% more",
        1.25,
        growth,
        cost_growth(64, 8000),
        (OURS,),
    ),
    _paused("longest garbage collection", 5e-3, lambda item: item.collection_s),
    _paused("transit of a token, p99", 5e-3, lambda item: item.transit.get("p99")),
    _paused("TTFT, p99", 20e-3, lambda item: item.ttft.get("p99")),
    _memory("memory of an open stream, in Python", MEMORY_LIMIT, OURS),
    _memory(f"memory of an open stream{_NATIVE}", NATIVE_MEMORY_LIMIT, OURS_NATIVE),
    _micro(
        "1 MB agent request: validate and convert",
        2,
        "orjson.loads of it",
        micro_ratio("request", "check and convert, agent"),
    ),
    Bar("event loop held by one request", f"≤{GAP}{plain_duration(5e-3)}", 5e-3, duration, longest_hold),
    _cpu(f"{_H11}, saturated: CPU per token", 3, "with it", "saturated", OURS, OURS_H11),
    _cpu(f"{_H11}, paced: CPU per token", 3, "with it", "paced", OURS, OURS_H11),
)


def judge(records: Records) -> list[Verdict]:
    """The verdict on every bar, in order."""
    return [_verdict(records, bar) for bar in BARS]


def _verdict(records: Records, bar: Bar) -> Verdict:
    found = bar.measure(records)
    if found is None:
        missing = [item for item in records.of(Missing) if item.server in bar.servers]
        reasons = dict.fromkeys(f"{named(records, item.server)}: {item.why}" for item in missing)
        return Verdict(bar, NOT_MEASURED, shorten("; ".join(("no record", *reasons)), 160, placeholder=" …"))
    text = distinct(bar.show, found.median, bar.limit)
    if len(found.values) > 1:
        among = "half of the windows" if found.many else f"{len(found.values)} rounds"
        text += f" ({span(bar.show(found.low, 3), bar.show(found.high, 3))} in {among})"
    text += f" (the worst: {found.detail})" if found.detail else ""
    text += f"; {found.failed} requests failed in these runs" if found.failed else ""
    return Verdict(bar, MET if found.median <= bar.limit else NOT_MET, text)
