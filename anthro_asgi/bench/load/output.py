"""The results of a run as a record and as a table, and its progress on standard error."""

import sys
from dataclasses import asdict
from time import monotonic
from typing import Any, Final, TextIO

import orjson

from ..records import ClientCost, Goodput, Load, Percentiles, ServerCost
from .exchange import Exchange
from .runner import Flow, Plan
from .tally import PERCENTILES, Tally

_EVERY: Final = 5.0  # seconds between lines of progress
_ERASE: Final = "\r\x1b[2K"  # of the terminal's current line


def summary(url: str, plan: Plan, tally: Tally) -> Load:
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
        tokens=tokens,
        tokens_per_s=_ratio(tokens, seconds),
        ttft=tally.ttft.summary(),
        itl=tally.itl.summary(),
        e2e=tally.e2e.summary(),
        transit=tally.transit.summary() if len(tally.transit) else None,
        late=tally.late.summary() if len(tally.late) else None,
        goodput=Goodput(slo, _ratio(tally.good, seconds), _ratio(tally.good, tally.requests)) if tally.slo else None,
        server=_server_cost(tally),
        client=ClientCost(tally.client_cpu, _ratio(tally.client_cpu * 1e6, tokens)),
    )


def _server_cost(tally: Tally) -> ServerCost | None:
    cost = tally.server
    if cost is None:
        return None
    return ServerCost(cost.cpu_s, _ratio(cost.cpu_s * 1e6, tally.tokens), cost.rss_mib, cost.rss_peak_mib)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def request_line(exchange: Exchange, start: int) -> dict[str, Any]:
    """One request, for `--each`. Moments are in seconds since the counted part began."""
    return {
        "kind": "request",
        "number": exchange.number,
        "due": (exchange.due - start) / 1e9 if exchange.due else None,
        "sent": (exchange.sent - start) / 1e9 if exchange.sent else None,
        "ttft": (exchange.first - exchange.due) / 1e9 if exchange.first else None,
        "e2e": (exchange.over - exchange.due) / 1e9 if exchange.due else None,
        "tokens": exchange.tokens,
        "error": exchange.error,
    }


def write(out: TextIO | None, value: dict[str, Any] | Load) -> None:
    """One JSON line."""
    if out is not None:
        out.write(orjson.dumps(value).decode() + "\n")
        out.flush()


def table(load: Load) -> str:
    """The results for people."""
    how = f"{load.concurrency} at once" if load.concurrency else f"{load.rate:g} requests/s"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(load.errors.items())) or "no errors"
    kinds += f", {load.unfinished} unfinished" if load.unfinished else ""
    lines = [
        f"{load.url}  {load.api}, {'streamed' if load.stream else 'whole'}, {how}",
        f"{load.requests} requests in {load.seconds:.2f} s, {load.ok} ok, {kinds}",
        f"{load.tokens} tokens, {load.tokens_per_s or 0:,.0f} tokens/s",
        "",
        f"{'':<22}" + "".join(f"{name:>12}" for name in PERCENTILES) + f"{'n':>12}",
        _row("time to first token", load.ttft),
        _row("inter-token latency", load.itl),
        _row("end to end", load.e2e),
    ]
    lines += [_row("transit of a token", load.transit)] if load.transit else []
    lines += [_row("generator late by", load.late)] if load.late else []
    lines.append("")
    if load.goodput is not None:
        good = load.goodput
        limits = ", ".join(f"{name} <= {limit:g} s" for name, limit in good.slo.items() if limit is not None)
        lines.append(f"goodput  {good.requests_per_s or 0:.2f} requests/s, {good.fraction or 0:.1%} ({limits})")
    if load.server is not None:
        cost = load.server
        memory = f"{cost.rss_mib:.1f} MiB resident, {cost.rss_peak_mib:.1f} MiB at most"
        lines.append(f"server   {cost.cpu_us_per_token or 0:.2f} µs CPU per token, {memory}")
    lines.append(f"client   {load.client.cpu_us_per_token or 0:.2f} µs CPU per token")
    return "\n".join(lines)


def _row(title: str, values: Percentiles) -> str:
    return f"{title:<22}" + "".join(f"{_duration(values[name]):>12}" for name in PERCENTILES) + f"{values['n']:>12}"


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
