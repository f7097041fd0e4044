"""JSON as clients really send it: a lone surrogate is replaced, and everything else is read strictly."""

import json
import random
import re
import resource
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire import json_codec
from anthro_asgi.wire.defaults import MAX_DEPTH
from anthro_asgi.wire.json_codec import (
    dumps,
    is_shallow,
    loads,
    loads_exactly,
    loads_with_bound,
    replace_lone_surrogates,
)
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
def test_a_lone_surrogate_is_read_as_a_replacement_and_nothing_else_changes(data: bytes, value: Any) -> None:
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
def test_other_invalid_json_is_refused(data: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(data)


SLOWLY = re.compile(
    rb"\\(?:[uU][dD][89abAB][0-9a-fA-F]{2}\\[uU][dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character, kept
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})"  # a lone half
    rb"|.)",  # any other escape is skipped as a whole, so that an escaped backslash hides nothing
    re.DOTALL,
)
ESCAPES = [
    *(rb"\ud83d", rb"\ude00", rb"\uD83D", rb"\uDFFF", rb"\u00e9", rb"\n", rb"\"", rb"\\", b"\\" * 40, b"\\" * 1001),
    *(b"ud83d", b"ude00", b"u", b"x", rb"\ud8", b"d83d"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_escapes_is_read_as_by_a_slow_reader(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3_000):
        data = b'"' + b"".join(chance.choices(ESCAPES, k=chance.randrange(8))) + b'"'
        whole = SLOWLY.sub(lambda match: rb"\ufffd" if match[1] else match[0], data)
        try:
            wanted = orjson.loads(whole)
        except orjson.JSONDecodeError:
            with pytest.raises(orjson.JSONDecodeError):
                loads(data)
        else:
            assert loads(data) == wanted


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40, -(10**300)], ids=lambda number: f"{number:.0e}")
@pytest.mark.parametrize("where", ["%d", '[1, {"a": [%d]}]', '{"a": [0.5, 1e300, {"b": %d}], "half": "\\ud83d"}'])
def test_an_integer_beyond_64_bit_stays_exact_in_every_place(number: int, where: str) -> None:
    data = (where % number).encode()
    value = loads_exactly(data)[0]
    assert value == json.loads(data.replace(rb"\ud83d", rb"\ufffd"))
    assert str(number) in repr(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"text": "at 1795376037123456789 it was 123456789012345678901234567890"}',
        b"[0.1234567890123456789, 18446744073709551615, -9223372036854775808, 1.5, 2e18]",
        b"null",
        b'"9999999999999999999999"',
    ],
)
def test_a_document_without_large_integers_is_parsed_once(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(json, "loads", pytest.fail)
    assert loads_exactly(data)[0] == orjson.loads(data)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[0.5,"a",', "]")])
def test_reading_returns_the_depth(opening: str, closing: str) -> None:
    for levels in (1, MAX_DEPTH, MAX_DEPTH + 1, 300):
        value, told = loads_exactly(f"{opening * levels}1e30{closing * levels}".encode())
        assert told == levels
        assert is_shallow(value) == (levels <= MAX_DEPTH)
        assert is_shallow(value, levels)
        assert not is_shallow(value, levels - 1)


@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=2), max_leaves=20), st.integers(2**62, 2**66))
@examples(200)
def test_a_bound_of_the_depth_is_no_less_than_the_depth_and_the_value_is_the_same(value: Any, number: int) -> None:
    for data in (dumps([value, number]), dumps([value, number, "x" * 5000])):
        exact, depth = loads_exactly(data)
        found, bound = loads_with_bound(data)
        assert repr(found) == repr(exact)
        assert bound >= depth


def test_a_lone_surrogate_is_written_as_a_replacement_at_any_depth() -> None:
    assert dumps({"a\ud83d": ["\ude00", {"b": "😀\ud83d"}, 1, None]}) == (
        '{"a\ufffd":["\ufffd",{"b":"😀\ufffd"},1,null]}'.encode()
    )


def test_a_value_that_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})


@pytest.mark.slow
@examples(60)
@given(VALUES)
def test_values_without_lone_surrogates_are_read_and_written_as_by_orjson(value: Any) -> None:
    assert dumps(value) == orjson.dumps(value)
    assert loads(dumps(value)) == orjson.loads(orjson.dumps(value))


@examples(80)
@given(BROKEN_TEXTS)
def test_replacing_lone_surrogates_keeps_all_other_characters(text: str) -> None:
    whole = replace_lone_surrogates(text)
    assert whole.encode().decode() == whole
    assert replace_lone_surrogates(whole) == whole
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
def test_a_shallow_value_can_be_written(levels: int, as_array: bool) -> None:
    value: Any = {}
    for _ in range(levels):
        value = [value] if as_array else {"a": value}
    if is_shallow(value):
        assert loads(dumps(value)) == value


@pytest.mark.parametrize("first", [b"1", rb'"\ud83d"'])
def test_exhausted_memory_is_no_error_of_the_document(first: bytes) -> None:
    """orjson reports it as a JSONDecodeError, which would be a 400."""
    document = b"[%b" % first + b",1" * 8_000_000 + b"]"  # orjson needs 128 MiB or more to parse it
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), limits[1]))
    try:
        with pytest.raises(MemoryError, match="memory"):
            loads(document)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("words", ["Not enough memory", "memory allocation failed"])
def test_a_small_document_without_memory_is_no_error_of_the_document_either(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory for a small document is not checked before, so orjson finds out."""

    def exhausted(data: bytes) -> None:
        raise orjson.JSONDecodeError(f"{words} for this", "", 0)

    fake = SimpleNamespace(loads=exhausted, JSONDecodeError=orjson.JSONDecodeError)
    monkeypatch.setattr(json_codec, "orjson", fake)
    with pytest.raises(MemoryError, match=words):
        loads(b"{}")
