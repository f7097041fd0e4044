"""Figures of the rounds: ratios pair by pair, medians, and what the terminal shows of them."""

from typing import Any

from bench.peers.figures import added, cpu, median, memory, milliseconds, ratio, rounds_of
from bench.peers.table import costs, latencies


def record(server: str, number: int, cost: float | None, transit: float, kind: str = "peer") -> dict[str, Any]:
    measured = None if cost is None else {"cpu_us_per_token": cost, "rss_peak_mib": 30.0}
    latency = {"p50": transit, "p99": 2 * transit}
    load = {"server": measured, "tokens_per_s": 3200.0, "ttft": latency, "itl": latency, "transit": latency}
    return {"kind": kind, "run": "paced", "server": server, "label": f"the {server}", "round": number, "load": load}


RECORDS = [
    record("direct", 0, None, 0.001, "direct"),
    record("relay", 0, 10.0, 0.002),
    record("ours", 0, 20.0, 0.003),
    record("direct", 1, None, 0.010, "direct"),
    record("relay", 1, 40.0, 0.020),
    record("ours", 1, 60.0, 0.030),
    record("direct", 2, None, 0.001, "direct"),
    record("relay", 2, 10.0, 0.002),
    record("ours", 2, 16.0, 0.004),
    {"kind": "missing", "server": "nginx", "why": "not installed"},
]


def test_a_ratio_is_taken_within_a_round() -> None:
    ours, relay = (rounds_of(RECORDS, "paced", name, cpu) for name in ("ours", "relay"))
    assert median(ours) == 20.0
    assert ratio(ours, relay) == 1.6  # of 2.0, 1.5 and 1.6, where the medians would say 2
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_what_is_added_is_taken_within_a_round() -> None:
    read = milliseconds("transit", "p50")
    ours, direct = (rounds_of(RECORDS, "paced", name, read) for name in ("ours", "direct"))
    assert added(ours, direct) == 3.0
    assert milliseconds("transit", "p99")({"load": {"transit": None}}) is None


def test_a_server_without_a_process_costs_nothing_that_is_known() -> None:
    assert rounds_of(RECORDS, "paced", "direct", cpu) == {}
    assert rounds_of(RECORDS, "paced", "direct", memory) == {}
    assert rounds_of(RECORDS, "saturated", "ours", cpu) == {}


def test_the_tables_have_a_row_for_each_server_and_gaps_for_what_is_not_known() -> None:
    labels = {"direct": "the engine", "relay": "the relay", "ours": "us"}
    head, direct, relay, ours = costs(RECORDS, "paced", labels, labels)
    assert head.split() == ["CPU", "µs/token", "×", "relay", "tokens/s", "MiB"]
    assert direct.split() == ["the", "engine", "-", "-", "3200", "-"]
    assert relay.split() == ["the", "relay", "10", "1", "3200", "30"]
    assert ours.split() == ["us", "20", "1.6", "3200", "30"]
    last = latencies(RECORDS, "paced", labels, labels)[-1]
    assert last.split()[:5] == ["us", "4", "3", "8", "6"]
