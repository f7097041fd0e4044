"""The results of a run as a record and as a table, and its progress on standard error."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, TextIO

import orjson

from ..records import ClientCost, Goodput, Load, Percentiles, ServerCost
from .exchange import Exchange
from .runner import Flow, Plan
from .samples import PERCENTILES
from .tally import Tally, inter_token_latency

_COLUMNS: Final = ("mean", "std", *PERCENTILES)
QUANTILES: Final = ("ttft", "icl", "itl", "e2e")
_EVERY: Final = 5.0  # seconds between lines of progress
_ERASE: Final = "\r\x1b[2K"  # of the terminal's current line


def summary(url: str, plan: Plan, tally: Tally, *, label: str | None = None, workload: str = "") -> Load:
    """The record that `--json` writes last."""
    tokens, seconds = tally.tokens, tally.seconds
    slo = asdict(tally.slo)
    return Load(
        url=url,
        api=plan.api,
        stream=plan.stream,
        concurrency=plan.concurrency,
        rate=plan.rate,
        requests=tally.requests,
        ok=tally.ok,
        errors=dict(tally.errors),
        unfinished=tally.unfinished,
        seconds=seconds,
        requests_per_s=_ratio(tally.ok, seconds),
        chunks=tally.chunks,
        tokens=round(tokens),
        tokens_per_s=_ratio(tokens, seconds),
        input_tokens=tally.input_tokens.summary(),
        output_tokens=tally.output_tokens.summary(),
        ttft=tally.ttft.summary(),
        icl=tally.icl.summary(),
        itl=tally.itl.summary(),
        e2e=tally.e2e.summary(),
        transit=tally.transit.summary() if len(tally.transit) else None,
        late=tally.late.summary() if len(tally.late) else None,
        goodput=Goodput(slo, _ratio(tally.good, seconds), _ratio(tally.good, tally.requests)) if tally.slo else None,
        server=_server_cost(tally),
        client=ClientCost(tally.client_cpu, _ratio(tally.client_cpu * 1e6, tally.chunks)),
        error_details={kind: text for kind, text in tally.details.items() if text},
        quantiles={name: getattr(tally, name).quantiles() for name in QUANTILES},
        label=label or url,
        workload=workload,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _server_cost(tally: Tally) -> ServerCost | None:
    cost = tally.server
    if cost is None:
        return None
    return ServerCost(cost.cpu_s, _ratio(cost.cpu_s * 1e6, tally.chunks), cost.rss_mib, cost.rss_peak_mib)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def request_line(exchange: Exchange, start: int) -> dict[str, Any]:
    """One request, for `--each`. Moments are in seconds since the counted part began."""
    tokens = exchange.output_tokens or exchange.chunks
    return {
        "kind": "request",
        "number": exchange.conversation.number,
        "due": (exchange.due - start) / 1e9 if exchange.due else None,
        "sent": (exchange.sent - start) / 1e9 if exchange.sent else None,
        "ttft": (exchange.first - exchange.due) / 1e9 if exchange.first else None,
        "e2e": (exchange.over - exchange.due) / 1e9 if exchange.due else None,
        "itl": inter_token_latency(exchange.first, exchange.last, tokens) / 1e9,
        "chunks": exchange.chunks,
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "error": exchange.error,
        "detail": exchange.detail,
    }


def write(out: TextIO | None, value: dict[str, Any] | Load) -> None:
    """One JSON line."""
    if out is not None:
        out.write(orjson.dumps(value).decode() + "\n")
        out.flush()


def table(load: Load) -> str:
    """The results for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(load.errors.items())) or "no errors"
    kinds += f", {load.unfinished} unfinished" if load.unfinished else ""
    lines = [
        f"{load.url}  {load.api}, {'streamed' if load.stream else 'whole'}, {how(load)}",
        f"{load.requests} requests in {load.seconds:.2f} s, {load.ok} ok, {kinds}",
        *(f"  {kind}: {text}" for kind, text in sorted(load.error_details.items())),
        f"{load.requests_per_s or 0:.2f} requests/s, {load.tokens_per_s or 0:,.0f} output tokens/s",
        f"tokens of a request (mean): {_mean(load.input_tokens)} in, {_mean(load.output_tokens)} out",
        "",
        f"{'':<26}" + "".join(f"{name:>11}" for name in _COLUMNS) + f"{'n':>10}",
        _row("time to first token", load.ttft),
        _row("inter-token latency", load.itl),
        _row("inter-chunk latency", load.icl),
        _row("end to end", load.e2e),
    ]
    lines += [_row("transit of a chunk", load.transit)] if load.transit else []
    lines += [_row("generator late by", load.late)] if load.late else []
    lines.append("")
    if load.goodput is not None:
        good = load.goodput
        limits = ", ".join(f"{name} <= {limit:g} s" for name, limit in good.slo.items() if limit is not None)
        share = f"{good.fraction or 0:.1%} of the requests are good"
        lines.append(f"goodput  {good.requests_per_s or 0:.2f} requests/s: {share} ({limits})")
    if load.server is not None:
        cost = load.server
        memory = f"{cost.rss_mib:.1f} MiB resident, {cost.rss_peak_mib:.1f} MiB at most"
        lines.append(f"server   {cost.cpu_us_per_chunk or 0:.2f} µs CPU per chunk, {memory}")
    lines.append(f"client   {load.client.cpu_us_per_chunk or 0:.2f} µs CPU per chunk")
    return "\n".join(lines)


def sweep_table(loads: Sequence[Load]) -> str:
    """One line for each run."""
    head = ("load", "requests/s", "tokens/s", "TTFT p50", "TTFT p99", "ITL p50", "ITL p99", "E2E p50", "E2E p99")
    good = any(load.goodput for load in loads)
    lines = [f"{head[0]:<20}" + "".join(f"{name:>12}" for name in head[1:]) + f"{'failed':>8}" + "      good" * good]
    for load in loads:
        cells = [f"{load.requests_per_s or 0:.2f}", f"{load.tokens_per_s or 0:,.0f}"]
        cells += [_duration(values[name]) for values in (load.ttft, load.itl, load.e2e) for name in ("p50", "p99")]
        failed = f"{sum(load.errors.values()):>8}"
        share = f"{load.goodput.fraction or 0:>10.1%}" if load.goodput else ""
        lines.append(f"{how(load):<20}" + "".join(f"{cell:>12}" for cell in cells) + failed + share)
    return "\n".join(lines)


def how(load: Load) -> str:
    """The load in words: `8 at once`, `20 requests/s`."""
    return f"{load.concurrency} at once" if load.concurrency else f"{load.rate:g} requests/s"


def _mean(values: Percentiles) -> str:
    return "not reported" if values["mean"] is None else f"{values['mean']:,.1f}"


def _row(title: str, values: Percentiles) -> str:
    return f"{title:<26}" + "".join(f"{_duration(values[name]):>11}" for name in _COLUMNS) + f"{values['n']:>10}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.999995 else f"{seconds:.2f} s"


class Progress:
    """A Watch: a line every few seconds; on a terminal one line that is renewed. Call `end` before other output."""

    def __init__(self, plan: Plan, out: TextIO = sys.stderr) -> None:
        self._plan = plan
        self._out = out
        self._live = out.isatty()
        self._due = monotonic() + (0.0 if self._live else _EVERY)

    def __call__(self, part: str, flow: Flow, tally: Tally) -> None:
        now = monotonic()
        if now < self._due:
            return
        self._due = now + (0.0 if self._live else _EVERY)
        lasted = now - tally.began / 1e9
        end = f" of {self._plan.requests}" if self._plan.requests else ""
        rate = f", {tally.tokens / lasted:,.0f} tokens/s in {lasted:.0f} s" if tally.counting else ""
        text = f"{part}: {flow.done}{end} done, {len(flow.open)} open, {tally.errors.total()} errors{rate}"
        self._out.write(f"{_ERASE}{text}" if self._live else f"{text}\n")
        self._out.flush()

    def end(self) -> None:
        """Erase the line."""
        if self._live:
            self._out.write(_ERASE)
            self._out.flush()
