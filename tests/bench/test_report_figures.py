"""Figures and verdicts: ratios within rounds, sessions kept apart, nothing met that was not measured."""

from pathlib import Path
from typing import Any

import pytest

from bench.micro import conversion, request
from bench.peers import runner
from bench.report import servers
from bench.report.bars import BARS, MET, NOT_MEASURED, NOT_MET, Bar, Verdict, judge
from bench.report.fields import RecordError
from bench.report.figures import added, against, latency, level, main_setting, server_cpu, settings
from bench.report.measures import CpuRatio, MicroRatio
from bench.report.records import Records, Run, read
from tests.bench.report_sample import Line, direct, load, micro, run, write


def of(tmp_path: Path, *lines: Line) -> Records:
    return read([write(tmp_path / "results.jsonl", lines)])


def verdict(records: Records, what: str, text: str = "") -> Verdict:
    found = [item for item in judge(records) if what in item.bar.what and text in item.bar.text.replace("\u00a0", " ")]
    assert len(found) == 1
    return found[0]


def pair(number: int, floor: float, ours: float) -> list[Line]:
    return [
        run("relay", "paced", number, load(floor), rate=50.0),
        run("ours-fast", "paced", number, load(ours), rate=50.0),
    ]


def test_ratios_are_taken_within_a_round_and_the_median_after(tmp_path: Path) -> None:
    """Here the medians, 40 and 20, would give 2; the rounds say 1.5, 4 and 1, so 1.5."""
    records = of(tmp_path, *pair(0, 20.0, 30.0), *pair(1, 10.0, 40.0), *pair(2, 50.0, 50.0))
    setting = main_setting(records, "paced")
    assert setting is not None
    found = against(records, setting, "ours-fast", "relay", server_cpu)
    assert found is not None
    assert sorted(found.values) == [1.0, 1.5, 4.0]
    assert found.median == 1.5
    own, floor = (level(records, setting, name, server_cpu) for name in ("ours-fast", "relay"))
    assert own is not None
    assert floor is not None
    assert own.median / floor.median == 2.0
    judged = verdict(records, "paced: CPU", "relay")
    assert judged.state == MET
    assert judged.measured.replace("\u00a0", " ") == "1.50 × (1.00 to 4.00 × in 3 rounds)"


def test_added_latency_is_a_difference_within_a_round(tmp_path: Path) -> None:
    """Tails that come and go with the machine: the engine's own is in both of a round."""
    lines = []
    for number, (own, ours) in enumerate(((100e-6, 150e-6), (300e-6, 390e-6), (200e-6, 500e-6))):
        engine, server = load(None), load(30.0)
        engine["transit"], server["transit"] = {"p50": own}, {"p50": ours}
        lines += [direct("paced", number, engine, rate=50.0), run("ours-fast", "paced", number, server, rate=50.0)]
    records = of(tmp_path, *lines)
    setting = main_setting(records, "paced")
    assert setting is not None
    found = added(records, setting, "ours-fast", latency("transit", "p50"))
    assert found is not None
    assert found.median == pytest.approx(90e-6)
    assert verdict(records, "inter-token latency, p50").state == MET
    assert verdict(records, "inter-token latency, p99").state == NOT_MEASURED


def test_a_round_of_one_session_never_meets_another_sessions(tmp_path: Path) -> None:
    floor, ours = pair(0, 20.0, 30.0)
    files = [write(tmp_path / "floor.jsonl", [floor]), write(tmp_path / "ours.jsonl", [ours])]
    assert verdict(read(files), "paced: CPU", "relay").state == NOT_MEASURED
    env = {"kind": "env"}
    assert verdict(of(tmp_path, env, floor, env, ours), "paced: CPU", "relay").state == NOT_MEASURED
    assert verdict(of(tmp_path, env, floor, ours), "paced: CPU", "relay").state == MET


def test_a_round_that_only_one_side_has_is_left_out(tmp_path: Path) -> None:
    records = of(tmp_path, *pair(0, 20.0, 30.0), run("ours-fast", "paced", 1, load(900.0), rate=50.0))
    assert verdict(records, "paced: CPU", "relay").measured.replace("\u00a0", " ") == "1.50 ×"


def test_loads_of_other_kinds_are_not_mixed(tmp_path: Path) -> None:
    other = [
        run(name, "paced", 0, load(cpu), streams=8, rate=50.0) for name, cpu in (("relay", 10.0), ("ours-fast", 90.0))
    ]
    records = of(tmp_path, *pair(0, 20.0, 30.0), *pair(1, 20.0, 30.0), *other)
    assert [(setting.streams, setting.rate) for setting in settings(records)] == [(64, 50.0), (8, 50.0)]
    assert verdict(records, "paced: CPU", "relay").state == MET


def test_a_server_without_a_meter_has_no_cost(tmp_path: Path) -> None:
    records = of(tmp_path, *pair(0, 20.0, 0.0), run("nginx", "paced", 0, load(None), rate=50.0))
    assert [item.load.server_cpu for item in records.of(Run)] == [20.0, None, None]
    assert verdict(records, "paced: CPU", "relay").state == NOT_MEASURED


@pytest.mark.parametrize(("cpu", "state"), [(34.0, MET), (34.001, NOT_MET)])
def test_a_bar_is_met_up_to_its_limit_and_not_past_it(tmp_path: Path, cpu: float, state: str) -> None:
    judged = verdict(of(tmp_path, *pair(0, 20.0, cpu)), "paced: CPU", "1.7 × the byte relay")
    assert judged.state == state


def test_what_is_past_a_bar_never_looks_like_it(tmp_path: Path) -> None:
    judged = verdict(of(tmp_path, *pair(0, 20.0, 34.001)), "paced: CPU", "relay")
    assert judged.measured.replace("\u00a0", " ") == "1.70005 ×"


def test_parts_of_a_peers_cost_read_as_parts(tmp_path: Path) -> None:
    lines = [
        run(name, "saturated", 0, load(cpu)) for name, cpu in (("ours-fast", 12.0), ("litellm", 3000.0), ("ccr", 8.0))
    ]
    records = of(tmp_path, *lines)
    cheap, dear = verdict(records, "saturated", "LiteLLM"), verdict(records, "saturated", "claude-code-router")
    assert (cheap.measured, cheap.state) == ("1/250", MET)
    assert (dear.measured.replace("\u00a0", " "), dear.state) == ("1.50 ×", NOT_MET)


@pytest.mark.parametrize(
    ("lines", "what", "measured", "state"),
    [
        ([("asgi", "raw", 5.0), ("asgi", "simulated", 6.0)], "simulated engine", "1.20 ×", MET),
        ([("streams", 10, 40.0), ("streams", 1000, 50.0)], "streams against 10", "+25.0 %", NOT_MET),
        ([("streams", 10, 40.0), ("streams", 1000, 38.0)], "streams against 10", "−5.00 %", MET),
        ([("memory", 500, 50.0), ("memory", 8000, 39.0)], "memory of an open", "39.0 KiB", MET),
        ([("hold", 10, 0.004), ("hold", 1_000_000, 0.0061)], "event loop held", "6.10 ms", NOT_MET),
    ],
)
def test_the_other_bars_are_judged_by_their_records(
    tmp_path: Path, lines: list[tuple[Any, ...]], what: str, measured: str, state: str
) -> None:
    fields = {
        "asgi": ("name", "cpu_us_per_token"),
        "streams": ("streams", "cpu_us_per_token"),
        "memory": ("streams", "rss_kib_per_stream"),
        "hold": ("body_bytes", "longest_s"),
    }
    records = [
        {"kind": kind, "server": "ours-fast"} | dict(zip(fields[kind], values, strict=True)) for kind, *values in lines
    ]
    judged = verdict(of(tmp_path, *records), what)
    assert (judged.measured.replace("\u00a0", " "), judged.state) == (measured, state)


@pytest.mark.parametrize(
    ("streams", "errors", "measured", "state"),
    [
        (8000, {}, "0", MET),
        (8000, {"cut": 2, "http 503": 1}, "3", NOT_MET),
        (7999, {}, "no record", NOT_MEASURED),
        (8000, None, "no record", NOT_MEASURED),
    ],
)
def test_many_streams_are_without_error_only_if_errors_were_counted(
    tmp_path: Path, streams: int, errors: Line | None, measured: str, state: str
) -> None:
    memory = {"kind": "memory", "server": "ours-fast", "streams": streams, "rss_kib_per_stream": 30.0, "errors": errors}
    judged = verdict(of(tmp_path, memory), "streams at once: errors")
    assert (judged.measured, judged.state) == (measured, state)


def test_of_several_operations_the_worst_is_held_against_the_bar(tmp_path: Path) -> None:
    records = of(
        tmp_path,
        micro("conversion", "text, steady state, a", 0.7, 1.0),
        micro("conversion", "text, steady state, b", 1.2, 1.0),
        micro("conversion", "thinking, a", 1.9, 2.0),
        micro("elsewhere", "text, steady state, a", 9.0, 1.0),
    )
    steady, general = verdict(records, "text token, steady"), verdict(records, "general path")
    assert (steady.measured.replace("\u00a0", " "), steady.state) == (
        "1.20 × (the worst: text, steady state, b)",
        NOT_MET,
    )
    assert (general.measured.replace("\u00a0", " "), general.state) == ("1.90 ×", MET)


def bars_of(kind: type[Any]) -> list[Bar]:
    return [bar for bar in BARS if isinstance(bar.measure, kind)]


def test_the_bars_of_operations_are_those_that_the_bench_writes() -> None:
    wanted = [
        (conversion.GROUP, conversion.BAR),
        (conversion.GROUP, conversion.GENERAL_BAR),
        (request.GROUP, request.BAR),
    ]
    found = [(bar.measure.group, bar.limit) for bar in bars_of(MicroRatio) if isinstance(bar.measure, MicroRatio)]
    assert found == wanted


def test_the_servers_of_bars_are_those_that_the_bench_runs() -> None:
    known = {peer.name for peer in runner.peers()}
    assert {servers.FLOOR, servers.OURS, servers.OURS_BARE, servers.NGINX, servers.ROUTER, servers.LITELLM} == known
    assert {name for bar in bars_of(CpuRatio) for name in bar.measure.servers()} == known


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[]", "not a JSON object"),
        ('{"kind":5}', "'kind' must be a string"),
        ('{"server":"x"}', "'kind' must be a string"),
        ('{"kind":"missing","server":"x"}', "'why' must be a string"),
        ('{"kind":"hold","body_bytes":1.5,"longest_s":1}', "'body_bytes' must be a whole number"),
        ('{"kind":"hold","body_bytes":true,"longest_s":1}', "'body_bytes' must be a whole number"),
        ('{"kind":"hold","body_bytes":1,"longest_s":"1"}', "'longest_s' must be a number"),
        ('{"kind":"hold","body_bytes":1,"longest_s":-1}', "'longest_s' must be a number that is not negative"),
        ('{"kind":"asgi","name":"raw","cpu_us_per_token":0}', "'cpu_us_per_token' must be more than nothing"),
        ('{"kind":"grammar","server":"x","faults":[1]}', "'faults' must be a list of strings"),
        ('{"kind":"env","versions":[]}', "'versions' must be an object"),
        ('{"kind":"env","cpu":[]}', "'cpu' must be a string"),
        ('{"kind":"direct","run":"paced","streams":1,"round":0}', "'load' must be an object"),
    ],
)
def test_a_line_that_does_not_say_what_its_kind_must_say_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(RecordError, match=r"^results.jsonl:2: ") as caught:
        read([path])
    assert fault in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match=r"^results.jsonl: not UTF-8"):
        read([path])
