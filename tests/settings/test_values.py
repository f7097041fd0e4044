"""How option values are read: the plain code beside regular expressions that say the same."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.values import (
    SHAPES,
    URL,
    ValueType,
    any_text,
    choice,
    distribution,
    duration,
    integer,
    number,
    size,
)

WHOLE = r"\d+"
DECIMAL = r"\d+(?:\.\d*)?|\.\d+"
NUMBERS = {
    "integer": (integer("0", "1000000000"), WHOLE, ""),
    "size": (size("0", "1024G"), WHOLE, "|K|M|G|KiB|MiB|GiB"),
    "duration": (duration("0s", "240h"), DECIMAL, "us|ms|s|m|h|"),
    "number": (number("0", "1000000"), DECIMAL, ""),
}
PIECES = st.sampled_from(["", "0", "1", "25", "1.5", ".5", "5.", ".", "..", "-", "+", "e", "1e3", "_", "٣", "²", "x"])
UNITS = st.sampled_from(["", "s", "ms", "us", "m", "h", "K", "KiB", "GiB", "MB", "S", " s", "  s", "s ", "\n"])


def accepts(value: ValueType, text: str) -> bool:
    try:
        value.parse(text)
    except ValueError as exc:
        return str(exc).startswith("is not between") or str(exc).startswith("has no unit")
    return True


@pytest.mark.parametrize("kind", NUMBERS)
@given(pieces=st.lists(PIECES, min_size=1, max_size=2), unit=UNITS)
def test_a_number_is_read_as_its_regular_expression_says(kind: str, pieces: list[str], unit: str) -> None:
    value, pattern, units = NUMBERS[kind]
    text = "".join(pieces) + unit
    expected = re.fullmatch(rf"({pattern}) ?({units})", text.strip(), re.ASCII) is not None
    assert accepts(value, text) is expected, text


@given(
    st.text(st.sampled_from("htps:/unix x\t\0é"), max_size=12), st.sampled_from(["", "http://", "https://", "unix:/"])
)
def test_a_url_is_read_as_its_regular_expression_says(text: str, scheme: str) -> None:
    expected = re.fullmatch(r"(https?://|unix:/)\S+", scheme + text) is not None
    assert accepts(URL, scheme + text) is expected


@given(st.lists(st.sampled_from(["gamma", "cauchy", "(", ")", ",", "5ms", "7ms", " ", "soon"]), max_size=7))
def test_a_distribution_is_read_as_its_regular_expression_says(pieces: list[str]) -> None:
    text = "".join(pieces)
    match = re.fullmatch(r"\s*([a-z-]+)\((.+),(.+)\)\s*", text)
    if match is None:
        expected = is_duration(text)
    else:
        expected = match[1] in SHAPES and is_duration(match[2]) and is_duration(match[3])
    try:
        value = distribution(duration("0s", "1h")).parse(text)
    except ValueError:
        assert not expected, text
    else:
        assert expected, text
        assert value[0] == ("constant" if match is None else match[1])


def is_duration(text: str) -> bool:
    return re.fullmatch(r"\s*\d+ ?ms\s*", text) is not None


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        (any_text("TEXT"), ["a", " ", "a\nb"], ["", "a\0b"]),
        (choice("one", "two"), ["one", "two"], ["", "on", "one|two", "one ", "ONE"]),
    ],
)
def test_texts_and_choices(value: ValueType, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not accepts(value, text)] == []
    assert [text for text in bad if accepts(value, text)] == []


@pytest.mark.parametrize("function", ["compile", "fullmatch", "match", "search", "split", "sub"])
def test_defaults_and_usual_variables_are_read_without_regular_expressions(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`anthro-asgi health` would compile them every few seconds."""

    def refuse(pattern: str, *_: object, **__: object) -> Callable[[], None]:
        raise AssertionError(f"compiles {pattern}")

    monkeypatch.setattr(re, function, refuse)
    usual = {
        "ANTHRO_ASGI_UPSTREAM": "http://127.0.0.1:8000/v1",
        "ANTHRO_ASGI_PORT": "80",
        "ANTHRO_ASGI_HOST": "::1",
    }
    assert load_settings({}, usual).port == 80
