"""Tool names: shortened for an engine, restored in answers."""

import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.openai import tool_names as module
from anthro_asgi.engines.openai.chat_request import tool_names
from anthro_asgi.engines.openai.dialects import PLAIN, VLLM
from anthro_asgi.engines.openai.tool_names import original_names, short, short_names
from anthro_asgi.engines.shared.tool_calls import ToolCallQueue
from anthro_asgi.wire.deltas import ToolJson, ToolStart
from tests.support.chat_requests import assistant, chat, request, result, use, user

LONG = "mcp__" + "server" * 15
LONGER = LONG + "_tool"


def test_a_name_within_the_limit_is_unchanged() -> None:
    assert short_names(["a", "b" * 64], 64) == {}
    assert short_names([LONG], None) == {}


def test_a_short_name_is_the_beginning_and_a_digest() -> None:
    name = short(LONG, 64)
    assert len(name) == 64
    assert LONG.startswith(name[:55])
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", name)
    assert short(LONGER, 64) != name


def test_a_short_name_depends_on_the_long_name_alone() -> None:
    assert short_names([LONG], 64)[LONG] == short_names(["a", LONGER, LONG, LONG], 64)[LONG] == short(LONG, 64)


def test_a_short_name_that_another_tool_has_is_avoided() -> None:
    other = short(LONG, 64)
    for names in ([other, LONG], [LONG, other]):
        called = short_names(names, 64)
        assert set(called) == {LONG}
        assert called[LONG] not in (other, LONG)
        assert len(called[LONG]) == 64


def test_two_long_names_of_one_digest_get_two_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DIGEST", 1)
    names = [f"the_same_beginning_{number}" for number in range(300)]
    assert len({short(name, 12) for name in names}) < 257
    pair = next(two for two in combinations(names, 2) if short(two[0], 12) == short(two[1], 12))
    first, second = short_names(pair, 12).values()
    assert first != second


@pytest.mark.slow
@settings(derandomize=True, deadline=None)
@given(st.lists(st.text("ab", min_size=8, max_size=16)))
def test_no_two_tools_ever_share_a_name(names: list[str]) -> None:
    """With digests of two characters, so that digests collide."""
    before, module._DIGEST = module._DIGEST, 1
    try:
        called = short_names(names, 10)
    finally:
        module._DIGEST = before
    sent = {called.get(name, name) for name in names}
    assert len(sent) == len(set(names))
    assert all(len(name) <= 10 for name in sent)
    assert {original_names(called).get(called.get(name, name), called.get(name, name)) for name in names} == set(names)


def test_tools_tool_choice_and_history_use_the_short_name() -> None:
    turns = (assistant(use("a", LONG), use("b", LONGER)), user(result("a"), result("b")))
    asked: dict[str, Any] = {"tools": [{"name": LONG}, {"name": "look"}], "tool_choice": {"type": "tool", "name": LONG}}
    body = chat(*turns, **asked)
    name = short(LONG, 64)
    assert [tool["function"]["name"] for tool in body["tools"]] == [name, "look"]
    assert body["tool_choice"]["function"]["name"] == name
    said = [call["function"]["name"] for call in body["messages"][0]["tool_calls"]]
    assert said == [name, short(LONGER, 64)]
    assert tool_names(request(*turns, **asked), PLAIN) == {LONG: name, LONGER: short(LONGER, 64)}


def test_names_are_unchanged_for_an_engine_without_a_limit() -> None:
    body = chat(dialect=VLLM, tools=[{"name": LONG}])
    assert body["tools"][0]["function"]["name"] == LONG
    assert tool_names(request(tools=[{"name": LONG}]), VLLM) == {}


def test_calls_are_returned_under_the_original_name_however_it_is_split() -> None:
    name = short(LONG, 64)
    calls = ToolCallQueue(lambda: "toolu_1", (), {name: LONG})
    calls.add_call(0, "a", name[:20], "")
    calls.add_call(0, None, name[20:], "")
    calls.add_call(0, None, None, "{}")
    calls.add_call(1, "b", "look", "{}")
    assert calls.release(at_end=True) == [
        *(ToolStart("a", LONG), ToolJson("{}")),
        *(ToolStart("b", "look"), ToolJson("{}")),
    ]
