"""What chance a request has: by what it says, and by how often it came."""

from typing import Any

import pytest

from anthro_asgi.simulator.prompt import prompt
from anthro_asgi.simulator.seeds import RequestCounts, request_digest
from anthro_asgi.wire.request import MessagesRequest, ThinkingConfig, ToolChoice
from tests.simulator.asking import SEARCH, ask


def digest_of(request: MessagesRequest, seed: int = 0) -> bytes:
    return request_digest(request, prompt(request), seed)


@pytest.mark.parametrize(
    "more",
    [
        {"model": "other"},
        {"system": ["Be kind."]},
        {"tools": [SEARCH]},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"top_k": 5},
        {"effort": "high"},
        {"thinking": ThinkingConfig("enabled", 99)},
        {"output_schema": {"type": "object"}},
        {"tool_choice": ToolChoice("none")},
    ],
)
def test_all_that_an_engine_would_heed_makes_another_request(more: dict[str, Any]) -> None:
    assert digest_of(ask(**more)) != digest_of(ask())


@pytest.mark.parametrize("more", [{"stream": True}, {"max_tokens": 5}, {"user_id": "u"}, {"stop_sequences": ("x",)}])
def test_what_is_only_about_delivery_does_not(more: dict[str, Any]) -> None:
    assert digest_of(ask(**more)) == digest_of(ask())


def test_the_seed_makes_all_of_them_others() -> None:
    assert digest_of(ask(), 1) != digest_of(ask(), 2)


def test_each_request_is_counted_by_itself() -> None:
    times = RequestCounts()
    assert [times.count(name) for name in (b"a", b"a", b"b", b"a", b"b")] == [0, 1, 0, 2, 1]


def test_of_more_than_can_be_remembered_the_longest_unasked_is_forgotten() -> None:
    times = RequestCounts()
    times.count(b"old")
    times.count(b"kept")
    for number in range((1 << 14) - 2):
        times.count(b"%d" % number)
    assert times.count(b"kept") == 1
    times.count(b"one too many")
    assert times.count(b"kept") == 2
    assert times.count(b"old") == 0
