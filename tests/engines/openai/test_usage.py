"""Token counts in every form that engines have: compared with a table of the places that are looked at."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.engines.openai.usage import TokenCounts

PLACES: Mapping[str, list[tuple[str, ...]]] = {
    "prompt": [("prompt_tokens",), ("input_tokens",)],
    "output": [("completion_tokens",), ("output_tokens",)],
    "cached": [("prompt_tokens_details", "cached_tokens"), ("cached_tokens",), ("prompt_cache_hit_tokens",)],
    "created": [("prompt_tokens_details", "created_cache_tokens")],
    "thinking": [("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",)],
}
"""The places of each count, in the order in which they are tried."""

VALUES = st.sampled_from([0, 1, 7, -1, None, "7", 7.0, True, [7]])
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(["cached_tokens", "created_cache_tokens", "reasoning_tokens"]), VALUES, max_size=3
)
KEYS = sorted({place[0] for places in PLACES.values() for place in places if len(place) == 1} | {"total_tokens"})
USAGES = st.builds(
    lambda counts, details: counts | details,
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["prompt_tokens_details", "completion_tokens_details"]), DETAILS, max_size=2),
)


def count_at(usage: Any, place: tuple[str, ...]) -> int | None:
    for key in place:
        usage = usage.get(key) if isinstance(usage, dict) else None
    return usage if type(usage) is int and usage >= 0 else None


def expected(usage: dict[str, Any], name: str) -> int | None:
    """The first count that is there. For the cache, a zero is one; elsewhere it is not."""
    found = [count_at(usage, place) for place in PLACES[name]]
    if name in ("cached", "created"):
        return next((count for count in found if count is not None), None)
    return next((count for count in found if count), None)


@given(USAGES)
def test_each_count_is_found_in_the_first_place_that_has_it(usage: dict[str, Any]) -> None:
    counts = TokenCounts()
    counts.note({"usage": usage})
    assert {name: getattr(counts, name) or None for name in PLACES} == {
        name: expected(usage, name) or None for name in PLACES
    }
    assert counts.cached == expected(usage, "cached")
