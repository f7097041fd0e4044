"""What a run found out, as one JSON object and as a table. Times are in seconds in the one, readable in the other."""

from dataclasses import asdict
from typing import Any, TextIO

import orjson

from .exchange import Exchange
from .runner import Plan
from .samples import PERCENTILES
from .tally import Tally

Json = dict[str, Any]


def summary(url: str, plan: Plan, tally: Tally) -> Json:
    """The object that `--json` writes last."""
    return {
        "kind": "load",
        "url": url,
        "api": plan.api,
        "stream": plan.stream,
        "concurrency": plan.concurrency,
        "rate": plan.rate,
        "requests": tally.requests,
        "ok": tally.ok,
        "errors": dict(tally.errors),
        "unfinished": tally.unfinished,
        "seconds": tally.seconds,
        "tokens": tally.tokens,
        "tokens_per_s": _ratio(tally.tokens, tally.seconds),
        "ttft": tally.ttft.summary(),
        "itl": tally.itl.summary(),
        "e2e": tally.e2e.summary(),
        "transit": tally.transit.summary() if len(tally.transit) else None,
        "late": tally.late.summary() if len(tally.late) else None,
        "goodput": _goodput(tally),
        "server": _server(tally),
        "client": {"cpu_s": tally.client_cpu, "cpu_us_per_token": _ratio(tally.client_cpu * 1e6, tally.tokens)},
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _goodput(tally: Tally) -> Json | None:
    if not tally.slo:
        return None
    return {
        "slo": asdict(tally.slo),
        "requests_per_s": _ratio(tally.good, tally.seconds),
        "fraction": _ratio(tally.good, tally.requests),
    }


def _server(tally: Tally) -> Json | None:
    cost = tally.server
    if cost is None:
        return None
    return {
        "cpu_s": cost.cpu_s,
        "cpu_us_per_token": _ratio(cost.cpu_s * 1e6, tally.tokens),
        "rss_mib": cost.rss_mib,
        "rss_peak_mib": cost.rss_peak_mib,
    }


def line(exchange: Exchange, start: int) -> Json:
    """One request, for `--each`; moments are in seconds since the counted part began."""
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


def write(out: TextIO, value: Json) -> None:
    """One JSON line."""
    out.write(orjson.dumps(value).decode() + "\n")
    out.flush()


def table(result: Json) -> str:
    """For people."""
    how = f"{result['concurrency']} at once" if result["concurrency"] else f"{result['rate']:g} requests/s"
    lines = [
        f"{result['url']}  {result['api']}, {'streamed' if result['stream'] else 'whole'}, {how}",
        f"{result['requests']} requests in {result['seconds']:.2f} s, {result['ok']} ok, {_errors(result)}",
        f"{result['tokens']} tokens, {result['tokens_per_s'] or 0:,.0f} tokens/s",
        "",
        f"{'':<22}" + "".join(f"{name:>12}" for name in PERCENTILES) + f"{'n':>12}",
    ]
    names = {"ttft": "time to first token", "itl": "inter-token latency", "e2e": "end to end"}
    names |= {"transit": "transit of a token", "late": "generator late by"}
    lines += [_row(title, result[key]) for key, title in names.items() if result[key] is not None]
    return "\n".join([*lines, "", *_costs(result)])


def _errors(result: Json) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(result["errors"].items())) or "no errors"
    return kinds + (f", {result['unfinished']} unfinished" if result["unfinished"] else "")


def _row(title: str, values: Json) -> str:
    return f"{title:<22}" + "".join(f"{_duration(values[name]):>12}" for name in PERCENTILES) + f"{values['n']:>12}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.999995 else f"{seconds:.2f} s"


def _costs(result: Json) -> list[str]:
    lines = []
    good, server, client = result["goodput"], result["server"], result["client"]
    if good is not None:
        limits = ", ".join(f"{name} <= {limit:g} s" for name, limit in good["slo"].items() if limit is not None)
        lines.append(f"goodput  {good['requests_per_s'] or 0:.2f} requests/s, {good['fraction'] or 0:.1%} ({limits})")
    if server is not None:
        lines.append(
            f"server   {server['cpu_us_per_token'] or 0:.2f} µs CPU a token, "
            f"{server['rss_mib']:.1f} MiB resident, {server['rss_peak_mib']:.1f} MiB at most"
        )
    lines.append(f"client   {client['cpu_us_per_token'] or 0:.2f} µs CPU a token")
    return lines
