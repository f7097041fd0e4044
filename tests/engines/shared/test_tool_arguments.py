"""The arguments of a tool call: always one JSON object, repaired if there is one reading, however they are cut."""

import json
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.shared.tool_arguments import JsonObject, ToolArguments
from anthro_asgi.engines.shared.tool_calls import ToolCallQueue
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.deltas import ToolJson, ToolStart
from anthro_asgi.wire.errors import AnswerTooLarge, BadUpstream
from anthro_asgi.wire.json_codec import loads
from anthro_asgi.wire.tool_input import parse_tool_input

REPAIRED: list[tuple[str, Any]] = [
    (r'{"p":"C:\Users\me"}', {"p": r"C:\Users\me"}),
    (r'{"p":"C:\users"}', {"p": r"C:\users"}),
    (r'{"p":"it\'s"}', {"p": "it's"}),
    ('{"p":"a\nb\tc"}', {"p": "a\nb\tc"}),
    ('{"p":"\x01"}', {"p": "\x01"}),
    ('{"a":1,}', {"a": 1}),
    ('{"a":[1,2, ] , }', {"a": [1, 2]}),
    ('{"a":True,"b":False,"c":None}', {"a": True, "b": False, "c": None}),
    ('{"a":NaN,"b":[Infinity,-Infinity]}', {"a": None, "b": [None, None]}),
    ('{"a":1', {"a": 1}),
    ('{"a":{"b":[1', {"a": {"b": [1]}}),
    ('{"a":"x', {"a": "x"}),
    ('{"a":1}}', {"a": 1}),
    ('{"a":1}{}', {"a": 1}),
    ('{"a":1} and more', {"a": 1}),
    ('\ufeff{"a":1}', {"a": 1}),
    ('```json\n{"a":1}\n```', {"a": 1}),
    ('```\n{"a":True,}\n```', {"a": True}),
    ("{'a': 1, 'b': [True, None], 'c': \"it's\"}", {"a": 1, "b": [True, None], "c": "it's"}),
    (r"{'a': 'two\nlines \'q\' \\'}", {"a": "two\nlines 'q' \\"}),
]
ENCODED: list[tuple[str, Any]] = [
    (r'"{\"a\":1}"', {"a": 1}),
    ("null", {"value": None}),
    ("[1]", {"value": [1]}),
    ('"text"', {"value": "text"}),
    ("7", {"value": 7}),
    ("", {}),
    (" \n", {}),
    ("{}", {}),
    ("{ }", {}),
    ("{", {}),
    ('{} {"a":1}', {"a": 1}),
    ('{}{}{"a":1}', {"a": 1}),
]
UNREADABLE = ["<tool>", "{'a': {1, 2}}", "{'a': f(1)}", r"{'a': 'C:\Users'}", "{'a': 1", "tru"]


def received(*pieces: str, cut: bool = False) -> str | None:
    """The text that the client receives; None for a call that is left out."""
    arguments = ToolArguments()
    text = "".join([arguments.feed(piece) for piece in pieces])
    rest = arguments.close(cut=cut)
    return None if rest is None else text + rest


def fragmentations(text: str) -> list[list[str]]:
    """The whole, every single cut, and character by character."""
    cuts = [[text[:cut], text[cut:]] for cut in range(1, len(text))]
    return [[text], *cuts, list(text)]


@pytest.mark.clause("5.10")
@pytest.mark.clause("5.18")
@pytest.mark.parametrize(("text", "value"), REPAIRED + ENCODED, ids=repr)
def test_arguments_become_the_object_that_they_mean_however_they_are_cut(text: str, value: Any) -> None:
    for pieces in fragmentations(text):
        found = received(*pieces)
        assert found is not None
        assert json.loads(found or "{}") == value, pieces


@pytest.mark.parametrize(("text", "value"), REPAIRED, ids=repr)
def test_a_repair_is_noted(text: str, value: Any) -> None:
    arguments = ToolArguments()
    arguments.feed(text)
    arguments.close()
    assert arguments.repaired


@pytest.mark.parametrize("text", UNREADABLE)
def test_arguments_that_cannot_be_read_leave_the_call_out(text: str) -> None:
    for pieces in fragmentations(text):
        assert received(*pieces) is None


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": "x y", "c": [1.5e3, true, {"d": null}]}', '{"é\\n": "\\ud83d\\ude42"}']
)
def test_a_valid_object_is_passed_on_unchanged(text: str) -> None:
    for pieces in fragmentations(text):
        assert received(*pieces) == text


@pytest.mark.parametrize("code", ["'{} {}'.format(a, b)", "try {} {", "{}\n{", "null {"])
def test_text_in_a_string_that_looks_like_a_placeholder_stays(code: str) -> None:
    """`{}` before `{` was removed from the middle of an object that came in one piece."""
    text = json.dumps({"code": code})
    for pieces in fragmentations(text):
        assert received(*pieces) == text
    assert received("{}", text) == text


@pytest.mark.parametrize("text", ['{"a": 1, "b": "x', '{"a": 1, ', '{"a": tr', '{"a": "x\\u00', "{", '{"a'])
def test_arguments_that_the_token_limit_cut_stay_as_they_are(text: str) -> None:
    for pieces in fragmentations(text):
        assert received(*pieces, cut=True) == text


def test_nothing_is_released_before_the_arguments_begin_like_an_object() -> None:
    arguments = ToolArguments()
    assert [arguments.feed(piece) for piece in (" ", "{", " ", '"a', '":', "1", "}")] == [
        "",
        "",
        "",
        '{ "a',
        '":',
        "1",
        "}",
    ]


@pytest.mark.clause("5.10")
@pytest.mark.parametrize(
    "pieces",
    [
        ["{}", '{"city":"Paris"}'],
        ["{}", "{", '"city"', ':"Paris"}'],
        ["{}", '{"city":"P"}', '{"city":"Paris"}'],
        ["{}", '{"ci', '{"city":"Par', '{"city":"Paris"}'],
        ['{"city":"P"}', '{"city":"Paris"}'],
        ['{"city":"Paris"}', "{}"],
        ["{}", "{}", '{"city":"Paris"}'],
        ["null", '{"city":"Paris"}'],
        ["null", "{}", "{", '"city":"Paris"}'],
    ],
)
def test_a_placeholder_or_a_growing_snapshot_gives_the_last_object(pieces: list[str]) -> None:
    found = received(*pieces)
    assert found is not None
    assert json.loads(found) == {"city": "Paris"}


def test_a_long_number_or_white_space_without_end_is_not_kept() -> None:
    arguments = ToolArguments()
    assert "".join(arguments.feed("9" * 100) for _ in range(3)) == ""
    stream = ToolArguments()
    stream.feed('{"a":')
    text = "".join(stream.feed("x" * 100) for _ in range(100))
    assert (text, stream.close()) == ("", "null}")


HOSTILE = st.lists(
    st.sampled_from(
        [
            *'{}[],:"\\ \n0-',
            '{"',
            '":',
            '"a"',
            "1.5",
            "true",
            "True",
            "NaN",
            "\\u00",
            "\\U",
            "é",
            "🙂",
            "null",
            "{}",
            "```json\n",
        ]
    ),
    max_size=14,
).map("".join)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text('ab"\\{}[],: \n\té🙂', max_size=6)
    | st.sampled_from([1.5, -2e30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"},', max_size=2), inner, max_size=3),
    max_leaves=8,
)


def cut_up(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(edges)]


@pytest.mark.clause("5.18")
@settings(derandomize=True, deadline=None, max_examples=150)
@given(head=st.sampled_from(["", "{", '{"a":', '{"a":"']), tail=HOSTILE, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_any_text_in_any_pieces_is_one_json_object_or_no_call(head: str, tail: str, cuts: list[int]) -> None:
    found = received(*cut_up(head + tail, cuts))
    if found is not None:
        value = loads(found.encode() or b"{}")
        assert isinstance(value, dict)
        assert parse_tool_input(found) == value


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    value=st.dictionaries(st.text('a"},', max_size=3), JSON_VALUES, max_size=4),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_any_object_in_any_pieces_is_passed_on_unchanged(value: Any, cuts: list[int]) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
        assert received(*cut_up(text, cuts)) == text


# in the queue


def released(*calls: tuple[int | None, str | None, str | None, str]) -> list[Any]:
    numbers = count(1)
    queue = ToolCallQueue(lambda: f"toolu_{next(numbers)}")
    out = []
    for call in calls:
        queue.add_call(*call)
        out += queue.release()
    return out + queue.release(at_end=True)


LOOK = [ToolStart("a", "look"), ToolJson('{"q":1}')]


@pytest.mark.clause("5.10")
@pytest.mark.parametrize("again", ['{"q":1}', '{ "q" : 1 }'])
def test_a_call_that_a_summary_repeats_is_released_once(again: str) -> None:
    pieces = [(0, "a", "look", "{"), (0, None, None, '"q":1'), (0, None, None, "}")]
    assert released((0, "a", "look", '{"q":1}'), (0, "a", "look", again)) == LOOK
    joined = released(*pieces, (0, "a", "look", again))
    assert "".join(delta.fragment for delta in joined[1:]) == '{"q":1}'
    assert released((0, "a", "look", '{"q":1}'), (1, "b", "leap", "{}"), (0, "a", "look", again)) == [
        *LOOK,
        ToolStart("b", "leap"),
        ToolJson("{}"),
    ]


def test_equal_calls_without_an_id_are_two_calls() -> None:
    assert len(released((0, None, "look", "{}"), (0, None, "look", "{}"))) == 4


@pytest.mark.clause("5.10")
def test_the_real_arguments_after_a_placeholder_belong_to_the_same_call() -> None:
    for later in ((0, None, None), (0, "a", "look"), (0, None, "look")):
        assert released((0, "a", "look", "{}"), (*later, '{"q":1}')) == LOOK


@pytest.mark.parametrize("ghost", [(0, "", "", ""), (None, None, None, ""), (1, "x", "", ""), (1, "x", None, "")])
def test_a_call_without_name_and_arguments_is_not_a_call(ghost: Any) -> None:
    index = 2 if ghost[0] == 1 else 1
    assert released(ghost, (index, "a", "look", '{"q":1}')) == LOOK
    assert released((index, "a", "look", '{"q":1}'), ghost) == LOOK


GHOSTS = [
    (0, "", "", ""),
    (0, None, None, ""),
    (0, "x", "", ""),
    (0, "x", None, ""),
    (0, "", "", "{}"),
    (0, "x", "", "{}"),
    (0, "", "", "null"),
]


@pytest.mark.clause("6.13")
@pytest.mark.parametrize("ghost", GHOSTS)
def test_a_ghost_with_the_index_of_a_call_changes_nothing(ghost: Any) -> None:
    """The call and its id stay what they are, whether the ghost comes before it or after it."""
    whole = [(0, "a", "look", '{"q":1}')]
    pieces = [(0, "a", "look", ""), (0, None, None, '{"q"'), (0, None, None, ":1}")]
    for call in (whole, pieces):
        for calls in ([ghost, *call], [*call, ghost], [ghost, *call, ghost]):
            found = released(*calls)
            assert (found[0], "".join(delta.fragment for delta in found[1:])) == (ToolStart("a", "look"), '{"q":1}')


@pytest.mark.clause("6.13")
@pytest.mark.parametrize("ghost", GHOSTS[:4])
def test_a_ghost_between_the_pieces_of_a_call_changes_nothing(ghost: Any) -> None:
    pieces: list[Any] = [(0, "a", "look", ""), (0, None, None, '{"q"'), (0, None, None, ":1}")]
    for position in (1, 2):
        found = released(*pieces[:position], ghost, *pieces[position:])
        assert (found[0], "".join(delta.fragment for delta in found[1:])) == (ToolStart("a", "look"), '{"q":1}')


def test_an_id_that_comes_before_its_name_begins_the_next_call_with_the_same_index() -> None:
    pieces = [(0, "a", "look", '{"q":1}'), (0, "b", None, ""), (0, None, "leap", ""), (0, None, None, '{"h":2}')]
    assert released(*pieces) == [*LOOK, ToolStart("b", "leap"), ToolJson('{"h":2}')]


def test_a_call_without_a_name_is_an_error_if_it_is_the_only_one() -> None:
    """The name may have been lost of a call that needs no input."""
    with pytest.raises(BadUpstream, match="without its name"):
        released((0, "x", "", "{}"))
    assert released((0, "x", "", "")) == []


def test_arguments_of_a_call_without_a_name_are_an_error() -> None:
    with pytest.raises(BadUpstream, match="without its name"):
        released((0, "a", "look", '{"q":1}'), (0, "b", None, ""), (0, None, None, '{"h":2}'))


def test_ids_of_ghosts_are_bounded() -> None:
    queue = ToolCallQueue(lambda: "toolu_1", limits=AnswerLimits(max_answer=20_000))
    queue.add_call(0, "a", "look", '{"q"')
    for number in range(200):
        queue.add_call(0, f"x{number}", "", "")
    with pytest.raises(AnswerTooLarge):
        queue.add_call(0, "x" * 20_000, "", "")


def test_arguments_after_the_end_of_a_call_are_ignored() -> None:
    assert released((0, "a", "look", '{"q":1}'), (1, "b", "leap", "{}"), (0, None, None, "{}")) == [
        *LOOK,
        ToolStart("b", "leap"),
        ToolJson("{}"),
    ]


def long_text(*, spaces: bool, broken: str) -> str:
    """An object of more than a few stretches, with every kind of value; `broken` is put into it in some places."""
    members = [
        '"s":"a,b]}\\"\\\\"',
        '"n":-1.5e3',
        '"k":[[1,{}],[],{"a":{"b":null}},true]',
        '"e":"\N{EURO SIGN}\\ud83d\\ude00"',
        f'"broken":{broken}',
    ]
    glue, colon = (" ,\n ", " : ") if spaces else (",", ":")
    parts = [members[number % (5 if number % 170 == 169 else 4)] for number in range(1200)]
    return "{" + glue.join(part.replace('":', f'"{colon}', 1) for part in parts) + "}"


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize("broken", ["0", '"\x01"', "True", "[1,]", r'"\x"', '"\ud83d"', "]"])
def test_a_long_text_is_copied_like_the_same_text_token_by_token(spaces: bool, broken: str) -> None:
    text = long_text(spaces=spaces, broken=broken)
    slow, fast = JsonObject(), JsonObject()
    copied = "".join([slow.feed(character) for character in text])
    begin = text[:3]
    assert fast.feed(begin) + fast.feed(text[3:]) == copied
    assert (fast.done, fast.broken, fast.repaired) == (slow.done, slow.broken, slow.repaired)
    assert fast.digest() == slow.digest()
    assert fast.end() == slow.end()


def test_a_long_text_is_nested_as_deeply_as_allowed() -> None:
    for depth in (99, 100, 101):
        nest = "[" * (depth - 1) + "]" * (depth - 1)
        text = '{"a":' + ",".join(['["x",' + nest[1:]] * 40).join("[]")[:-1] + "]}"
        slow, fast = JsonObject(), JsonObject()
        assert fast.feed(text) == "".join([slow.feed(character) for character in text])
        assert fast.broken is slow.broken is (depth > 99)


@pytest.mark.parametrize("space", ["", " ", "\n  "])
def test_a_call_that_is_repeated_is_recognised_wherever_it_was_cut(space: str) -> None:
    members = [f'"k{number}":{space}[{number},{space}{{"a":{space}"{"x" * 300}"}}{space}]' for number in range(3)]
    text = "{" + f"{space},{space}".join(members) + "}"
    for first in range(2, len(text)):
        for second in (len(text) - 300, len(text)):
            parts = (text[:first], text[first:second], text[max(first, second) :])
            arguments = ToolArguments()
            for part in parts:
                arguments.feed(part)
            assert arguments.equals(text), parts


@pytest.mark.parametrize("space", ["", " "])
def test_a_large_call_that_is_repeated_is_recognised(space: str) -> None:
    text = '{"a":[' + f'"b",{space}{{"c":1}},{space}' * 10_000 + "1]}"
    arguments = ToolArguments()
    assert arguments.feed(text[:9]) + arguments.feed(text[9:]) == text
    assert arguments.equals(text)
    assert not arguments.equals(text.replace("b", "d"))
    assert not arguments.equals(text[:-1])
