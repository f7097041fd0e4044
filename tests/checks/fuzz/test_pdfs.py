"""A short run of mutated PDFs: none gets other words than those that clients heal on."""

import pytest

from tests.checks.fuzz.pdfs import fuzz

pytestmark = pytest.mark.slow


async def test_mutated_pdfs_are_read_or_refused_in_the_words_of_the_contract() -> None:
    outcomes, failures = await fuzz(10, seed=1)
    assert failures == []
    assert sum(outcomes.values()) == 10
    assert outcomes["read"] > 0
