"""Numbers, axes and plots: what a reader's eye goes by."""

from itertools import pairwise

import pytest

from bench.report.lines import Series, lines_plot, spaced
from bench.report.markup import node, written
from bench.report.numbers import (
    duration,
    growth,
    honest,
    part,
    plain,
    plain_duration,
    reach,
    signed,
    significant,
    times,
)
from bench.report.rows import Mark, Point, Row, roomy, rows_plot
from bench.report.scales import Linear, Log
from bench.report.svg import Axis, Text

ABOUT = Text("a", "Title", "What it shows")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (49.27, "49.3"),
        (1.7, "1.70"),
        (9.999, "10.0"),
        (0.07123, "0.0712"),
        (12345.0, "12\u202f300"),
        (999.9, "1\u202f000"),
        (-4.1, "\u22124.10"),
        (1e-7, "0.000000100"),
    ],
)
def test_numbers_have_three_significant_digits_and_no_exponent(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (49.3e-6, "49.3 µs"),
        (0.001, "1.00 ms"),
        (2.5, "2.50 s"),
        (3e-9, "3.00 ns"),
        (0.0, "0 ns"),
        (-82e-6, "\u221282.0 µs"),
    ],
)
def test_times_come_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == text


def test_chosen_numbers_have_no_digit_too_many() -> None:
    assert [plain(value) for value in (1.7, 2.0, 40, 20_000, 0)] == ["1.7", "2", "40", "20\u202f000", "0"]
    assert [plain_duration(value).replace("\u00a0", " ") for value in (5e-3, 100e-6, 0.02)] == [
        "5 ms",
        "100 µs",
        "20 ms",
    ]


def test_ratios_read_as_factors_parts_or_growth() -> None:
    said = [times(1.62), part(0.25), part(1.5), growth(1.072), growth(0.9), signed(5e-6), signed(-5e-6)]
    assert [text.replace("\u00a0", " ") for text in said] == [
        "1.62 ×",
        "1/4.00",
        "1.50 ×",
        "+7.20 %",
        "\u221210.0 %",
        "+5.00 µs",
        "\u22125.00 µs",
    ]


def test_a_reach_names_its_unit_once_if_it_is_one() -> None:
    assert reach(duration(2e-6), duration(3e-6)) == "2.00 to 3.00\u00a0µs"
    assert reach(duration(2e-6), duration(3e-3)) == "2.00\u00a0µs to 3.00\u00a0ms"
    assert reach(part(0.25), part(0.5)) == "1/4.00 to 1/2.00"


def test_a_number_has_the_digits_it_takes_to_differ_from_its_limit() -> None:
    assert honest(times, 1.7000004, 1.7) == "1.7000004\u00a0×"
    assert honest(times, 1.7, 1.7) == "1.70\u00a0×"
    assert honest(times, 1.62, 1.7) == "1.62\u00a0×"


@pytest.mark.parametrize("values", [[3.0], [27.0, 5200.0], [0.4, 0.9, 1.1], [9.5e-5, 0.3], [1.0, 1.0]])
def test_a_logarithmic_axis_holds_its_values_between_round_ends(values: list[float]) -> None:
    scale = Log.over(values, 0.0, 100.0)
    assert scale.low <= min(values) * 1.001
    assert scale.high >= max(values) * 0.999
    ticks = scale.ticks()
    assert (ticks[0], ticks[-1]) == (scale.low, scale.high)
    assert all(low < high for low, high in pairwise(ticks))
    assert all(f"{tick:.3e}"[0] in "125" for tick in ticks)
    assert [scale.at(scale.low), scale.at(scale.high), scale.at(scale.high * 9), scale.at(0.0)] == [
        0.0,
        100.0,
        100.0,
        0.0,
    ]


@pytest.mark.parametrize("most", [0.7, 1.0, 37.0, 40.0, 148_000.0])
def test_a_linear_axis_begins_at_nothing_and_ends_at_a_tick(most: float) -> None:
    scale = Linear.over([most / 3, most], 10.0, 110.0)
    ticks = scale.ticks()
    assert ticks[0] == 0
    assert ticks[-1] == pytest.approx(scale.high)
    assert most <= scale.high * 1.0001
    assert 3 <= len(ticks) <= 6
    assert scale.at(0.0) == 10.0
    assert scale.at(scale.high / 2) == pytest.approx(60.0)


def test_words_at_ticks_never_lie_on_one_another() -> None:
    words = [(0.0, "20"), (30.0, "30 000"), (60.0, "100"), (400.0, "1 000"), (405.0, "2 000")]
    assert roomy(words) == [(0.0, "20"), (60.0, "100"), (405.0, "2 000")]


def test_names_of_lines_are_moved_apart_and_stay_on_the_sheet() -> None:
    assert spaced([10, 50, 90], 18, 0, 100) == [10, 50, 90]
    assert spaced([50, 51, 52], 18, 0, 100) == [50, 68, 86]
    assert spaced([95, 96, 97], 18, 0, 100) == [64, 82, 100]


def test_bars_on_a_linear_axis_are_as_long_as_their_values() -> None:
    axis = Axis("tokens/s", plain)
    drawing = rows_plot(ABOUT, axis, [Row("a", "1", "peer", bar=100.0), Row("b", "2", "ours", bar=50.0)])
    wide, narrow = (float(bar.get("width", "")) for bar in drawing.iter("rect"))
    assert wide == pytest.approx(2 * narrow)


def test_a_row_draws_what_it_is_given() -> None:
    row = Row(
        "a",
        "1",
        "over",
        bar=3.0,
        spread=(2.0, 4.0),
        points=(Point(1.0, "p50"), Point(2.0, "p90")),
        limit=2.0,
        origin=1.0,
    )
    drawing = rows_plot(ABOUT, Axis("times", plain, log=True), [row], [Mark(1.0, "floor")], ["p50", "p90"])
    kinds = [element.get("class") for element in drawing.iter()]
    for kind, count in {"bar": 1, "spread": 3, "disc": 2, "ring": 2, "limit": 1, "mark": 1, "row over": 1}.items():
        assert kinds.count(kind) == count, kind
    assert "times, logarithmic" in [element.text for element in drawing.iter("text")]


def test_a_bar_below_its_origin_goes_to_the_left() -> None:
    rows = [Row("a", "1", "ours", bar=0.5, origin=1.0), Row("b", "2", "ours", bar=2.0, origin=1.0)]
    drawing = rows_plot(ABOUT, Axis("times", plain, log=True), rows)
    below, above = ((float(bar.get("x", "")), float(bar.get("width", ""))) for bar in drawing.iter("rect"))
    assert below[0] + below[1] == pytest.approx(above[0], abs=0.02)


def test_names_too_long_for_a_row_are_cut_and_said_in_full_elsewhere() -> None:
    drawing = rows_plot(ABOUT, Axis("n", plain), [Row("x" * 300, "1", "peer", bar=1.0)])
    texts = [element.text or "" for element in drawing.iter("text")]
    assert max(map(len, texts)) < 80
    assert any(text.endswith("…") for text in texts)
    assert f"{'x' * 300}: 1" in [element.text for element in drawing.iter("title")]


def test_a_line_has_a_dot_for_each_value_and_its_name_at_the_end() -> None:
    series = [Series("a", "ours", ((10.0, 40.0), (1000.0, 44.0))), Series("b", "floor", ((10.0, 41.0),))]
    drawing = lines_plot(ABOUT, Axis("streams", plain, log=True), Axis("µs", plain, log=True), series)
    assert [element.get("class") for element in drawing.iter()].count("disc") == 3
    assert {"a", "b", "10", "1\u202f000"} <= {element.text for element in drawing.iter("text")}


def test_text_and_attributes_are_escaped_and_cleaned() -> None:
    found = written(node("p", "a<b>&\x00", node("b", "c"), "d\u202e", class_='"x"', aria_label="1<2", x=1.50))
    assert found == '<p class="&quot;x&quot;" aria-label="1&lt;2" x="1.5">a&lt;b&gt;&amp;\ufffd<b>c</b>d\ufffd</p>'
