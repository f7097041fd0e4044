"""What the cross-check reads from the tools' results, and how it judges them. The tools run in the command itself."""

from tests.checks.crosscheck.command import EXPECTED_RATE, Medians, read_aiperf, read_guidellm, table

TOLERANCE = {"ttft": 10.0, "itl": 0.5, "rate": 0.06}


def test_the_medians_of_aiperf_are_read() -> None:
    result = {
        "time_to_first_token": {"unit": "ms", "avg": 105.0, "p50": 104.9},
        "inter_token_latency": {"unit": "ms", "avg": 20.1, "p50": 20.05},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 379.6},
    }
    assert read_aiperf(result, "messages") == Medians("AIPerf", "messages", 104.9, 20.05, 379.6)


def test_the_medians_of_guidellm_are_read() -> None:
    metrics = {
        "time_to_first_token_ms": {"successful": {"percentiles": {"p50": 103.0}}},
        "inter_token_latency_ms": {"successful": {"percentiles": {"p50": 20.2}}},
        "output_tokens_per_second": {"successful": {"mean": 380.0}},
    }
    assert read_guidellm({"benchmarks": [{"metrics": metrics}]}, "chat") == Medians(
        "guidellm", "chat", 103.0, 20.2, 380.0
    )


def test_each_figure_must_be_within_its_tolerance() -> None:
    def close(ttft: float = 100.0, itl: float = 20.0, rate: float = EXPECTED_RATE) -> bool:
        return Medians("x", "chat", ttft, itl, rate).close(TOLERANCE)

    assert close()
    assert close(ttft=109.9, itl=19.6, rate=EXPECTED_RATE * 0.95)
    assert not any((close(ttft=110.1), close(itl=20.6), close(rate=EXPECTED_RATE * 0.93)))


def test_the_table_begins_with_what_was_set() -> None:
    lines = table([Medians("x", "chat", 101.23, 20.014, 380.4)]).splitlines()
    assert lines[2:] == [
        "| what the simulator was set to | | 100.0 ms | 20.00 ms | 385 |",
        "| x | chat | 101.2 ms | 20.01 ms | 380 |",
    ]
