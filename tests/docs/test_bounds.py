"""Every bound on the page of bounds is shown by a test. (`test_pages` checks that the tests exist.)"""

import re

from tests.docs.pages import PAGES

ROW = re.compile(r"^\| (?!bound |---)(.+?) \| (.+) \|$", re.MULTILINE)


def test_every_bound_names_the_tests_that_show_it() -> None:
    rows = ROW.findall(PAGES["reference/bounds.md"])
    assert len(rows) > 30
    assert {bound for bound, tests in rows if not re.fullmatch(r"`test_\w+`(, `test_\w+`)*", tests)} == set()


def test_the_pages_that_explain_bounds_lead_to_the_page_of_bounds() -> None:
    for name in ("explanation/faults-and-limits.md", "explanation/security.md"):
        assert "reference/bounds.md" in PAGES[name]
