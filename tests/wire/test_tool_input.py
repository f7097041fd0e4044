"""The input of a tool call that broke off at any place."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.tool_input import parse_tool_input
from tests.wire.strategies import VALUES, Json, examples, objects

DOCUMENTS = [
    "{}",
    '{"city":"Paris"}',
    '{"city": "Zürich 😀", "days": 3, "exact": true, "near": null, "far": -1.5e-3}',
    '{"a": [1, [2, {"b": []}], {"c": {}}], "d": {"e": {"f": [{}]}}, "g": false}',
    r'{"path": "C:\\dir\\", "quote": "\"{[,]}\"", "tab": "\t", "é": "\u00e9\ud83d\ude00", "end": "\\"}',
    '  {\n  "a" : "b, c" ,\n  "d" : [ "e]" , "f}" ]\n}\n',
]
PREFIXES = [(document, cut) for document in DOCUMENTS for cut in range(len(document) + 1)]


def members_kept(whole: Any, told: Any) -> bool:
    """Whether `told` is the beginning of `whole`: all of it is equal, except the last value, which may be cut."""
    if isinstance(whole, dict) and isinstance(told, dict):
        pairs = list(zip(whole.items(), told.items(), strict=False))
        keys = [name for name, _ in whole.items()][: len(told)]
        return keys == list(told) and _all_but_last_equal([(one[1], other[1]) for one, other in pairs])
    if isinstance(whole, list) and isinstance(told, list):
        return len(told) <= len(whole) and _all_but_last_equal(list(zip(whole, told, strict=False)))
    if isinstance(whole, str) and isinstance(told, str):
        return whole.startswith(told.removesuffix("\ufffd"))
    if isinstance(whole, (int, float)) and isinstance(told, (int, float)) and not isinstance(whole, bool):
        return True  # a number that was cut is another number
    return bool(whole == told)


def _all_but_last_equal(pairs: list[tuple[Any, Any]]) -> bool:
    return all(one == other for one, other in pairs[:-1]) and all(members_kept(one, other) for one, other in pairs[-1:])


def whole_members(text: str, document: Json) -> int:
    """How many members of the object are complete in `text`, its beginning: a comma follows each."""
    for count in range(len(document), 0, -1):
        beginning = orjson.dumps(dict(list(document.items())[:count])).decode()[:-1] + ","
        if text.startswith(beginning):
            return count
    return 0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_complete_object_is_returned_unchanged(document: str) -> None:
    assert parse_tool_input(document) == orjson.loads(document)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_any_prefix_of_a_document_gives_a_part_of_its_value(document: str) -> None:
    whole = orjson.loads(document)
    for cut in range(len(document)):
        told = parse_tool_input(document[:cut])
        assert told is not None, document[:cut]
        assert members_kept(whole, told), (document[:cut], told)


@pytest.mark.slow
@examples(100)
@given(objects(VALUES), st.data())
def test_any_object_cut_anywhere_keeps_its_complete_members(document: Json, data: st.DataObject) -> None:
    whole = orjson.dumps(document).decode()
    text = whole[: data.draw(st.integers(0, len(whole)))]
    told = parse_tool_input(text)
    assert told is not None
    assert members_kept(orjson.loads(whole), told)
    assert len(told) >= whole_members(text, document)


@examples(120)
@given(st.text(st.sampled_from('{}[],:"\\u0dn1-e.tru l\n\ud83d😀'), max_size=20))
def test_any_text_gives_an_object_that_can_be_written_or_none(text: str) -> None:
    told = parse_tool_input(text)
    assert told is None or isinstance(told, dict)
    orjson.dumps(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", {}),
        (" \n", {}),
        ("{", {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a": tru', {}),
        ('{"a": -', {}),
        ('{"a": 1, "b": tru', {"a": 1}),
        ('{"a": 1, "b": 2', {"a": 1, "b": 2}),
        ('{"a": {"b": 1}, "c', {"a": {"b": 1}}),
        ('{"a": {"b": 1, "c": nul', {"a": {"b": 1}}),
        ('{"a": [1, {"b": 2}, "c', {"a": [1, {"b": 2}, "c"]}),
        ('{"a": "one, two', {"a": "one, two"}),
        ('{"a": 1}}', {"a": 1}),
        ('{"a": 1} and more', {"a": 1}),
        ('{"a": 1}\n{"a": 2}', {"a": 1}),
    ],
)
def test_broken_off_input_is_closed_after_its_last_complete_value(text: str, told: Json) -> None:
    assert parse_tool_input(text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": "x\\', "x"),
        ('{"a": "x\\\\', "x\\"),
        ('{"a": "x\\\\\\', "x\\"),
        ('{"a": "x\\"', 'x"'),
        ('{"a": "x\\u', "x"),
        ('{"a": "x\\u0', "x"),
        ('{"a": "x\\u00e', "x"),
        ('{"a": "x\\u00e9', "xé"),
        ('{"a": "x\\ud83d', "x\ufffd"),
        ('{"a": "x\\ud83d\\', "x\ufffd"),
        ('{"a": "x\\ud83d\\ude0', "x\ufffd"),
        ('{"a": "x\\ud83d\\ude00', "x😀"),
        ('{"a": "x\ud83d', "x\ufffd"),
    ],
    ids=ascii,
)
def test_a_string_cut_in_an_escape_keeps_what_came_before(text: str, told: str) -> None:
    assert parse_tool_input(text) == {"a": told}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('"plain"', {"value": "plain"}),
        ("[1, 2", {"value": [1, 2]}),
        ("3", {"value": 3}),
        ("null", {"value": None}),
        ('"[1]"', {"value": "[1]"}),
    ],
)
def test_a_value_that_is_not_an_object_is_decoded_again_or_wrapped(text: str, told: Json) -> None:
    assert parse_tool_input(text) == told


@pytest.mark.parametrize("text", ["tru", "<tool>", "{'a': f(1)}", "{'a': 1", "]", "}{"], ids=repr)
def test_unreadable_input_gives_none(text: str) -> None:
    assert parse_tool_input(text) is None


@pytest.mark.parametrize(
    "text", ["[" * 300, '{"a":' * 300 + "1" + "}" * 300, '{"a":' + "[" * 5000, '"' + "[" * 300 + "]" * 300 + '"']
)
def test_endless_nesting_gives_nothing_that_cannot_be_written(text: str) -> None:
    told = parse_tool_input(text)
    assert told is None or orjson.loads(orjson.dumps(told)) == told


@pytest.mark.slow
def test_the_work_grows_with_the_text_and_not_with_its_depth() -> None:
    """The closing brackets are computed a fixed number of times, not once for each comma or bracket."""
    assert parse_tool_input('{"a":' * 50_000 + "[1,2," * 50_000) is None
