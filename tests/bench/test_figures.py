"""Figures and verdicts: ratios within rounds, sessions kept apart, no bar met that was not measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from bench.figures import added, against, latency, level, main_setting, server_cpu, settings
from bench.micro import conversion, request
from bench.peers import peers
from bench.peers.timed import tables
from bench.records import (
    Asgi,
    Env,
    Hold,
    Memory,
    Missing,
    Pauses,
    Record,
    RecordError,
    Records,
    ResultFile,
    Run,
    Start,
    read,
)
from bench.report.bars import BARS, MET, NAMES, NOT_MEASURED, NOT_MET, Verdict, judge
from tests.bench.report_sample import direct, load, micro, run, sample, write


def of(tmp_path: Path, *lines: Record) -> Records:
    return read([write(tmp_path / "results.jsonl", lines)])


def verdict(records: Records, what: str, text: str = "") -> Verdict:
    found = [item for item in judge(records) if what in item.bar.what and text in item.bar.text.replace("\u00a0", " ")]
    assert len(found) == 1
    return replace(found[0], measured=found[0].measured.replace("\u00a0", " "))


def pair(number: int, floor: float, ours: float) -> list[Record]:
    return [
        run("relay", "paced", number, load(floor), rate=50.0),
        run("ours-fast", "paced", number, load(ours), rate=50.0),
    ]


def test_ratios_are_taken_within_a_round_and_then_the_median(tmp_path: Path) -> None:
    """The medians, 40 and 20, would give 2; the rounds give 1.5, 4 and 1, so 1.5."""
    records = of(tmp_path, *pair(0, 20.0, 30.0), *pair(1, 10.0, 40.0), *pair(2, 50.0, 50.0))
    setting = main_setting(records, "paced")
    assert setting is not None
    found = against(records, setting, "ours-fast", "relay", server_cpu)
    assert found is not None
    assert (sorted(found.values), found.median) == ([1.0, 1.5, 4.0], 1.5)
    own, floor = (level(records, setting, name, server_cpu) for name in ("ours-fast", "relay"))
    assert own is not None
    assert floor is not None
    assert own.median / floor.median == 2.0
    judged = verdict(records, "paced: CPU", "relay")
    assert (judged.state, judged.measured) == (MET, "1.50 × (1.00 to 4.00 × in 3 rounds)")


def test_ratios_of_simultaneous_servers_are_taken_within_a_window(tmp_path: Path) -> None:
    """The medians, 20 and 30, would give 1.5; the windows give 2, eight times, and 1.5 once. Quartiles are shown."""
    costs = {"relay": (10.0, *[20.0] * 4, *[15.0] * 4), "ours-fast": (15.0, *[40.0] * 4, *[30.0] * 4)}
    lines = [structs.replace(run(name, "paced", 0, load(9.9), rate=50.0), windows=costs[name]) for name in costs]
    judged = verdict(of(tmp_path, *lines), "paced: CPU", "relay")
    assert (judged.state, judged.measured) == (NOT_MET, "2.00 × (2.00 to 2.00 × in half of the windows)")


def test_windows_of_different_batches_are_never_paired(tmp_path: Path) -> None:
    floor, ours = pair(0, 20.0, 30.0)
    lines = [structs.replace(floor, windows=(10.0,)), structs.replace(ours, windows=(10.0,), round=1)]
    assert verdict(of(tmp_path, *lines), "paced: CPU", "relay").state == NOT_MEASURED


def test_the_worst_number_of_streams_from_24_on_counts(tmp_path: Path) -> None:
    costs = ((6, 90.0), (24, 28.0), (64, 30.0))
    ours = [run("ours-fast", "paced", 0, load(cost), streams=streams, rate=50.0) for streams, cost in costs]
    floor = [run("relay", "paced", 0, load(20.0), streams=streams, rate=50.0) for streams, _ in costs]
    assert verdict(of(tmp_path, *ours, *floor), "paced: CPU", "relay").measured == "1.50 × (the worst: 64 streams)"


def test_added_latency_is_a_difference_within_a_round(tmp_path: Path) -> None:
    lines: list[Record] = []
    for number, (own, ours) in enumerate(((100e-6, 150e-6), (300e-6, 390e-6), (200e-6, 500e-6))):
        engine, server = (replace(load(30.0), transit={"p50": seconds}) for seconds in (own, ours))
        lines += [direct("paced", number, engine, rate=50.0), run("ours-fast", "paced", number, server, rate=50.0)]
    records = of(tmp_path, *lines)
    setting = main_setting(records, "paced")
    assert setting is not None
    found = added(records, setting, "ours-fast", latency("transit", "p50"))
    assert found is not None
    assert found.median == pytest.approx(90e-6)
    assert verdict(records, "inter-token latency, p50").state == MET
    assert verdict(records, "inter-token latency, p99").state == NOT_MEASURED


def test_rounds_of_different_sessions_are_never_paired(tmp_path: Path) -> None:
    floor, ours = pair(0, 20.0, 30.0)
    files = [write(tmp_path / "floor.jsonl", [floor]), write(tmp_path / "ours.jsonl", [ours])]
    assert verdict(read(files), "paced: CPU", "relay").state == NOT_MEASURED
    assert verdict(of(tmp_path, Env(), floor, Env(), ours), "paced: CPU", "relay").state == NOT_MEASURED
    assert verdict(of(tmp_path, Env(), floor, ours), "paced: CPU", "relay").state == MET


def test_a_round_that_only_one_server_has_is_left_out(tmp_path: Path) -> None:
    records = of(tmp_path, *pair(0, 20.0, 30.0), run("ours-fast", "paced", 1, load(900.0), rate=50.0))
    assert verdict(records, "paced: CPU", "relay").measured == "1.50 ×"


def test_loads_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    costs = (("relay", 10.0), ("ours-fast", 90.0))
    other = [run(name, "paced", 0, load(cpu), streams=8, rate=50.0) for name, cpu in costs]
    records = of(tmp_path, *pair(0, 20.0, 30.0), *pair(1, 20.0, 30.0), *other)
    assert [(setting.streams, setting.rate) for setting in settings(records)] == [(64, 50.0), (8, 50.0)]
    assert verdict(records, "paced: CPU", "relay").state == MET


def test_a_server_that_was_not_metered_has_no_cost(tmp_path: Path) -> None:
    records = of(tmp_path, *pair(0, 20.0, 0.0), run("nginx", "paced", 0, load(None), rate=50.0))
    assert [server_cpu(item) for item in records.of(Run)] == [[20.0], [], []]
    assert verdict(records, "paced: CPU", "relay").state == NOT_MEASURED


@pytest.mark.parametrize(("cpu", "state", "text"), [(32.0, MET, "1.60 ×"), (32.001, NOT_MET, "1.60005 ×")])
def test_a_bar_is_met_up_to_its_limit_and_a_miss_is_visible(tmp_path: Path, cpu: float, state: str, text: str) -> None:
    judged = verdict(of(tmp_path, *pair(0, 20.0, cpu)), "paced: CPU", "1.6 × the byte relay")
    assert (judged.state, judged.measured) == (state, text)


def test_parts_of_a_peers_cost_are_written_as_fractions(tmp_path: Path) -> None:
    costs = (("ours-fast", 12.0), ("litellm", 3000.0), ("ccr", 8.0))
    records = of(tmp_path, *(run(name, "saturated", 0, load(cpu)) for name, cpu in costs))
    cheap, dear = verdict(records, "saturated", "LiteLLM"), verdict(records, "saturated", "claude-code-router")
    assert (cheap.measured, cheap.state) == ("1/250", MET)
    assert (dear.measured, dear.state) == ("1.50 ×", NOT_MET)


def requests(*windows: float) -> Run:
    record = run("ours-fast", "small request", 0, load(None), streams=1, rate=40.0)
    return structs.replace(record, windows=windows)


def pauses(streams: int, cost: float | None = None, *, seconds: float = 0.001) -> Pauses:
    return Pauses("ours-fast", streams, {"p99": seconds}, {"p99": 2 * seconds}, seconds, cost)


@pytest.mark.parametrize(
    ("lines", "what", "measured", "state"),
    [
        ([Asgi("raw", 5.0), Asgi("simulated", 6.0)], "simulated engine", "1.20 ×", MET),
        ([pauses(64, 40.0), pauses(8000, 60.0)], "streams against 64", "+50.0 %", NOT_MET),
        ([pauses(64, 40.0), pauses(8000, 38.0)], "streams against 64", "−5.00 %", MET),
        ([pauses(64, 40.0), pauses(8000)], "streams against 64", "no record", NOT_MEASURED),
        ([Memory("ours-fast", 256, 39.0)], "open stream, in Python", "39.0 KiB", MET),
        ([Memory("ours-native", 256, 19.0)], "open stream with the native path", "19.0 KiB", NOT_MET),
        ([Start("ours-fast", 0.25)], "start to first answer", "250 ms", NOT_MET),
        ([Hold(10, 0.004), Hold(1_000_000, 0.0061)], "event loop held", "6.10 ms", NOT_MET),
        ([pauses(8000, seconds=0.004)], "streams open: transit", "4.00 ms", MET),
        ([pauses(8000, seconds=0.02)], "streams open: TTFT", "40.0 ms", NOT_MET),
        ([pauses(7999, seconds=0.004)], "streams open: longest", "no record", NOT_MEASURED),
        ([requests(*[210.0] * 12)], "small request", "210 µs (210 to 210 µs in half of the windows)", NOT_MET),
        ([Missing("litellm", "no wheel")], "of LiteLLM", "no record; LiteLLM proxy: no wheel", NOT_MEASURED),
    ],
)
def test_the_other_bars_are_judged_by_their_records(
    tmp_path: Path, lines: list[Record], what: str, measured: str, state: str
) -> None:
    records = of(tmp_path, *lines)
    judged = verdict(records, "", "LiteLLM") if what == "of LiteLLM" else verdict(records, what)
    assert (judged.measured, judged.state) == (measured, state)


def test_the_worst_of_several_operations_counts(tmp_path: Path) -> None:
    records = of(
        tmp_path,
        micro("conversion", "text, steady state, a", 0.7, 1.0),
        micro("conversion", "text, steady state, b", 1.2, 1.0),
        micro("conversion", "thinking, a", 1.9, 2.0),
        micro("elsewhere", "text, steady state, a", 9.0, 1.0),
    )
    steady, general = verdict(records, "text token, steady"), verdict(records, "general path")
    assert (steady.measured, steady.state) == ("1.20 × (the worst: text, steady state, b)", NOT_MET)
    assert (general.measured, general.state) == ("1.90 ×", MET)


def test_the_bars_agree_with_the_bench() -> None:
    limits = [bar.limit for bar in BARS if "orjson.loads" in bar.text]
    assert limits == [conversion.BAR, conversion.GENERAL_BAR, request.BAR]
    known = {peer.name for peer in peers()}
    assert {name for bar in BARS for name in bar.servers} - {"ours-native-unix"} <= known == set(NAMES) - {"direct"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[]", "Expected `object`"),
        ('{"kind":5}', "Expected `str`, got `int` - at `$.kind`"),
        ('{"server":"x"}', "missing required field `kind`"),
        ('{"kind":"missing","server":"x"}', "missing required field `why`"),
        ('{"kind":"hold","body_bytes":1.5,"longest_s":1}', "Expected `int`, got `float` - at `$.body_bytes`"),
        ('{"kind":"hold","body_bytes":1,"longest_s":-1}', "Expected `float` >= 0.0 - at `$.longest_s`"),
        ('{"kind":"grammar","server":"x","faults":[1]}', "Expected `str`, got `int` - at `$.faults[0]`"),
        ('{"kind":"run","run":"a","server":"x","label":"a","streams":1,"rate":1,"round":0}', "`load`"),
    ],
)
def test_an_invalid_line_is_reported_with_its_place(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(RecordError, match=r"^results.jsonl:2") as caught:
        read([path])
    assert fault in str(caught.value)


def test_a_result_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.jsonl"
    with ResultFile(path) as written:
        for record in sample():
            written.add(record)
        assert [record for _, record in read([path]).entries] == [record for _, record in written.entries]


def test_the_terminal_shows_medians_over_the_rounds_and_gaps_for_unknown_values(tmp_path: Path) -> None:
    records = of(
        tmp_path,
        *(direct("paced", number, load(None), rate=50.0) for number in range(3)),
        *pair(0, 10.0, 20.0),
        *pair(1, 40.0, 60.0),
        *pair(2, 10.0, 16.0),
    )
    shown = tables(records, "paced").replace("\u00a0", " ").replace("\u202f", " ")
    lines = [re.split(r"  +", line) for line in shown.splitlines()]
    assert ["anthro-asgi, fast", "20.0 µs", "1.60 × (1.50 to 2.00 ×)", "not measured", "0"] in lines
    assert ["the engine itself", "95.0 µs", "162 µs", "570 µs", "1.43 ms", *["the base"] * 3] in lines
    assert tables(records, "saturated") == ""
