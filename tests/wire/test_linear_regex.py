"""Regular expressions in linear time: Python's `re` is the oracle."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.linear_regex import MAX_PATTERN, Pattern, PatternError, SearchTooLong

TEXTS = ["", "a", "ab", "abc", "aabbcc", "get_weather", "send mail to a user", "x\ny", "A1-b2", "ß İ é", "a.b", "()"]
PATTERNS = [
    "",
    "a",
    "^a",
    "c$",
    "^$",
    r"\Aab\Z",
    "a.c",
    ".*",
    "a|b|",
    "(a|b)+c",
    "(?:ab){1,2}c",
    "(?P<x>a)b",
    "a{2}",
    "a{,1}b",
    "b{2,}",
    "a{x}",
    "a+?b",
    "[a-c]+",
    "[^a-z]",
    "[]a]",
    "[a\\-z]",
    r"[\d_]",
    r"\bmail\b",
    r"\Bail",
    r"\w+\s\w+",
    r"\d-\D\d",
    r"\.",
    r"\(\)",
    "(?i)GET_.*",
    "weather|mail",
    "()*a",
    "(a*)*b",
    "x.y",
    r"x\ny",
]


def found(pattern: str, text: str) -> bool:
    return run_to_end(Pattern(pattern).search(text))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_where_pythons_does(pattern: str) -> None:
    oracle = re.compile(pattern, re.IGNORECASE)
    for text in TEXTS:
        expected = oracle.search(text) is not None
        assert found(pattern, text) is expected, text
        assert found(pattern, f"{text}a") is (oracle.search(f"{text}a") is not None), f"{text}a"


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\b", "^", "(a|b)", "(?:ab)", "c"])
REPEATS = st.sampled_from(["", "", "*", "+", "?", "{1,2}", "*?"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    alternatives = draw(st.lists(st.lists(st.tuples(ATOMS, REPEATS), max_size=4), min_size=1, max_size=3))
    return "|".join(
        "".join(atom + ("" if atom in ("^", r"\b") else repeat) for atom, repeat in parts) for parts in alternatives
    )


@given(patterns(), st.text("abc \n_", max_size=12))
def test_random_patterns_match_where_pythons_do(pattern: str, text: str) -> None:
    assert found(pattern, text) is (re.search(pattern, text, re.IGNORECASE) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "a)",
        "[",
        "[a",
        "*a",
        "a**",
        "(?=a)",
        "(?<!a)b",
        r"(a)\1",
        "\\",
        "[b-a]",
        "a{3,2}",
        "a{101}",
        "(?P<x",
        "a" * (MAX_PATTERN + 1),
        "(" * 100 + ")" * 100,
        "((a{100}){100}){100}",
        "((((()" + "{100})" * 4 + "{100}",
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_a_pattern_that_python_never_finishes_takes_a_moment() -> None:
    assert not found("(a+)+$", "a" * 2_000 + "b")
    assert not found("(a|aa)+c", "a" * 2_000)


def test_a_search_that_takes_too_much_work_is_given_up() -> None:
    text = "".join(random.Random(1).choices("ab", k=10_000))
    with pytest.raises(SearchTooLong):
        found("(a|b)*a(a|b){100}c", text)


def test_a_long_search_is_done_in_steps() -> None:
    steps = Pattern("x").search("a" * 100_000)
    assert sum(1 for _ in steps) > 10
