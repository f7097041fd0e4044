"""`anthro-asgi bench report`: the page of one's own load."""

import argparse
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest

from anthro_asgi.bench.load.tally import Slo
from anthro_asgi.bench.records import Goodput, Load, load_from
from anthro_asgi.bench.report import charts
from anthro_asgi.bench.report.charts import Axis, Line, line_chart, linear_ticks, log_ticks, mark
from anthro_asgi.bench.report.command import add_arguments, main
from anthro_asgi.bench.report.page import page
from anthro_asgi.bench.report.results import read
from tests.bench.report_sample import load


def run(concurrency: int | None, *, label: str = "one", rate: float | None = None, slower: float = 1.0) -> Load:
    """An invented run."""
    found = load(30.0, ttft=0.001 * (concurrency or rate or 1) * slower)
    found.label, found.concurrency, found.rate = label, concurrency, rate
    found.quantiles = {name: [0.001 * slower * (1 + share) for share in range(101)] for name in ("ttft", "itl", "e2e")}
    return found


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


class Reader(HTMLParser):
    """The elements of a page, and what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


def test_the_page_of_two_servers_holds_their_distributions_and_their_sweeps_side_by_side(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *(run(n) for n in (16, 1, 4)), run(None, rate=5.0), run(None, rate=20.0))
    second = write(tmp_path / "b.jsonl", *(run(n, label="<two>", slower=2.0) for n in (1, 4)))
    shown = page(read([first, second], Slo()), "A & B")
    reader = Reader()
    reader.feed(shown)
    assert reader.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert reader.tags.count("svg") == 2 + 3 + 5 + 5  # marks, distributions, and charts against clients and the rate
    assert "<title>A &amp; B</title>" in shown
    assert "<two>" not in shown
    assert "one, &lt;two&gt;: 4\u202f480 requests, of which none failed." in shown
    assert "&lt;two&gt;, as a multiple of one" in shown
    assert '<th scope="row">one, 16\u00a0at\u00a0once</th>' in shown, (
        "a row says what it is where the other columns are scrolled"
    )
    for svg in re.findall(r"<svg.*?</svg>", shown):
        ElementTree.fromstring(svg)


def test_runs_are_in_the_order_of_their_load_and_labels_name_the_servers(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", run(16), run(4)), write(tmp_path / "b.jsonl", run(1), run(None, rate=2.0))]
    again = write(tmp_path / "c.jsonl", run(4))
    (server,) = read(files, Slo())
    assert [one.concurrency or one.rate for one in server.runs] == [1, 4, 16, 2.0]
    assert [one.name for one in read([*files, again], Slo())] == ["one", "one (c.jsonl)"]


def test_goodput_is_computed_from_the_lines_of_the_requests(tmp_path: Path) -> None:
    found = run(4)
    found.requests, found.seconds = 4, 2.0
    times = [(0.1, 0.01, 1.0, None), (0.3, 0.01, 1.0, None), (0.1, 0.03, 1.0, None), (0.1, 0.01, 1.0, "cut")]
    lines = [{"kind": "request", "ttft": a, "itl": b, "e2e": c, "error": error} for a, b, c, error in times]
    file = write(tmp_path / "a.jsonl", *lines, found)
    (server,) = read([file], Slo(ttft=0.2, itl=0.02))
    assert server.runs[0].goodput == Goodput({"ttft": 0.2, "itl": 0.02, "e2e": None}, 0.5, 0.25)
    with pytest.raises(ValueError, match=r"b.jsonl, line 1: no line for each request.* --each"):
        read([write(tmp_path / "b.jsonl", found)], Slo(ttft=0.2))


def test_the_page_says_what_a_good_request_is_and_how_many_there_were_in_a_second(tmp_path: Path) -> None:
    found = run(4)
    assert "goodput" not in page(read([write(tmp_path / "a.jsonl", found)], Slo()), "t")
    found.goodput = Goodput({"ttft": 0.2, "itl": None, "e2e": 1.5}, 12.34, 0.9876)
    shown = page(read([write(tmp_path / "a.jsonl", found, run(8))], Slo()), "t").replace("\u00a0", " ")
    assert ">12.3</td>" in shown
    assert ">98.8 %</td>" in shown
    assert "TTFT at most 200 ms, E2E at most 1.5 s" in shown
    assert "no limits" in shown
    assert {"Goodput: good requests/s", "Share of good requests"} <= set(re.findall(r"<strong>(.*?)</strong>", shown))


def test_moments_are_written_for_people(tmp_path: Path) -> None:
    found = run(4)
    found.date = "2026-11-30T08:13:26+00:00"
    assert "2026-11-30 08:13:26\u00a0UTC" in page(read([write(tmp_path / "a.jsonl", found)], Slo()), "t")


def test_errors_are_listed_with_what_the_first_one_said(tmp_path: Path) -> None:
    found = run(4)
    found.errors, found.error_details = {"http 429": 3}, {"http 429": "slow <down>"}
    shown = page(read([write(tmp_path / "a.jsonl", found)], Slo()), "t")
    assert "slow &lt;down&gt;" in shown
    assert "Not measured" not in shown


def test_a_run_without_a_first_token_is_shown_as_not_measured(tmp_path: Path) -> None:
    found = run(4)
    found.ttft, found.quantiles = {**dict.fromkeys(found.ttft), "n": 0}, {}
    assert page(read([write(tmp_path / "a.jsonl", found)], Slo()), "t").count("Not measured.") == 3


def test_a_summary_is_read_back_as_it_was_written() -> None:
    found = run(4)
    found.goodput = Goodput({"ttft": 1.0, "itl": None, "e2e": None}, 1.0, 0.5)
    assert load_from(orjson.dumps(found)) == found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind":"load"}', '{"kind":"micro"}'])
def test_a_file_without_results_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    assert command(file, "--html", tmp_path / "r.html") == 2
    assert capsys.readouterr().err.startswith("anthro-asgi bench report: a.jsonl")


def test_a_file_that_cannot_be_read_or_written_is_named_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent" / "r"
    assert command(absent, "--html", tmp_path / "r.html") == 2
    assert command(tmp_path, "--html", tmp_path / "r.html") == 2
    assert command(write(tmp_path / "a.jsonl", run(1)), "--html", absent) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"anthro-asgi bench report: cannot read {absent}: no such file or directory",
        f"anthro-asgi bench report: cannot read {tmp_path}: is a directory",
        f"anthro-asgi bench report: cannot write {absent}: no such file or directory",
    ]


def test_a_line_that_is_not_json_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.jsonl", run(1))
    file.write_bytes(file.read_bytes() + b"\n{")
    assert command(file, "--html", tmp_path / "r.html") == 2
    assert "a.jsonl, line 3: is not JSON; the file must be what bench load --json wrote" in capsys.readouterr().err


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "r.html"
    assert command(write(tmp_path / "a.jsonl", run(1), run(2)), "--html", html, "--title", "Mine") == 0
    assert capsys.readouterr().out == f"{html}: 2 runs\n"
    assert "<h1>Mine</h1>" in html.read_text()
    assert command(write(tmp_path / "b.jsonl", run(1)), "--html", html) == 0
    assert capsys.readouterr().out == f"{html}: 1 run\n"


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


# ---- charts


def test_ticks_are_round_numbers_and_few() -> None:
    assert linear_ticks(1112.0) == (0.0, 200.0, 400.0, 600.0, 800.0, 1000.0)
    assert linear_ticks(0.75) == pytest.approx((0, 0.2, 0.4, 0.6))
    assert log_ticks(0.09, 1.1) == pytest.approx((0.1, 0.2, 0.5, 1.0))
    assert log_ticks(1e-5, 2.0) == pytest.approx((1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    assert len(log_ticks(1e-9, 1e9)) <= 7


def test_a_logarithmic_axis_has_at_least_three_ticks() -> None:
    assert log_ticks(0.1, 0.28) == pytest.approx((0.1, 0.15, 0.2))
    assert log_ticks(0.0045, 0.0115) == pytest.approx((0.005, 0.007, 0.01))
    assert log_ticks(0.29, 0.301) == pytest.approx((0.29, 0.292, 0.294, 0.296, 0.298, 0.3))
    draws = random.Random(1)
    for _ in range(2000):
        low = 10 ** draws.uniform(-6, 3)
        high = low * 1.21 * 10 ** draws.uniform(0, 6)  # an axis is at least this long
        ticks = log_ticks(low, high)
        assert 3 <= len(ticks) <= 7, (low, high, ticks)
        assert low <= ticks[0] < ticks[-1] <= high


def test_twelve_servers_have_different_marks_and_each_colour_is_one_of_the_page() -> None:
    marks = [re.sub(r"\d+\.\d,?", "", mark(server)) for server in range(12)]
    assert len(set(marks)) == 12
    sheet = (Path(charts.__file__).parent / "page.css").read_text()
    for colour in charts.COLOURS:
        assert sheet.count(f"--{colour}: #") == 2, "one for light pages and one for dark pages"


def test_the_marks_of_the_second_quantity_of_a_server_are_hollow() -> None:
    """A server with a single run has no line, so only the mark tells p50 from p99."""
    lines = [Line("p50", ((1.0, 1.0),), 0), Line("p99", ((1.0, 2.0),), 0, dashed=True)]
    svg = ElementTree.fromstring(line_chart("t", Axis("x", str, log=True), Axis("y", str), lines))
    assert [mark.get("fill") for mark in svg.iter("circle")] == ["var(--s1)", "var(--paper)"]


@pytest.mark.parametrize("ticks", [tuple(range(1, 65)), (1, 2, 5, 10, 20, 50, 100)])
def test_the_numbers_of_an_axis_do_not_touch_each_other(ticks: tuple[float, ...]) -> None:
    across = Axis("x", "{:g} ms".format, log=True, ticks=ticks)
    svg = ElementTree.fromstring(line_chart("t", across, Axis("y", str), [Line("l", ((1.0, 1.0), (99.0, 2.0)), 0)]))
    texts = [one for one in svg.iter("text") if one.get("text-anchor") == "middle"]
    places = [(float(one.get("x", "")), 8.5 * len(one.text or "") / 2) for one in texts]
    assert len(places) > 4
    assert max(x + half for x, half in places) <= 430
    for (x, half), (after, half_after) in pairwise(places):
        assert x + half < after - half_after


def test_a_logarithmic_axis_leaves_out_zero_and_a_point_lies_where_its_value_is() -> None:
    across, up = Axis("x", str, log=True), Axis("y", str, ticks=(0, 50, 100))
    svg = line_chart("t", across, up, [Line("l", ((0.0, 0.0), (1.0, 0.0), (10.0, 50.0), (100.0, 100.0)), 0)])
    marks = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in ElementTree.fromstring(svg).iter("circle")]
    assert len(marks) == 3
    assert marks[1] == pytest.approx(((marks[0][0] + marks[2][0]) / 2, (marks[0][1] + marks[2][1]) / 2), abs=0.11)
    assert 'aria-label="t. l: 100.0 at 100.0"' in svg
