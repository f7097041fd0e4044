"""Stop sequences, compared with a slow and obvious search, for text in any pieces."""

import time
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.deltas import (
    Batch,
    Block,
    Delta,
    Finish,
    Signature,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
    deltas_of,
)
from anthro_asgi.wire.stop_sequences import MAX_PIECE, StopSequenceFilter, StopSequenceMatcher, divide
from tests.wire.strategies import examples, pieces

# the oracle


def search(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the match that completes first, and that match; the longest if several complete together."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def may_still_become_one(text: str, stops: list[str]) -> str:
    """The longest suffix of the text that is a prefix of a stop sequence."""
    starts = (start for start in range(len(text)) if any(stop.startswith(text[start:]) for stop in stops))
    return text[next(starts, len(text)) :]


ALPHABETS = st.sampled_from(["a", "ab", "abc", "é漢🙂", "\n#e\u0301"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Stop sequences of few letters, so that they overlap and contain each other; and a text in pieces."""
    letters = st.sampled_from(draw(ALPHABETS))
    stops = draw(st.lists(st.text(letters, min_size=1, max_size=9), min_size=1, max_size=4))
    stops += [stop[1:] for stop in stops if len(stop) > 1 and draw(st.booleans())]
    return stops, draw(pieces(draw(st.text(letters, max_size=25)), most=12))


@pytest.mark.slow
@pytest.mark.clause("4.8")
@examples(200)
@given(cases())
def test_any_stop_sequences_in_any_fragments_match_as_in_the_slow_search(case: tuple[list[str], list[str]]) -> None:
    stops, fragments = case
    matcher = StopSequenceMatcher(stops)
    seen = released = ""
    for fragment in fragments:
        seen += fragment
        released += matcher.feed(fragment)
        before, match = search(seen, stops)
        assert matcher.matched == match
        if match is not None:
            assert released == before
            assert matcher.flush() == ""
            return
        assert released == seen.removesuffix(may_still_become_one(seen, stops))
    assert released + matcher.flush() == seen


@examples(50)
@given(cases(), st.data())
def test_a_flushed_matcher_behaves_like_a_new_one(case: tuple[list[str], list[str]], data: st.DataObject) -> None:
    stops, fragments = case
    used, new = StopSequenceMatcher(stops), StopSequenceMatcher(stops)
    used.feed(search(data.draw(st.text(st.sampled_from("".join(stops)), max_size=6)), stops)[0])
    used.flush()
    for fragment in fragments:
        assert used.feed(fragment) == new.feed(fragment)
        assert used.matched == new.matched
        if new.matched is not None:
            return


@pytest.mark.clause("4.8")
@pytest.mark.parametrize(
    ("stops", "text", "before", "matched"),
    [
        (["END"], "one END two", "one ", "END"),
        (["END", "one"], "one END", "", "one"),
        (["ab", "abc"], "xabc", "x", "ab"),
        (["bc", "abc"], "xabc", "x", "abc"),
        (["c", "bc", "abcd"], "xabcd", "xa", "bc"),
        (["aab"], "aaab", "a", "aab"),
        (["aabaaab"], "aabaaaabaaab", "aabaa", "aabaaab"),
        (["abac", "bab"], "ababac", "a", "bab"),
        (["🙂"], "é🙂", "é", "🙂"),
        (["\n\nHuman:"], "a\n\n\nHuman: b", "a\n", "\n\nHuman:"),
        (["END", "END"], "END", "", "END"),
    ],
)
def test_the_match_that_completes_first_wins_or_else_the_longer_one(
    stops: list[str], text: str, before: str, matched: str
) -> None:
    for cut in range(len(text) + 1):
        for order in (stops, stops[::-1]):
            matcher = StopSequenceMatcher(order)
            released = matcher.feed(text[:cut])
            if matcher.matched is None:
                released += matcher.feed(text[cut:])
            assert (released, matcher.matched) == (before, matched)


def test_text_in_which_no_stop_sequence_can_begin_is_released_at_once() -> None:
    matcher = StopSequenceMatcher(["END", "\n\n"])
    assert [matcher.feed(text) for text in ("one", "", " E", "t\n", "END")] == ["one", "", " ", "Et", "\n"]
    assert matcher.matched == "END"


def test_held_text_is_released_when_it_does_not_become_a_match() -> None:
    matcher = StopSequenceMatcher(["END"])
    assert [matcher.feed(text) for text in ("E", "N", "E", "x")] == ["", "", "EN", "Ex"]


# cost


class Counting(str):
    """A string that counts the characters that are read from it or copied."""

    read: list[int]

    def made(self, value: str) -> "Counting":
        counted = Counting(value)
        counted.read = self.read
        return counted

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        value = str.__getitem__(self, key)
        self.read[0] += len(value)
        return self.made(value)

    def __add__(self, other: str) -> str:
        self.read[0] += len(self) + len(other)
        return self.made(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        self.read[0] += len(self) + len(other)
        return self.made(str.__add__(other, self))

    def startswith(self, prefix: Any, *where: Any) -> bool:
        self.read[0] += len(prefix)
        return str.startswith(self, prefix, *where)

    def find(self, sub: str, *where: Any) -> int:
        found = str.find(self, sub, *where)
        start, end = (*where, len(self))[:2] if where else (0, len(self))
        self.read[0] += (end if found < 0 else found + len(sub)) - start
        return found


def work(stops: list[str], text: str, size: int) -> int:
    """How many characters of the text and the stop sequences are read or copied for a text in pieces."""
    origin = Counting()
    origin.read = [0]
    matcher = StopSequenceMatcher([origin.made(stop) for stop in stops])
    for start in range(0, len(text), size):
        matcher.feed(origin.made(text[start : start + size]))
    assert matcher.matched is None
    return origin.read[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("a" * 2000 + "b", "a" * 6000),
        ("a" * 2000 + "b", ("a" * 1999 + "c") * 3),
        ("ab" * 1000 + "c", "ab" * 999 + "abaabb" * 700),
        ("ab" * 1000 + "c", "x" * 6000),
    ],
    ids=["all held", "nearly matches", "periodic", "nothing held"],
)
def test_a_long_stop_sequence_costs_a_few_comparisons_for_each_character(stop: str, text: str, size: int) -> None:
    assert work([stop], text, size) <= 8 * (len(text) + len(stop))


def test_of_many_stop_sequences_only_the_begun_ones_cost_time() -> None:
    stops = [f"#{number}#" for number in range(1000)]
    idle, begun = work(stops, "x" * 1000, 5), work([*stops, "x#"], "x" * 1000, 5)
    assert idle <= 2 * 1000 + len(stops)
    assert begun <= 8 * 1000 + len(stops)


# deltas


def filtered(stops: list[str], *batches: Batch) -> list[Delta]:
    stop_filter = StopSequenceFilter(stops)
    return [delta for batch in batches for delta in deltas_of(stop_filter.feed(batch))]


@pytest.mark.clause("4.7")
def test_a_match_becomes_the_finish_and_drops_what_follows() -> None:
    assert filtered(["END"], "a", ["bEN", "D more", Thinking("x")]) == ["a", "b", Finish("stop_sequence", "END")]


def test_a_match_without_text_before_it_leaves_no_empty_text() -> None:
    assert filtered(["END"], "END") == [Finish("stop_sequence", "END")]


def test_an_empty_text_is_passed_on() -> None:
    assert filtered(["END"], "", Finish("end_turn")) == ["", Finish("end_turn")]


ENDINGS: list[Delta] = [
    ToolStart("toolu_1", "w"),
    Thinking("x"),
    Signature("x"),
    Block({"type": "x"}),
    Finish("max_tokens"),
]


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_a_delta_that_ends_a_text_releases_the_held_text(ending: Delta) -> None:
    assert filtered(["END"], "aEN", ending) == ["a", "EN", ending]


@pytest.mark.parametrize("ending", ENDINGS[:-1], ids=repr)
def test_a_stop_sequence_does_not_match_across_another_block(ending: Delta) -> None:
    assert filtered(["END"], "EN", ending, "D", Finish("end_turn")) == ["EN", ending, "D", Finish("end_turn")]


def test_a_stop_sequence_split_by_a_tool_call_does_not_match() -> None:
    call: list[Delta] = [ToolStart("toolu_1", "w"), ToolJson('{"a":"END"}')]
    assert filtered(["END"], "xEN", call, "Dy", Finish("tool_use")) == ["x", "EN", *call, "Dy", Finish("tool_use")]


@pytest.mark.clause("4.8")
def test_thinking_and_tool_input_are_not_searched() -> None:
    deltas: list[Delta] = [Thinking("END"), ToolStart("toolu_1", "END"), ToolJson('"END"'), Finish("tool_use")]
    assert filtered(["END"], deltas) == deltas


@pytest.mark.parametrize("note", [Usage(1, 2), Thinking(""), Signature("")], ids=repr)
def test_a_delta_that_writes_nothing_does_not_end_a_text(note: Delta) -> None:
    assert filtered(["END"], "EN", note, "D") == [note, Finish("stop_sequence", "END")]


def test_a_stop_sequence_that_the_engine_matched_itself_is_passed_on() -> None:
    assert filtered(["END"], "a", Finish("stop_sequence", "END")) == ["a", Finish("stop_sequence", "END")]


@pytest.mark.clause("4.7")
def test_a_multibyte_beginning_of_the_stop_that_the_engine_named_is_not_text() -> None:
    """SGLang emits it before it matches the stop sequence."""
    named = Finish("stop_sequence", "字🙂é")
    assert filtered(["字🙂é"], "漢", "字", [Usage(output_tokens=2), named]) == ["漢", Usage(output_tokens=2), named]
    assert filtered(["字🙂é"], "漢", "字", Finish("end_turn")) == ["漢", "字", Finish("end_turn")]
    assert filtered(["ab"], "xa", Finish("stop_sequence", "ab")) == ["x", "a", Finish("stop_sequence", "ab")]


@pytest.mark.slow
@examples(80)
@given(cases(), st.data())
def test_a_filter_matches_in_each_run_of_text_as_the_slow_search_does(
    case: tuple[list[str], list[str]], data: st.DataObject
) -> None:
    stops, fragments = case
    deltas: list[Delta] = []
    for fragment in fragments:
        deltas.append(fragment)
        deltas += data.draw(st.sampled_from([[], [], [Usage(1)], [Thinking("|")]]))
    before, match = search(written(deltas), stops)
    *out, finish = filtered(stops, [*deltas, Finish("end_turn")])
    assert written(out) == before
    assert finish == (Finish("end_turn") if match is None else Finish("stop_sequence", match))


def written(deltas: list[Delta]) -> str:
    """The texts, joined by a mark that is in no stop sequence where thinking is between them."""
    return "".join(
        "\0" if isinstance(delta, Thinking) else delta for delta in deltas if isinstance(delta, (str, Thinking))
    )


def test_deltas_after_the_match_in_its_batch_are_counted_as_unread() -> None:
    stop_filter = StopSequenceFilter(["END"])
    stop_filter.feed(["a", "b"])
    assert stop_filter.unread == 0
    stop_filter.feed(["c END", "d", Thinking("x")])
    assert stop_filter.unread == 2


def test_the_filter_reports_the_stop_sequence_it_matched() -> None:
    stop_filter = StopSequenceFilter(["END", "FIN"])
    stop_filter.feed(["a", Finish("stop_sequence", "END")])
    assert stop_filter.matched is None, "the engine did it itself"
    stop_filter.feed("a F")
    assert stop_filter.matched is None
    stop_filter.feed("IN")
    assert stop_filter.matched == "FIN"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["a" * number + "b" for number in range(1, 257)], "a" * 50_000),
        (["a" * 100_000 + "b"] + ["a" * number + "c" for number in range(1, 256)], "a" * 50_000),
        (["ab" * 50_000 + chr(256 + number) for number in range(256)], "ab" * 25_000),
        (
            [chr(256 + number) * 2 for number in range(256)],
            "".join(chr(256 + number % 256) for number in range(50_000)),
        ),
    ],
    ids=["near matches", "a long one", "one beginning", "every first character"],
)
def test_the_time_is_linear_in_the_text_for_any_stop_sequences(stops: list[str], text: str) -> None:
    """One search for each of 256 stop sequences took five seconds for 200 KB, more than one for this text."""
    matcher = StopSequenceMatcher(stops)
    began = time.thread_time()
    out = matcher.feed(text)
    assert time.thread_time() - began < 1.0
    assert matcher.matched is None
    assert out + matcher.flush() == text


def test_without_stop_sequences_all_text_is_released() -> None:
    matcher = StopSequenceMatcher([])
    assert (matcher.feed("Hello"), matcher.matched, matcher.flush()) == ("Hello", None, "")


@pytest.mark.parametrize("first", [*"^-]\\[&|~.$", "\n", "\x00"])
def test_a_stop_sequence_may_begin_with_any_character(first: str) -> None:
    matcher = StopSequenceMatcher([first + "x", "]y"])
    assert (matcher.feed("a" + first + "xb"), matcher.matched) == ("a", first + "x")


def test_a_batch_is_divided_into_short_pieces_that_continue_each_other() -> None:
    text = "ab" * MAX_PIECE
    batch: list[Delta] = ["x", text, Thinking("t"), "y"]
    divided = list(divide(batch))
    texts = [[delta for delta in deltas_of(piece) if isinstance(delta, str)] for piece, _ in divided]
    assert "".join(map("".join, texts)) == f"x{text}y"
    assert all(sum(map(len, piece)) <= MAX_PIECE for piece in texts)
    assert [continues for _, continues in divided] == [False, False, True, False]
    assert list(divide("")) == [("", False)]
    assert list(divide([])) == []
    many: list[Delta] = []
    many.extend("x" * 3 * MAX_PIECE)
    assert len(list(divide(many))) == 3
