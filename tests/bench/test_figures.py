"""Figures and verdicts: ratios within rounds, sessions kept apart, no bar met that was not measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

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
    Record,
    RecordError,
    Records,
    ResultFile,
    Run,
    StreamCost,
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
    assert [server_cpu(item) for item in records.of(Run)] == [20.0, None, None]
    assert verdict(records, "paced: CPU", "relay").state == NOT_MEASURED


@pytest.mark.parametrize(("cpu", "state", "text"), [(34.0, MET, "1.70 ×"), (34.001, NOT_MET, "1.70005 ×")])
def test_a_bar_is_met_up_to_its_limit_and_a_miss_is_visible(tmp_path: Path, cpu: float, state: str, text: str) -> None:
    judged = verdict(of(tmp_path, *pair(0, 20.0, cpu)), "paced: CPU", "1.7 × the byte relay")
    assert (judged.state, judged.measured) == (state, text)


def test_parts_of_a_peers_cost_are_written_as_fractions(tmp_path: Path) -> None:
    costs = (("ours-fast", 12.0), ("litellm", 3000.0), ("ccr", 8.0))
    records = of(tmp_path, *(run(name, "saturated", 0, load(cpu)) for name, cpu in costs))
    cheap, dear = verdict(records, "saturated", "LiteLLM"), verdict(records, "saturated", "claude-code-router")
    assert (cheap.measured, cheap.state) == ("1/250", MET)
    assert (dear.measured, dear.state) == ("1.50 ×", NOT_MET)


def costs(few: float, many: float) -> list[Record]:
    return [StreamCost("ours-fast", 10, few), StreamCost("ours-fast", 1000, many)]


def memory(streams: int, kib: float = 30.0, errors: dict[str, int] | None = None) -> Memory:
    return Memory("ours-fast", streams, kib, errors)


@pytest.mark.parametrize(
    ("lines", "what", "measured", "state"),
    [
        ([Asgi("raw", 5.0), Asgi("simulated", 6.0)], "simulated engine", "1.20 ×", MET),
        (costs(40.0, 50.0), "streams against 10", "+25.0 %", NOT_MET),
        (costs(40.0, 38.0), "streams against 10", "−5.00 %", MET),
        ([memory(500, 50.0), memory(8000, 39.0)], "memory of an open", "39.0 KiB", MET),
        ([Hold(10, 0.004), Hold(1_000_000, 0.0061)], "event loop held", "6.10 ms", NOT_MET),
        ([memory(8000, errors={})], "streams at once: errors", "0", MET),
        ([memory(8000, errors={"cut": 2, "http 503": 1})], "streams at once: errors", "3", NOT_MET),
        ([memory(7999, errors={})], "streams at once: errors", "no record", NOT_MEASURED),
        ([memory(8000)], "streams at once: errors", "no record", NOT_MEASURED),
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
    assert {name for bar in BARS for name in bar.servers} == known == set(NAMES) - {"direct"}


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
    assert ["anthro-asgi, fast", "20.0 µs (16.0 to 60.0 µs)", "1.60 ×", "61.0 MiB", "0"] in lines
    assert ["the engine itself", "95.0 µs", "162 µs", "570 µs", "1.43 ms", *["the base"] * 3] in lines
    assert tables(records, "saturated") == ""
