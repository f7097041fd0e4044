"""`lazy_regex`: the same as `re.compile`, but compiled at the first use."""

import re

import pytest

from anthro_asgi.wire.lazy_regex import lazy_regex

TEXTS = ("Rate limit: 12 per minute", "rate LIMIT\n7", "", "no figures")


@pytest.mark.parametrize("flags", [0, re.IGNORECASE, re.IGNORECASE | re.DOTALL])
@pytest.mark.parametrize("pattern", [r"rate limit.(?P<figure>\d+)?", r"\d+", r"^$"])
def test_it_finds_what_a_compiled_pattern_finds(pattern: str, flags: int) -> None:
    lazy, compiled = lazy_regex(pattern, flags), re.compile(pattern, flags)
    for _ in range(2):  # the second time its methods are known
        for text in TEXTS:
            assert [match.groupdict() for match in lazy.finditer(text)] == [
                match.groupdict() for match in compiled.finditer(text)
            ]
            for one, other in (
                (lazy.search(text), compiled.search(text)),
                (lazy.match(text), compiled.match(text)),
                (lazy.fullmatch(text), compiled.fullmatch(text)),
            ):
                assert (one and one.span()) == (other and other.span())
            assert lazy.sub("#", text) == compiled.sub("#", text)
    assert (lazy.pattern, lazy.flags) == (compiled.pattern, compiled.flags)


def test_it_is_compiled_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = re.compile

    def noted(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return real(pattern, flags)

    monkeypatch.setattr(re, "compile", noted)
    lazy = lazy_regex("[a-c]+")
    assert compiled == []
    assert lazy.fullmatch("abc") is not None
    assert lazy.fullmatch("abd") is None
    assert compiled == ["[a-c]+"]


def test_a_wrong_pattern_raises_at_the_first_use() -> None:
    lazy = lazy_regex("(")
    with pytest.raises(re.error):
        lazy.search("x")
    with pytest.raises(AttributeError):
        getattr(lazy_regex("x"), "no_such_method")  # noqa: B009 - the type checker knows that it is missing
