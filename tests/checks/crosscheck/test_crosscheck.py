"""What the cross-check reads from the tools' results, and how it judges them. The tools run in the command itself."""

import pytest

from tests.checks.crosscheck.command import LOADS, RUNS, Load, Medians, checked, heading, read_aiperf, read_guidellm

EIGHT = Load(8, 64, 25.0)
FAR = Medians("x", "chat", 150.0, 20.0, 380.0)
NEAR = Medians("x", "chat", 101.0, 20.0, 380.0)


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
    def close(ttft: float = 100.0, itl: float = 20.0, rate: float = EIGHT.rate) -> bool:
        return Medians("x", "chat", ttft, itl, rate).close(EIGHT, 0.5, 0.06)

    assert close()
    assert close(ttft=124.9, itl=19.6, rate=EIGHT.rate * 0.95)
    assert not any((close(ttft=125.1), close(itl=20.6), close(rate=EIGHT.rate * 0.93)))


def test_the_table_begins_with_what_was_set() -> None:
    assert heading().splitlines()[2:] == [
        "| what the simulator was set to |  | 1 | 100.0 ms | 20.00 ms | 48 |  |",
        "| what the simulator was set to |  | 8 | 100.0 ms | 20.00 ms | 385 |  |",
    ]
    assert (
        Medians("x", "chat", 101.23, 20.014, 380.4).row(LOADS[1]) == "| x | chat | 8 | 101.2 ms | 20.01 ms | 380 |  |"
    )


@pytest.mark.parametrize(
    ("runs", "expected", "rows"),
    [
        ([(NEAR, 0.0)], True, [""]),
        ([(NEAR, 1.5)], True, [""]),
        ([(FAR, 0.0)], False, ["outside the tolerance"]),
        (
            [(FAR, 1.5), (NEAR, 0.0)],
            True,
            ["outside the tolerance; other programs used 1.5 processors; runs again", ""],
        ),
        (
            [(FAR, 1.5)] * RUNS,
            False,
            ["outside the tolerance; other programs used 1.5 processors; runs again"] * (RUNS - 1)
            + ["outside the tolerance; other programs used 1.5 processors"],
        ),
    ],
)
def test_only_a_disturbed_run_runs_again_and_each_run_has_a_row(
    runs: list[tuple[Medians, float]], expected: bool, rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter(runs)
    assert checked(lambda: next(left), EIGHT, 0.5, 0.1) is expected
    assert list(left) == []
    assert [line.split("|")[-2].strip() for line in capsys.readouterr().out.splitlines()] == rows
