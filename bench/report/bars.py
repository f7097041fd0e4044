"""The bars of the bench: what may cost how much, as data, and the verdict on each by what the records say.

Nothing measured is written down here. A bar without records is `not measured`, which is not the same as met.
"""

from dataclasses import dataclass
from textwrap import shorten
from typing import Final

from .figures import FIRST, Figure
from .measures import (
    AddedLatency,
    AsgiRatio,
    CostGrowth,
    CpuRatio,
    LongestHold,
    Measure,
    MicroRatio,
    StreamErrors,
    StreamMemory,
)
from .numbers import GAP, Show, duration, growth, honest, kibibytes, part, plain, plain_duration, reach, times, whole
from .records import Missing, Records
from .servers import FLOOR, LITELLM, NGINX, OURS, OURS_BARE, ROUTER, named

MET: Final = "met"
NOT_MET: Final = "not met"
NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """`measure` may be at most `limit`; `text` says the limit in words, `show` writes what was measured."""

    what: str
    text: str
    limit: float
    show: Show
    measure: Measure


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what became of it: `state` is MET, NOT_MET or NOT_MEASURED."""

    bar: Bar
    figure: Figure | None
    state: str
    measured: str


def _times(what: str, limit: float, of: str, measure: Measure) -> Bar:
    return Bar(what, f"≤{GAP}{plain(limit)}{GAP}× {of}", limit, times, measure)


def _part(what: str, whole_parts: int, of: str, measure: Measure) -> Bar:
    return Bar(what, f"≤{GAP}1/{whole_parts} of {of}", 1 / whole_parts, part, measure)


def _added(what: str, limit: float, name: str, percentile: str, run: str = "paced") -> Bar:
    return Bar(what, f"≤{GAP}{plain_duration(limit)}", limit, duration, AddedLatency(run, OURS, name, percentile))


_MOST_SAID: Final = 160  # characters of why there is no record; all of it stands elsewhere
_LOADS: Final = "orjson.loads of the chunk"
_SATURATED: Final = "proxy, saturated: CPU per token"
_PACED: Final = "proxy, paced: CPU per token"
_BARE: Final = "without the fast extra (h11)"
_STEADY: Final = "text, steady state"  # how the names of micro records begin whose tokens may take the short way
_AGENT: Final = "check and convert, agent"

BARS: Final = (
    _times("text token, steady state, bytes to bytes", 1, _LOADS, MicroRatio("conversion", _STEADY)),
    _times("token on the general path, bytes to bytes", 2, _LOADS, MicroRatio("conversion", but="text, ")),
    _part(_SATURATED, 3, "claude-code-router core", CpuRatio("saturated", OURS, ROUTER)),
    _part(_SATURATED, 120, "LiteLLM proxy", CpuRatio("saturated", OURS, LITELLM)),
    _times(_SATURATED, 2, "the byte relay", CpuRatio("saturated", OURS, FLOOR)),
    _times(_PACED, 1.7, "the byte relay", CpuRatio("paced", OURS, FLOOR)),
    _times(_PACED, 1.8, "nginx", CpuRatio("paced", OURS, NGINX)),
    _part(_PACED, 4, "claude-code-router core", CpuRatio("paced", OURS, ROUTER)),
    _added("proxy, paced: added inter-token latency, p50", 100e-6, "transit", "p50"),
    _added("proxy, paced: added inter-token latency, p99", 1e-3, "transit", "p99"),
    _added("proxy, paced: added TTFT, p50, one stream beginning among 64", 1e-3, "ttft", "p50"),
    _added("proxy, one stream after the other: added TTFT, p50", 1e-3, "ttft", "p50", FIRST),
    _times("simulated engine: CPU per token", 1.3, "a raw ASGI application", AsgiRatio()),
    Bar(
        "CPU per token, 1\u202f000 streams against 10", f"≤{GAP}20{GAP}% more", 1.2, growth, CostGrowth(OURS, 10, 1000)
    ),
    Bar("memory of an open proxied stream", f"≤{GAP}40{GAP}KiB", 40, kibibytes, StreamMemory(OURS)),
    Bar("8\u202f000 proxied streams at once: errors", "none", 0, whole, StreamErrors(OURS, 8000)),
    _times("1 MB agent request: validate and convert", 2, "orjson.loads of it", MicroRatio("request", _AGENT)),
    Bar("event loop held by one request", f"≤{GAP}{plain_duration(5e-3)}", 5e-3, duration, LongestHold()),
    _times(f"{_BARE}, saturated: CPU per token", 3, "with it", CpuRatio("saturated", OURS_BARE, OURS)),
    _times(f"{_BARE}, paced: CPU per token", 3, "with it", CpuRatio("paced", OURS_BARE, OURS)),
)


def judge(records: Records) -> list[Verdict]:
    """Every bar, in order."""
    return [_verdict(records, bar, bar.measure.of(records)) for bar in BARS]


def _verdict(records: Records, bar: Bar, found: Figure | None) -> Verdict:
    if found is None:
        return Verdict(bar, None, NOT_MEASURED, _why(records, bar))
    return Verdict(bar, found, MET if found.median <= bar.limit else NOT_MET, spelled(bar, found))


def _why(records: Records, bar: Bar) -> str:
    missing = [item for item in records.of(Missing) if item.server in bar.measure.servers()]
    said = dict.fromkeys(f"{named(records, item.server)}: {item.why}" for item in missing)
    return shorten("; ".join(("no record", *said)), _MOST_SAID, placeholder=" …")


def spelled(bar: Bar, found: Figure) -> str:
    """What was measured, over how many rounds, and what went wrong in them."""
    return "".join((honest(bar.show, found.median, bar.limit), _spread(bar.show, found), _notes(found)))


def _spread(show: Show, found: Figure) -> str:
    if len(found.values) == 1:
        return ""
    return f" ({reach(show(found.low, 3), show(found.high, 3))} in {len(found.values)} rounds)"


def _notes(found: Figure) -> str:
    detail = f" (the worst: {found.detail})" if found.detail else ""
    failed = f"; {found.failed} requests failed in these runs" if found.failed else ""
    return detail + failed
