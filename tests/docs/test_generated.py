"""Every part of `docs/` that is generated is current. `python -m tests.docs --write` renews all of them."""

import pytest

from tests.docs.generated import PARTS, names, renewed
from tests.docs.pages import PAGES


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if names(text)])
def test_the_generated_parts_of_a_page_are_current(name: str) -> None:
    assert PAGES[name] == renewed(PAGES[name]), "run: python -m tests.docs --write"


def test_every_generated_part_stands_on_exactly_one_page() -> None:
    assert sorted(name for text in PAGES.values() for name in names(text)) == sorted(PARTS)


def test_only_the_text_between_the_marks_is_replaced() -> None:
    begin, end = "<!-- generated options: begin -->", "<!-- generated options: end -->"
    text = renewed(f"before\n{begin}\nold\n{end}\nafter\n")
    assert text.startswith(f"before\n{begin}\n| option | environment |")
    assert text.endswith(f" |\n{end}\nafter\n")
    assert renewed(text) == text


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="unknown"):
        renewed("<!-- generated unknown: begin -->\n<!-- generated unknown: end -->")
