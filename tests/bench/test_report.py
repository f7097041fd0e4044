"""The report as its readers get it: the page, the Markdown, and the command."""

import argparse
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report import add_arguments, main
from bench.report.bars import judge
from bench.report.markdown import BEGIN, END, escaped, markdown
from bench.report.page import page
from bench.report.records import Records, read
from bench.report.style import CSS
from bench.report.tables import Table, bars_table, cpu_table
from tests.bench.report_sample import Line, load, micro, run, sample, write

HOSTILE = """</title><script>alert(1)</script><img src=x onerror="y">'&|*`\x00\u202e]]>"""


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return read([write(tmp_path / "results.jsonl", sample())])


def of(tmp_path: Path, *lines: Line) -> Records:
    return read([write(tmp_path / "results.jsonl", lines)])


def command(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def body_of(html: str) -> ElementTree.Element:
    """The body, which is well-formed."""
    return ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])


def words_of(html: str) -> str:
    """What is to be read on a page, without its markup and its style."""
    return " ".join(" ".join(body_of(html).itertext()).split())


def test_each_plot_is_well_formed_and_says_in_words_what_it_shows(records: Records) -> None:
    found = drawings(page(records))
    assert len(found) == 11
    names: list[str] = []
    for drawing in found:
        title, description = drawing.find("title"), drawing.find("desc")
        assert title is not None
        assert title.text
        assert description is not None
        assert description.text
        assert drawing.get("role") == "img"
        assert drawing.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        names += [title.get("id", ""), description.get("id", "")]
    assert len(set(names)) == len(names)


def test_nothing_on_a_plot_lies_outside_of_it(records: Records) -> None:
    for drawing in drawings(page(records)):
        _, _, width, height = map(float, drawing.get("viewBox", "").split())
        for element in drawing.iter():
            for name, value in element.items():
                if name in {"x", "x1", "x2", "cx"}:
                    assert 0 <= float(value) <= width, element.attrib
                elif name in {"y", "y1", "y2", "cy"}:
                    assert 0 <= float(value) <= height, element.attrib


def test_each_class_of_a_plot_has_its_style(records: Records) -> None:
    """A mark without a style is black, which is nothing at all on a dark page."""
    styled = set(re.findall(r"\.([a-z][\w-]*)", CSS))
    toned = set(re.findall(r"\.([a-z][\w-]*) \{ --tone: ", CSS))
    parts = [part for drawing in drawings(page(records)) for part in drawing.iter()]
    used = {name for part in parts for name in part.get("class", "").split()}
    assert used - {"row", "label", "value"} <= styled  # those three are text like any other
    groups = {part.get("class", "").removeprefix("row ") for part in parts if part.tag == "g"}
    assert groups == toned == {"ours", "floor", "direct", "peer", "over", "key"}


def test_the_page_needs_nothing_from_elsewhere(records: Records) -> None:
    html = page(records)
    for foreign in ("http:", "https:", "//", "<script", "<link", "<img", "@import", "url(", "src=", "href="):
        assert foreign not in html, foreign
    assert html.startswith("<!DOCTYPE html>")
    assert '<meta charset="utf-8">' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_what_records_say_never_becomes_markup(tmp_path: Path) -> None:
    lines = [
        run("relay", "paced", 0, load(20.0), rate=50.0) | {"label": HOSTILE, "version": HOSTILE},
        run(HOSTILE, "saturated", 0, load(20.0, errors={HOSTILE: 2})),
        run("ours-fast", HOSTILE, 0, load(9.0, transit=1e-3), rate=7.0),
        micro(HOSTILE, HOSTILE, 2.0, 1.0, HOSTILE),
        {"kind": "missing", "server": HOSTILE, "why": HOSTILE},
        {"kind": "grammar", "server": HOSTILE, "faults": [HOSTILE]},
        {"kind": "env", "date": HOSTILE, "cpu": HOSTILE, "versions": {HOSTILE: HOSTILE}},
        {"kind": HOSTILE},
    ]
    hostile = of(tmp_path, *lines)
    html, text = page(hostile), markdown(hostile)
    assert "<script" not in html
    assert "<img" not in html
    assert not set("\x00\u202e") & set(html + text)
    assert len(drawings(html)) == 9
    assert "<script>alert(1)</script>" in words_of(html)  # it is shown, as what it is
    assert text.count("<") == text.replace("\\<", "").count("<") + text.count("\\<")
    assert {line for line in text.splitlines() if "<" in line.replace("\\<", "")} == {BEGIN, END}


def test_a_page_of_nothing_says_that_nothing_was_measured(tmp_path: Path) -> None:
    empty = of(tmp_path)
    html, text = page(empty), markdown(empty)
    states = [item.state for item in judge(empty)]
    assert set(states) == {"not measured"}
    assert f"{len(states)} bars: 0 met, 0 not met, {len(states)} not measured." in words_of(html)
    assert words_of(html).count("Not measured.") == 10
    assert "No record says when, where or with what this was measured." in text
    assert "CPU per token by server: not measured." in text
    assert not drawings(html)


def test_missing_peers_and_faults_of_grammar_are_told(records: Records) -> None:
    said = words_of(page(records))
    assert "nginx-quic is missing: no such package in this system's package lists" in said
    assert "LiteLLM proxy is incomplete: saturated, round 5: hangs" in said
    assert "message_stop: two of them; content_block_stop without start" in said
    assert "no fault found" in said
    assert "not checked" in said
    assert "nginx-quic is missing" in markdown(records)


def test_a_missing_peer_is_named_where_its_bar_was_not_measured(tmp_path: Path) -> None:
    gone = of(tmp_path, {"kind": "missing", "server": "litellm", "why": "no wheel for this Python"})
    found = {item.bar.text: item.measured for item in judge(gone)}
    assert next(text for bar, text in found.items() if "LiteLLM" in bar) == (
        "no record; LiteLLM proxy: no wheel for this Python"
    )


def test_requests_that_failed_are_told_with_the_figures_they_taint(tmp_path: Path) -> None:
    tainted = of(
        tmp_path,
        run("relay", "paced", 0, load(20.0), rate=50.0),
        run("ours-fast", "paced", 0, load(30.0, errors={"http 500": 2, "cut": 1}), rate=50.0),
    )
    assert "anthro-asgi, fast: http 500 × 2, cut × 1" in words_of(page(tainted))
    assert "1.50 ×; 3 requests failed in these runs" in [
        row[2].replace("\u00a0", " ") for row in bars_table(tainted).rows
    ]
    assert cpu_table(tainted).rows[-1][-1] == "3"


def test_the_machine_and_what_is_not_shown_are_told(tmp_path: Path) -> None:
    said = words_of(page(of(tmp_path, *sample(), {"kind": "load"}, {"kind": "load"})))
    for known in ("2026-11-24 12:00", "db80082f00ba", "3.11.7", "A Processor @ 2.50GHz", "0.22.1"):
        assert known in said
    assert "Lines of kinds that this report does not show: load (2)." in said


def test_the_markdown_says_what_the_page_says(records: Records) -> None:
    html, text = page(records), markdown(records)
    for table in (bars_table(records), cpu_table(records)):
        assert cells_of(html, table.head) == [list(row) for row in table.rows]
        assert [line for line in text.splitlines() if line in expected(table)] == expected(table)


def cells_of(html: str, head: tuple[str, ...]) -> list[list[str]]:
    """The rows of the page's one table with this head."""
    tables = [
        table
        for table in body_of(html).iter("table")
        if [cell.text for cell in table.iterfind("thead/tr/th")] == [*head]
    ]
    assert len(tables) == 1
    return [[cell.text or "" for cell in row] for row in tables[0].iterfind("tbody/tr")]


def expected(table: Table) -> list[str]:
    return ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in (table.head, *table.rows)]


def test_cells_of_markdown_hold_no_markup() -> None:
    assert escaped("a|b\n*c* <d> `e` _f_ [g]\u202f1") == r"a\|b \*c\* \<d\> \`e\` \_f\_ \[g\] 1"


def test_the_command_writes_the_page_and_prints_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, html = write(tmp_path / "results.jsonl", sample()), tmp_path / "report.html"
    assert command(results, "--html", html) == 0
    assert capsys.readouterr().out == ""
    assert html.read_text() == page(read([results]))
    assert command(results) == 0
    assert capsys.readouterr().out == markdown(read([results]))
    assert command(results, "--html", html, "--markdown", "-") == 0
    assert capsys.readouterr().out == markdown(read([results]))


def test_markdown_is_renewed_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    results, readme = write(tmp_path / "results.jsonl", sample()), tmp_path / "README.md"
    text = markdown(read([results]))
    assert command(results, "--markdown", readme) == 0
    assert readme.read_text() == text
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert command(results, "--markdown", readme) == 0
        assert readme.read_text() == f"before\n{text}after\n"


def test_a_file_without_marks_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, readme = write(tmp_path / "results.jsonl", sample()), tmp_path / "README.md"
    readme.write_text("mine\n")
    assert command(results, "--markdown", readme) == 2
    assert readme.read_text() == "mine\n"
    assert "README.md has no place for the report" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "absent.jsonl") == 2
    assert "absent.jsonl" in capsys.readouterr().err
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"kind":"missing","server":"a","why":"b"}\n\n{"kind":"mic')
    assert command(broken) == 2
    assert "bench report: broken.jsonl:3: not JSON" in capsys.readouterr().err
