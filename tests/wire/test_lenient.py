"""JSON as it is really sent: half a character never costs a conversation, everything else is as strict as ever."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.lenient import MAX_DEPTH, dumps, is_shallow, loads, mended
from tests.wire.strategies import BROKEN_TEXTS, VALUES, examples


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\ude00"', "\ufffd"),
        (rb'"\uD83D"', "\ufffd"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\uD83D\uDE00\ud83d"', "😀\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (rb'"\udc00\udc01"', "\ufffd\ufffd"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83dx\n\u00e9"', "\ufffdx\né"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d"', "\\\ufffd"),
        (rb'{"\udfff": ["\udfff"]}', {"\ufffd": ["\ufffd"]}),
    ],
    ids=ascii,
)
def test_half_a_pair_is_read_as_a_replacement_and_nothing_else_is_touched(data: bytes, value: Any) -> None:
    assert loads(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[1,]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'"\n"',
        rb'"\x"',
        rb'"\ud8"',
        rb'["\ud83d", NaN]',
        b'"\xed\xa0\xbd"',
    ],
    ids=repr,
)
def test_everything_else_is_refused_as_ever(data: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(data)


def test_half_a_pair_is_written_as_a_replacement_at_any_depth() -> None:
    assert dumps({"a\ud83d": ["\ude00", {"b": "😀\ud83d"}, 1, None]}) == (
        '{"a\ufffd":["\ufffd",{"b":"😀\ufffd"},1,null]}'.encode()
    )


def test_what_is_no_json_is_not_written() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})


@examples(60)
@given(VALUES)
def test_whole_values_are_read_and_written_as_orjson_does(value: Any) -> None:
    assert dumps(value) == orjson.dumps(value)
    assert loads(dumps(value)) == orjson.loads(orjson.dumps(value))


@examples(80)
@given(BROKEN_TEXTS)
def test_mending_leaves_whole_characters_and_only_they_can_be_encoded(text: str) -> None:
    whole = mended(text)
    assert whole.encode().decode() == whole
    assert mended(whole) == whole
    assert whole.count("a") == text.count("a")
    assert loads(dumps(text)) == whole


@pytest.mark.parametrize(
    ("wrap", "most"),
    [
        (lambda value: [value], MAX_DEPTH),
        (lambda value: {"a": value}, MAX_DEPTH),
        (lambda value: [0, {"a": 1}, [value]], MAX_DEPTH // 2),
    ],
    ids=["arrays", "objects", "both"],
)
def test_depth_is_measured_through_arrays_and_objects(wrap: Any, most: int) -> None:
    value: Any = "[["
    for _ in range(most):
        value = wrap(value)
        assert is_shallow(value)
    assert not is_shallow(wrap(value))


@examples(60)
@given(st.integers(0, 300), st.booleans())
def test_what_is_shallow_can_be_written(levels: int, as_array: bool) -> None:
    value: Any = {}
    for _ in range(levels):
        value = [value] if as_array else {"a": value}
    if is_shallow(value):
        assert loads(dumps(value)) == value
