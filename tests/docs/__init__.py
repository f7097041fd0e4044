"""Checks of the README and of `docs/`.

    pages               the texts, and their blocks of code
    generated           the parts of pages that are computed from the code
    test_…              checks of tables, examples, links

`python -m tests.docs` names the pages with parts that are not current; `python -m tests.docs --write` renews them.
"""
