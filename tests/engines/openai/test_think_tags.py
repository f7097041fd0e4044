"""`<think>` tags in text: found however the text is cut, never sent in part, compared with a slow oracle."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.think_tags import ThinkTagFilter, think_tag_filter
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart
from tests.engines.openai.test_chunk_reader import DONE, STOP, chunk, joined, payload


def found(*pieces: str, opened: bool = False) -> tuple[str, str]:
    """The thinking and the text; the thinking always comes first."""
    tags = ThinkTagFilter(opened=opened)
    out = [delta for piece in pieces for delta in tags.feed(piece)] + tags.flush()
    kinds = [type(delta) for delta in out if delta != ""]
    assert kinds == sorted(kinds, key=lambda kind: kind is str)
    thought = "".join(delta.text for delta in out if isinstance(delta, Thinking))
    return thought, "".join(delta for delta in out if isinstance(delta, str))


def oracle(text: str, opened: bool) -> tuple[str, str]:
    """The expected thinking and text, from the whole text at once."""
    begun = text.lstrip()
    if begun.startswith("<think>"):
        begun = begun[7:]
    elif not opened:
        return "", text
    if "</think>" not in begun:
        return begun.lstrip(), ""
    thought, said = begun.split("</think>", 1)
    return thought.strip(), said.lstrip()


CASES = [
    ("<think>a</think>b", ("a", "b")),
    ("\n <think>\na b\n</think>\n\nc d\n", ("a b", "c d\n")),
    ("<think>\n\n</think>\n\nb", ("", "b")),
    ("<think></think>", ("", "")),
    ("<think>a", ("a", "")),
    ("<think>a</thin", ("a</thin", "")),
    ("<think>a < b </ c <think> d</think>e", ("a < b </ c <think> d", "e")),
    ("<think>a</think>b</think>c<think>d</think>", ("a", "b</think>c<think>d</think>")),
    ("a<think>b</think>", ("", "a<think>b</think>")),
    (" \na", ("", " \na")),
    ("<thinking>a</thinking>", ("", "<thinking>a</thinking>")),
    ("<thin", ("", "<thin")),
    ("< think>a", ("", "< think>a")),
    ("</think>a", ("", "</think>a")),
    ("  ", ("", "  ")),
    ("", ("", "")),
]
OPENED = [
    ("a</think>b", ("a", "b")),
    ("\na\n</think>\n\nb", ("a", "b")),
    ("</think>b", ("", "b")),
    ("<think>a</think>b", ("a", "b")),
    ("a<think>b</think>c", ("a<think>b", "c")),
    ("a", ("a", "")),
    ("<thi", ("<thi", "")),
    ("a</think", ("a</think", "")),
    (" ", ("", "")),
]
EVERY = [(text, False, expected) for text, expected in CASES] + [(text, True, expected) for text, expected in OPENED]


def fragmentations(text: str) -> Iterator[list[str]]:
    """All ways to cut `text` up to three times, and character by character."""
    for number in range(4):
        for cuts in combinations(range(1, len(text)), number):
            edges = [0, *cuts, len(text)]
            yield [text[start:end] for start, end in pairwise(edges)]
    yield list(text)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "opened", "expected"), EVERY, ids=repr)
def test_the_block_is_found_in_every_fragmentation(text: str, opened: bool, expected: tuple[str, str]) -> None:
    assert oracle(text, opened) == expected
    for pieces in fragmentations(text):
        assert found(*pieces, opened=opened) == expected, pieces


@pytest.mark.slow
def test_all_fragmentations_of_a_short_answer_agree() -> None:
    text = "<think>a</think>b"
    for cuts in range(1 << (len(text) - 1)):
        pieces = [text[0]]
        for index, char in enumerate(text[1:]):
            if cuts >> index & 1:
                pieces.append(char)
            else:
                pieces[-1] += char
        assert found(*pieces) == ("a", "b")


WORDS = st.sampled_from(["<think>", "</think>", "<", ">", "/", "think", " ", "\n", "a", "é", "<thi", "</th"])


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=400)
@given(words=st.lists(WORDS, max_size=12), cuts=st.lists(st.integers(0, 60), max_size=12), opened=st.booleans())
def test_any_text_in_any_pieces_gives_the_same_as_the_oracle(words: list[str], cuts: list[int], opened: bool) -> None:
    text = "".join(words)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert found(*pieces, opened=opened) == oracle(text, opened)


@pytest.mark.parametrize("opened", [False, True])
def test_text_that_cannot_become_a_tag_is_not_held(opened: bool) -> None:
    tags = ThinkTagFilter(opened=opened)
    start = [] if opened else tags.feed("<think>")
    assert start == []
    assert tags.feed("a") == [Thinking("a")]
    assert tags.feed(" <b") == [Thinking(" <b")]
    assert tags.feed(" <") == []
    assert tags.feed("i") == [Thinking(" <i")]
    assert tags.feed("</think>") == []
    assert tags.feed("<") == ["<"]
    assert tags.feed("</think>") == ["</think>"]


@pytest.mark.slow
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("begin", ["", "<think>", "<think>a"])
def test_endless_white_space_is_held_only_up_to_a_limit(begin: str, opened: bool) -> None:
    """A hundred thousand pieces must not take quadratic time."""
    tags = ThinkTagFilter(opened=opened)
    tags.feed(begin)
    for _ in range(100_000):
        tags.feed(" ")
        assert len(tags._held) <= 4096
    last = tags.feed("b")[-1]
    assert (last if isinstance(last, str) else last.text).endswith("b")


def test_a_tag_after_more_white_space_than_the_limit_is_still_found() -> None:
    thought, said = found("<think>a", *[" " * 1000] * 10, "</thi", "nk>", " " * 10_000, "b")
    assert (thought.strip(), said) == ("a", "b")


def test_an_empty_text_passes_before_inside_and_after_the_block() -> None:
    tags = ThinkTagFilter(opened=False)
    for piece in ("<think>", "a", "</think>", "b"):
        assert tags.feed("") == [""]
        tags.feed(piece)
    assert tags.feed("") == [""]


def test_the_mode_decides_which_filter_is_used() -> None:
    assert think_tag_filter("off", thinking_disabled=False) is None
    for thinking_disabled in (False, True):
        tags = think_tag_filter("tags", thinking_disabled=thinking_disabled)
        assert tags is not None
        assert tags.feed("a") == ["a"]
    opening, closed = (
        think_tag_filter("open", thinking_disabled=False),
        think_tag_filter("open", thinking_disabled=True),
    )
    assert opening is not None
    assert closed is not None
    assert opening.feed("a") == [Thinking("a")]
    assert closed.feed("a") == ["a"], "with thinking disabled the template opens no block"


# in a chat stream, in front of the tool call queue


def content(*chunks: Any, opened: bool = False) -> list[Delta]:
    reader = ChunkReader((), lambda: "toolu_1", tags=ThinkTagFilter(opened=opened))
    out = [delta for said in chunks for delta in reader.feed([payload(said)])]
    out += reader.feed([payload(STOP), DONE]) + reader.end()
    assert isinstance(out[-1], Finish)
    content: list[Delta] = joined(out)[:-1]
    return content


CALL = {"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}}
LOOKED = [ToolStart("a", "look"), ToolJson("{}")]


def test_tags_in_content_become_thinking() -> None:
    assert content(*(chunk({"content": piece}) for piece in ("<th", "ink>Hm", ".</", "think>", "\n", "Yes"))) == [
        Thinking("Hm."),
        "Yes",
    ]


def test_an_incomplete_tag_at_the_end_is_text() -> None:
    assert content(chunk({"content": "<thi"})) == ["<thi"]
    assert content(chunk({"content": "<think>a</th"})) == [Thinking("a</th")]


def test_a_call_after_the_block_comes_after_the_thinking() -> None:
    assert content(chunk({"content": "<think>Hm</think>\n"}), chunk({"tool_calls": [CALL]})) == [
        Thinking("Hm"),
        *LOOKED,
    ]
    assert content(chunk({"content": "<think>Hm</thin", "tool_calls": [CALL]})) == [Thinking("Hm</thin"), *LOOKED]
    assert content(chunk({"content": "<thin"}), chunk({"function_call": CALL["function"]}))[0] == "<thin"


def test_tags_after_a_call_are_text() -> None:
    late = chunk({"content": "<think>a</think>"})
    assert content(chunk({"tool_calls": [CALL]}), late) == [*LOOKED, "<think>a</think>"]


def test_a_block_that_continues_after_a_call_is_thinking() -> None:
    said = content(chunk({"content": "<think>a"}), chunk({"tool_calls": [CALL]}), chunk({"content": "b</think>c"}))
    assert said == [Thinking("a"), *LOOKED, Thinking("b"), "c"]


@pytest.mark.parametrize("opened", [False, True])
def test_tags_are_text_if_the_engine_has_a_reasoning_field(opened: bool) -> None:
    said = content(chunk({"reasoning": "Hm"}), chunk({"content": "<think>a</think>"}), opened=opened)
    assert said == [Thinking("Hm"), "<think>a</think>"]


def test_a_refusal_is_text() -> None:
    assert content(chunk({"content": "<think>a"}), chunk({"refusal": "No."})) == [Thinking("a"), "No."]
    assert content(chunk({"content": "<think>a</th"}), chunk({"refusal": "No."})) == [Thinking("a</th"), "No."]
