"""Quotes of a model: how they are read, where they are found, and that no citation is made up."""

import random
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire import cited_documents
from anthro_asgi.wire.citation_prompt import CITATION_PROMPT
from anthro_asgi.wire.citations import cite_documents
from anthro_asgi.wire.cited_documents import CitedDocument, CitedDocuments
from anthro_asgi.wire.deltas import BlockStop, Citation, Delta, Finish, Thinking, Usage
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.large.cuts import Cuts
from anthro_asgi.wire.quote_reader import Quote, QuoteReader, cited_deltas
from anthro_asgi.wire.request import MessagesRequest, parse_request, parse_request_in_steps

pytestmark = pytest.mark.clause("3.55")

Json = dict[str, Any]
# Few letters, much white space of many kinds: quotes then often stand in the text, and often with other white space.
PROSE = st.text("ab .\n\t\u00a0\u2003é😀", max_size=60)


def char_document(text: str, index: int = 0) -> CitedDocument:
    return run_to_end(CitedDocument.of(index, None, "char_location", [text]))


# where quotes are found


@given(PROSE, st.data())
def test_every_passage_of_a_text_is_found_with_other_white_space_too(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    passage = text[start : data.draw(st.integers(start, len(text)))]
    quote = "  ".join(passage.split()) if data.draw(st.booleans()) else passage
    place = char_document(text).locate(quote)
    if len(quote.strip()) >= 3:
        assert place is not None
        assert text[slice(*place)].split() == quote.split()


@given(PROSE, PROSE)
def test_what_is_found_has_the_same_words_and_what_is_not_found_does_not_stand_there(text: str, quote: str) -> None:
    place = char_document(text).locate(quote)
    words = " ".join(quote.split())
    if place is None:
        assert len(quote.strip()) < 3 or words not in " ".join(text.split())
    else:
        assert " ".join(text[slice(*place)].split()) == words


@given(PROSE, PROSE)
def test_a_citation_of_characters_holds_what_stands_at_its_place(text: str, quote: str) -> None:
    citation = CitedDocuments([char_document(text, 4)]).find(5, quote)
    if citation is not None:
        assert citation["cited_text"] == text[citation["start_char_index"] : citation["end_char_index"]] != ""
        assert (citation["type"], citation["document_index"]) == ("char_location", 4)


@given(st.lists(PROSE, min_size=1, max_size=4), st.data())
def test_a_citation_of_pages_and_blocks_names_those_that_hold_the_words(parts: list[str], data: st.DataObject) -> None:
    joined = "\n".join(parts)
    start = data.draw(st.integers(0, len(joined)))
    quote = joined[start : data.draw(st.integers(start, len(joined)))]
    pages = CitedDocuments([run_to_end(CitedDocument.of(0, "T", "page_location", parts))]).find(1, quote)
    blocks = CitedDocuments([run_to_end(CitedDocument.of(0, "T", "content_block_location", parts))]).find(1, quote)
    assert (pages is None) == (blocks is None) == (len(quote.strip()) < 3)
    if pages is None or blocks is None:
        return
    first, end = pages["start_page_number"] - 1, pages["end_page_number"] - 1
    assert 0 <= first < end <= len(parts)
    assert pages["cited_text"] in "\n".join(parts[first:end])
    assert pages["cited_text"].split() == quote.split()
    assert (blocks["start_block_index"], blocks["end_block_index"]) == (first, end)
    assert blocks["cited_text"] == "".join(parts[first:end])
    assert pages["document_title"] == blocks["document_title"] == "T"


@pytest.mark.parametrize("quote", ["the Grass is green", "grass was green", "", "  ", "is", "sky is blue. The grass"])
def test_words_that_do_not_stand_in_a_document_are_no_citation(quote: str) -> None:
    assert CitedDocuments([char_document("The grass is green. The sky is blue.")]).find(1, quote) is None


def test_the_document_that_the_model_names_comes_first_and_then_all_others() -> None:
    documents = CitedDocuments([char_document("one two three", 0), char_document("two  three four", 2)])
    found = {
        (number, quote): (documents.find(number, quote) or {}).get("document_index")
        for number in (1, 3, 9)
        for quote in ("two three", "three four", "four five")
    }
    assert found == {
        (1, "two three"): 0,
        (3, "two three"): 2,
        (9, "two three"): 0,
        **{(number, "three four"): 2 for number in (1, 3, 9)},
        **{(number, "four five"): None for number in (1, 3, 9)},
    }


def test_after_many_searched_characters_quotes_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cited_documents, "_MOST_SEARCHED", 25)
    documents = CitedDocuments([char_document("ten letters")])
    assert [documents.find(1, "letters") is not None for _ in range(5)] == [True, True, True, False, False]


# how quotes are read


def read(text: str, cuts: list[int]) -> list[tuple[int | None, str]]:
    """The texts and quotes in `text`, which arrives in pieces; neighbouring texts are joined."""
    reader = QuoteReader()
    found: list[tuple[int | None, str]] = []
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    for one in [*(one for piece in pieces if piece for one in reader.feed(piece)), *reader.end()]:
        if isinstance(one, Quote):
            found.append((one.number, one.text))
        else:
            assert isinstance(one, str)
            if found and found[-1][0] is None:
                found[-1] = (None, found[-1][1] + one)
            else:
                found.append((None, one))
    return found


READ: list[tuple[str, list[tuple[int | None, str]]]] = [
    ("plain <b>text</b> 1 < 2", [(None, "plain <b>text</b> 1 < 2")]),
    ('He: <quote doc="1">It rains.</quote> So.', [(None, "He: "), (1, "It rains."), (None, " So.")]),
    ('<quote doc="12">a</quote><quote doc="3">b</quote>', [(12, "a"), (3, "b")]),
    ("<quote doc=1>a</quote><quote doc='2'>b</quote>", [(1, "a"), (2, "b")]),
    ('<quote doc="1"></quote>x', [(None, "x")]),
    ('a <quote doc="1">b <quote doc="2">c</quote> d', [(None, "a b "), (2, "c"), (None, " d")]),
    ('a <quote doc="1">b is not closed', [(None, "a b is not closed")]),
    ("a </quote> b", [(None, "a  b")]),
    ('<<quote doc="1">a<b</quote>', [(None, "<"), (1, "a<b")]),
    ('<quote doc="x">a', [(None, '<quote doc="x">a')]),
    ('<quote doc="1" page="2">a', [(None, '<quote doc="1" page="2">a')]),
    ('<quote doc="1234567890">a', [(None, '<quote doc="1234567890">a')]),
    ("<quote doc", [(None, "<quote doc")]),
    (f'<quote doc="1">{"x" * 8192}</quote>', [(1, "x" * 8192)]),
    (f'<quote doc="1">{"x" * 8193}</quote>y', [(None, "x" * 8193 + "y")]),
]


@pytest.mark.parametrize(("text", "expected"), READ, ids=lambda value: str(value)[:30])
def test_quotes_are_read_whole_letter_by_letter_and_at_random_cuts(
    text: str, expected: list[tuple[int | None, str]]
) -> None:
    assert read(text, []) == expected
    assert read(text, list(range(1, len(text)))) == expected
    source = random.Random(text)
    for _ in range(20):
        assert read(text, sorted(source.choices(range(len(text)), k=4))) == expected


@given(
    st.text('<quote doc="1>/ ab', max_size=30)
    | st.lists(st.sampled_from(['<quote doc="1">', "</quote>", "<quote", " doc=", "a", "<", '"2">']), max_size=10).map(
        "".join
    ),
    st.data(),
)
def test_nothing_but_marks_is_taken_out_of_a_text_however_it_is_cut(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    found = read(text, cuts)
    assert found == read(text, [])
    left = "".join(part for _, part in found)
    assert len(left) <= len(text)
    rest = iter(text)
    assert all(char in rest for char in left)  # it is a subsequence


def test_text_that_is_no_mark_is_passed_on_at_once_and_other_deltas_end_a_quote() -> None:
    reader = QuoteReader()
    assert reader.feed("He says ") == ["He says "]
    assert reader.feed(["a ", "<qu"]) == ["a "]
    usage = Usage(output_tokens=1)
    assert reader.feed(["ick", usage]) == ["<quick", usage]
    assert reader.feed('<quote doc="1">It') == []
    assert reader.feed([usage, ""]) == [usage, ""]
    thinking, finish = Thinking("t"), Finish("max_tokens")
    assert reader.feed(thinking) == ["It", thinking]
    assert reader.feed(['<quote doc="1">rain', finish]) == ["rain", finish]


def test_a_quote_with_a_citation_is_a_block_of_its_own() -> None:
    assert cited_deltas("It rains.", None) == ["It rains."]
    assert cited_deltas("It rains.", {"a": 1}) == [BlockStop(), "It rains.", Citation({"a": 1}), BlockStop()]


# the instructions for the model


def parse(*messages: Json, in_steps: bool = False, system: str | None = "Be brief.") -> MessagesRequest:
    body = orjson.dumps({"model": "m", "max_tokens": 9, "messages": messages, "system": system})
    if in_steps:
        return run_to_end(parse_request_in_steps([body], cuts=Cuts()))
    return parse_request(body)


def document(source: Json, *, enabled: bool = True, **fields: Any) -> Json:
    return {"type": "document", "source": source, "citations": {"enabled": enabled}, **fields}


def text_source(text: str) -> Json:
    return {"type": "text", "media_type": "text/plain", "data": text}


def content_source(*blocks: Any) -> Json:
    return {"type": "content", "content": [{"type": "text", "text": text} for text in blocks]}


PAGES = content_source("[Page 1 of 3]\nfirst page", "[Page 2 of 3]", "[Page 3 of 3]\nlast page")
BLOCKS = content_source("one block", "second block")
ASKED: Json = {
    "role": "user",
    "content": [
        document(text_source("not to be cited"), enabled=False),
        document(text_source("plain text"), title="T", context="From a box"),
        document(PAGES),
        document(BLOCKS),
        document({"type": "content", "content": "a single text"}),
    ],
}


@pytest.mark.parametrize("in_steps", [False, True])
def test_the_documents_are_numbered_and_the_model_is_told_to_quote(in_steps: bool) -> None:
    request = parse(ASKED, in_steps=in_steps)
    assert request.cites
    assert request.ignored == []
    run_to_end(cite_documents(request))
    assert request.system == ["Be brief.", CITATION_PROMPT]
    contexts = [block.get("context") for block in request.messages[0]["content"]]
    assert contexts[:2] == [None, "This is document 2. It can be cited.\nFrom a box"]
    assert contexts[2:] == [f"This is document {number}. It can be cited." for number in (3, 4, 5)]
    assert request.raw["messages"][0]["content"][1]["context"] == "From a box"
    assert request.cited is not None
    assert len(request.cited) == 4
    assert request.cited.find(1, "not to be cited") is None
    assert request.cited.find(2, "plain text") == {
        "type": "char_location",
        "cited_text": "plain text",
        "document_index": 1,
        "document_title": "T",
        "file_id": None,
        "start_char_index": 0,
        "end_char_index": 10,
    }
    pages = request.cited.find(3, "first page")
    assert pages is not None
    assert (pages["type"], pages["start_page_number"], pages["end_page_number"]) == ("page_location", 1, 2)
    pages = request.cited.find(3, "page last page")
    assert pages is not None
    assert (pages["cited_text"], pages["start_page_number"], pages["end_page_number"]) == ("page\n\nlast page", 1, 4)
    blocks = request.cited.find(4, "block second")
    assert blocks is not None
    assert (blocks["type"], blocks["cited_text"]) == ("content_block_location", "one blocksecond block")
    assert (blocks["start_block_index"], blocks["end_block_index"]) == (0, 2)
    assert request.cited.find(3, "[Page 1 of 3]") is None
    single = request.cited.find(5, "single")
    assert single is not None
    assert (single["cited_text"], single["end_block_index"]) == ("a single text", 1)


def test_texts_that_only_look_like_pages_in_part_are_blocks() -> None:
    wrong = [["[Page 1 of 2]\na"], ["[Page 2 of 2]\na", "[Page 1 of 2]\nb"], ["[Page 1 of 2]\nabc", "bcd"], []]
    for texts in wrong:
        request = parse({"role": "user", "content": [document(content_source(*texts)), document(text_source("x"))]})
        run_to_end(cite_documents(request))
        assert request.cited is not None
        found = [request.cited.find(1, text) for text in texts if len(text) > 2]
        assert {one["type"] for one in found if one is not None} <= {"content_block_location"}
        assert None not in found


def test_documents_in_results_count_and_quotes_of_earlier_answers_have_their_marks_again() -> None:
    citation = {"type": "char_location", "document_index": 0, "cited_text": "plain"}
    history: list[Json] = [
        {"role": "user", "content": [document(text_source("plain text"))]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "It says "},
                {"type": "text", "text": "plain", "citations": [citation]},
                {"type": "text", "text": ".", "citations": [{"document_index": "x"}, 1]},
                {"type": "tool_use", "id": "t", "name": "n", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [document(text_source("inner text"))]},
                document(text_source("last text")),
            ],
        },
    ]
    request = parse(*history, system=None)
    run_to_end(cite_documents(request))
    assert request.system == [CITATION_PROMPT]
    texts = [block["text"] for block in request.messages[1]["content"] if block["type"] == "text"]
    assert "".join(texts) == 'It says <quote doc="1">plain</quote>.'
    inner = request.messages[2]["content"][0]["content"][0]
    assert inner["context"] == "This is document 2. It can be cited."
    assert request.cited is not None
    assert [(request.cited.find(1, text) or {})["document_index"] for text in ("plain", "inner", "last")] == [0, 1, 2]
    assert parse(*history).messages == history


def test_a_request_without_citations_is_not_changed() -> None:
    request = parse({"role": "user", "content": [document(text_source("a"), enabled=False)]})
    assert not request.cites
    assert request.cited is None


def test_the_words_that_the_model_is_told_are_read_as_marks() -> None:
    quotes: list[Delta | Quote] = QuoteReader().feed(CITATION_PROMPT.replace('"N"', '"7"'))
    assert [one.number for one in quotes if isinstance(one, Quote)] == [7]
