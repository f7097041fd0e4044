"""The report as its readers get it: the page, the Markdown, and the command."""

import argparse
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from anthro_asgi.bench.report.html import Table
from anthro_asgi.bench.report.numbers import (
    distinct,
    duration,
    growth,
    part,
    plain,
    plain_duration,
    signed,
    significant,
    span,
    times,
)
from bench.records import Env, Grammar, Missing, Record, Records, json_line, read
from bench.report import add_arguments, main
from bench.report.bars import judge
from bench.report.page import page
from bench.report.tables import BEGIN, END, bars_table, cost_table, cost_tables, escaped, markdown, peers_table
from tests.bench.report_sample import load, micro, run, sample, write

HOSTILE = """</title><script>alert(1)</script><img src=x onerror="y">'&|*`$x^2$\x00\u202e]]>"""


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return read([write(tmp_path / "results.jsonl", sample())])


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the sample."""
    return page(read([write(tmp_path_factory.mktemp("page") / "results.jsonl", sample())]))


def of(tmp_path: Path, *lines: Record) -> Records:
    return read([write(tmp_path / "results.jsonl", lines)])


def command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


def body_of(html: str) -> ElementTree.Element:
    """The body, which is well-formed XML."""
    return ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])


def words_of(html: str) -> str:
    """The text of a page without markup and style."""
    return " ".join(" ".join(body_of(html).itertext()).split())


# the page


def test_each_plot_says_in_words_what_it_shows(html: str) -> None:
    drawings = list(body_of(html).iter("svg"))
    assert len(drawings) == 10
    for drawing in drawings:
        assert drawing.get("role") == "img"
    assert any("anthro-asgi, fast: " in drawing.get("aria-label", "") for drawing in drawings)


def test_every_colour_of_a_plot_is_a_variable_that_the_page_defines_light_and_dark(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}", drawn)) == set()
    used = set(re.findall(r"var\(--([a-z-]+)\)", drawn))
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    assert {"ours", "floor", "direct", "peer", "over", "ink", "soft", "grid", "paper"} == used
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([a-z-]+):", theme))


def test_the_plots_name_every_server_and_its_figure(html: str) -> None:
    first = next(body_of(html).iter("svg"))
    words = " ".join(first.itertext())
    for label in ("byte relay (asyncio, uvloop)", "anthro-asgi, fast", "LiteLLM proxy", "floor: byte relay", "× relay"):
        assert label in words


def test_the_page_needs_nothing_from_elsewhere(html: str) -> None:
    for foreign in ("http:", "https:", "//", "<script", "<link", "<img", "@import", "url(http", "src="):
        assert foreign not in html, foreign
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))
    assert html.startswith("<!DOCTYPE html>")
    assert '<meta charset="utf-8">' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_same_records_give_the_same_page(records: Records, html: str) -> None:
    assert page(records) == html


def test_text_from_records_never_becomes_markup(tmp_path: Path) -> None:
    relay = run("relay", "paced", 0, load(20.0), rate=50.0)
    hostile = of(
        tmp_path,
        relay,
        run(HOSTILE, "saturated", 0, load(20.0, errors={HOSTILE: 2})),
        run("ours-fast", HOSTILE, 0, load(9.0, transit=1e-3), rate=7.0),
        micro(HOSTILE, HOSTILE, 2.0, 1.0, HOSTILE),
        Missing(HOSTILE, HOSTILE),
        Grammar(HOSTILE, (HOSTILE,)),
        Env(date=HOSTILE, cpu=HOSTILE, versions={HOSTILE: HOSTILE}),
    )
    html, text = page(hostile), markdown(hostile)
    assert "<script" not in html
    assert "<img" not in html
    assert not set("\x00\u202e") & set(html + text)
    assert "<script>alert(1)</script>" in words_of(html)  # it is shown as text
    assert {line for line in text.splitlines() if "<" in line.replace("\\<", "")} == {BEGIN, END}


def test_a_page_without_records_says_that_nothing_was_measured(tmp_path: Path) -> None:
    empty = of(tmp_path)
    html, text = page(empty), markdown(empty)
    states = [item.state for item in judge(empty)]
    assert set(states) == {"not measured"}
    assert f"{len(states)} bars: 0 met, 0 not met, {len(states)} not measured." in words_of(html)
    assert words_of(html).count("Not measured.") == 10
    assert "No record says when, where or with what this was measured." in text
    assert "<svg" not in html


def test_missing_servers_faults_and_versions_are_shown(html: str, records: Records) -> None:
    words = words_of(html)
    for text in (
        "nginx-quic is missing: no such package in this system's package lists",
        "LiteLLM proxy is incomplete: saturated, round 5: hangs",
        "message_stop: two of them; content_block_stop without start",
        "no fault found",
        "not checked",
        *("2026-11-24 12:00", "db80082f00ba", "3.11.7", "A Processor @ 2.50GHz", "0.22.1"),
    ):
        assert text in words
    assert "nginx-quic is missing" in markdown(records)


def test_failed_requests_are_shown_with_the_figures_that_they_affect(tmp_path: Path) -> None:
    failed = of(
        tmp_path,
        run("relay", "paced", 0, load(20.0), rate=50.0),
        run("ours-fast", "paced", 0, load(30.0, errors={"http 500": 2, "cut": 1}), rate=50.0),
    )
    assert "anthro-asgi, fast: http 500 × 2, cut × 1" in words_of(page(failed))
    measured = [row[2].replace("\u00a0", " ") for row in bars_table(failed).rows]
    assert "1.50 ×; 3 requests failed in these runs" in measured
    assert cost_table(failed, "paced").rows[-1][-1] == "3"


def test_page_and_markdown_hold_the_same_tables(records: Records, html: str) -> None:
    text = markdown(records)
    for table in (bars_table(records), *cost_tables(records), peers_table(records)):
        assert cells_of(html, table.head) == [list(row) for row in table.rows]
        expected = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in (table.head, *table.rows)]
        assert [line for line in text.splitlines() if line in expected] == expected


def cells_of(html: str, head: tuple[str, ...]) -> list[list[str]]:
    """The rows of the page's only table with this head."""
    (table,) = (
        table
        for table in body_of(html).iter("table")
        if [cell.text for cell in table.iterfind("thead/tr/th")] == [*head]
    )
    return [[cell.text or "" for cell in row] for row in table.iterfind("tbody/tr")]


def test_markdown_cells_hold_no_markup() -> None:
    assert escaped("a|b\n*c* <d> `e` _f_ [g]\u202f1") == r"a\|b \*c\* \<d\> \`e\` \_f\_ \[g\] 1"
    assert Table("a", ("b",), ()).numeric


# the command


def test_the_command_writes_the_page_and_prints_the_tables(
    tmp_path: Path, html: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = write(tmp_path / "results.jsonl", sample()), tmp_path / "report.html"
    results.write_bytes(results.read_bytes() + b'{"kind":"load"}\n')
    assert command(results, "--html", out) == 0
    assert capsys.readouterr().out == ""
    assert "Lines of kinds that this report does not show: load (1)." in words_of(out.read_text())
    assert command(results) == 0
    assert capsys.readouterr().out == markdown(read([results]))


def test_without_matplotlib_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write(tmp_path / "results.jsonl", sample())
    for name in [name for name in sys.modules if name.startswith(("bench.report.page", "bench.report.plots"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command(results, "--html", tmp_path / "page.html") == 2
    assert capsys.readouterr().err == "bench report: the page needs matplotlib: pip install 'anthro-asgi[bench]'\n"
    assert command(results, "--markdown", "-") == 0


def test_markdown_is_replaced_between_its_marks_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, readme = write(tmp_path / "results.jsonl", sample()), tmp_path / "README.md"
    text = markdown(read([results]))
    assert command(results, "--markdown", readme) == 0
    assert readme.read_text() == text
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert command(results, "--markdown", readme) == 0
        assert readme.read_text() == f"before\n{text}after\n"
    readme.write_text("mine\n")
    assert command(results, "--markdown", readme) == 2
    assert readme.read_text() == "mine\n"
    assert "README.md has no place for the report" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "absent.jsonl") == 2
    assert "absent.jsonl" in capsys.readouterr().err
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(json_line(Missing("a", "b")) + b'\n{"kind":"mic')
    assert command(broken) == 2
    assert "bench report: broken.jsonl:3: Input data was truncated" in capsys.readouterr().err


# numbers


def test_numbers_have_three_significant_digits_and_no_exponent() -> None:
    values = (0, 49.27, 1.7, 9.999, 0.07123, 12345.0, 999.9, -4.1, 1e-7)
    texts = ["0", "49.3", "1.70", "10.0", "0.0712", "12\u202f300", "1\u202f000", "\u22124.10", "0.000000100"]
    assert [significant(value) for value in values] == texts
    assert [plain(value) for value in (1.7, 2.0, 40, 20_000, 0)] == ["1.7", "2", "40", "20\u202f000", "0"]


def test_units_fit_the_value() -> None:
    texts = [duration(value) for value in (49.3e-6, 0.001, 2.5, 3e-9, 0.0, -82e-6)]
    texts += [plain_duration(5e-3), times(1.62), part(0.25), part(1.5), growth(1.072), growth(0.9), signed(5e-6)]
    assert [text.replace("\u00a0", " ").replace("\u2212", "-") for text in texts] == [
        *("49.3 µs", "1.00 ms", "2.50 s", "3.00 ns", "0 ns", "-82.0 µs"),
        *("5 ms", "1.62 ×", "1/4.00", "1.50 ×", "+7.20 %", "-10.0 %", "+5.00 µs"),
    ]
    assert span(duration(2e-6), duration(3e-6)) == "2.00 to 3.00\u00a0µs"
    assert span(duration(2e-6), duration(3e-3)) == "2.00\u00a0µs to 3.00\u00a0ms"


def test_a_number_has_enough_digits_to_differ_from_its_limit() -> None:
    assert distinct(times, 1.7000004, 1.7) == "1.7000004\u00a0×"
    assert distinct(times, 1.7, 1.7) == "1.70\u00a0×"
