"""Fingerprints of prompts: what counts as a change, and where the first one is."""

import json
from typing import Any

import pytest

from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.prompt_fingerprint import (
    MAX_MESSAGES,
    Change,
    Fingerprint,
    _digest,
    first_change,
    take_fingerprint,
)
from anthro_asgi.wire.request import parse_request

Json = dict[str, Any]
MARK: Json = {"cache_control": {"type": "ephemeral"}}
CALL: Json = {"type": "tool_use", "id": "t1", "name": "look", "input": {"b": [1, True, None], "a": 1.5}}
TURNS: list[Json] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": [{"type": "text", "text": "I look"}, CALL]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sky"}]},
]
BODY: Json = {
    "model": "m",
    "max_tokens": 9,
    "system": "Be kind",
    "tools": [{"name": "look", "input_schema": {"type": "object"}}, {"name": "go"}],
    "messages": TURNS,
}


def taken(**fields: Any) -> Fingerprint:
    fingerprint = run_to_end(take_fingerprint(parse_request(json.dumps({**BODY, **fields}).encode())))
    assert fingerprint is not None
    return fingerprint


def change(before: Json, after: Json) -> Change | None:
    return first_change(taken(**before), taken(**after))


@pytest.mark.parametrize(
    "after",
    [
        {},
        {"messages": [*TURNS, {"role": "assistant", "content": "More"}, {"role": "user", "content": "Go on"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello", **MARK}]}, *TURNS[1:]]},
        {"messages": [{"content": "Hello", "role": "user"}, *TURNS[1:]]},
        {"messages": [TURNS[0], {**TURNS[1], "content": [*TURNS[1]["content"][:1], {**CALL, **MARK}]}, TURNS[2]]},
        {
            "messages": [
                TURNS[0],
                {**TURNS[1], "content": [TURNS[1]["content"][0], dict(reversed(CALL.items()))]},
                TURNS[2],
            ]
        },
        {"system": [{"type": "text", "text": "Be kind", **MARK}]},
        {"tools": [BODY["tools"][0], {**BODY["tools"][1], **MARK}]},
        {"max_tokens": 100, "temperature": 1, "stop_sequences": ["x"], "stream": True, "metadata": {"user_id": "u"}},
    ],
)
def test_a_prompt_that_begins_with_the_earlier_one_has_not_changed(after: Json) -> None:
    assert change({}, after) is None


OTHER_TURN = {"role": "user", "content": "Hello!"}
LONG = "word " * 4000


@pytest.mark.parametrize(
    ("after", "reason", "path", "missed"),
    [
        ({"model": "n", "system": "Other", "messages": [OTHER_TURN]}, "model_changed", "model", 1.0),
        ({"system": "Be kind.", "tools": [], "messages": [OTHER_TURN]}, "system_changed", "system", 1.0),
        ({"tools": [*reversed(BODY["tools"])]}, "tools_changed", "tools", 1.0),
        ({"tools": [*BODY["tools"], {"name": "new"}]}, "tools_changed", "tools", 1.0),
        ({"tools": [{**BODY["tools"][0], "description": "x"}, BODY["tools"][1]]}, "tools_changed", "tools", 1.0),
        ({"tool_choice": {"type": "any"}, "messages": [OTHER_TURN]}, "unavailable", None, 0.0),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "unavailable", None, 0.0),
        ({"output_config": {"effort": "high"}}, "unavailable", None, 0.0),
    ],
)
def test_the_first_part_that_differs_is_the_reason(after: Json, reason: str, path: str | None, missed: float) -> None:
    found = change({}, after)
    assert found is not None
    assert (found.reason, found.path, found.missed) == (reason, path, missed)


@pytest.mark.parametrize("index", range(5))
def test_of_the_messages_the_share_behind_the_first_changed_one_is_missed(index: int) -> None:
    turns = [{"role": "user" if at % 2 == 0 else "assistant", "content": f"{at} {LONG}"} for at in range(5)]
    changed = [*turns[:index], {**turns[index], "content": "other"}, *turns[index + 1 :]]
    found = change({"messages": turns}, {"messages": changed})
    assert found is not None
    assert (found.reason, found.path) == ("messages_changed", f"messages.{index}")
    assert found.missed == pytest.approx(1.0 - index / 5, abs=0.01)


def test_a_prompt_that_lacks_the_end_of_the_earlier_one_has_changed_there() -> None:
    found = change({}, {"messages": TURNS[:1]})
    assert found is not None
    assert (found.reason, found.path) == ("messages_changed", "messages.1")
    assert 0 < found.missed < 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", ["a"]),
        (["ab", "c"], ["a", "bc"]),
        (["a", "b"], [["a", "b"]]),
        ([1], ["1"]),
        ([None], ["None"]),
        ([True], [1]),
        ({"a": "b"}, ["a", "b"]),
        ({"a": {}}, {"a": []}),
        ([[], "x"], [["x"]]),
    ],
)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    def asked(value: Any) -> Json:
        return {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [{**CALL, "input": {"v": value}}]},
            ]
        }

    found = change(asked(one), asked(other))
    assert found is not None
    assert found.path == "messages.1"


def test_a_fingerprint_holds_no_content_and_little_memory() -> None:
    turns = [{"role": "user", "content": f"secret {number} {LONG}"} for number in range(100)]
    fingerprint = taken(messages=turns)
    assert "secret" not in repr(fingerprint)
    assert (len(fingerprint.messages), len(fingerprint.ends)) == (800, 100)
    assert fingerprint.size == 512 + 1600


def test_large_content_is_hashed_in_short_steps() -> None:
    request = parse_request(json.dumps({**BODY, "messages": [{"role": "user", "content": "é" * 2_000_000}]}).encode())
    assert sum(1 for _ in take_fingerprint(request)) > 10
    text = "\ud800é" * 100_000
    assert taken(messages=[{"role": "user", "content": text}]) == taken(messages=[{"role": "user", "content": text}])


def test_the_order_of_keys_does_not_matter_in_a_wide_object_either() -> None:
    wide: Json = {f"{number * 7919 % 4001}": number for number in range(4_000)}
    other = dict(reversed(wide.items()))
    assert digest_of(wide) == digest_of(other | MARK)
    assert digest_of(wide) != digest_of(wide | {"0": 1})
    assert digest_of(wide) != digest_of({key: value for key, value in wide.items() if key != "7"})


def test_a_long_list_has_the_digest_of_its_elements_in_their_order() -> None:
    many = list(range(5_000))
    assert digest_of(many) == digest_of(tuple(many))
    assert digest_of(many) != digest_of([*many[:-2], many[-1], many[-2]])
    assert digest_of(many) != digest_of([many[1024], *many[1:1024], many[0], *many[1025:]])


def digest_of(value: Any) -> bytes:
    return run_to_end(_digest(value))


def test_a_prompt_with_very_many_messages_has_no_fingerprint() -> None:
    request = parse_request(json.dumps(BODY).encode())
    request.messages = [{"role": "user", "content": "x"}] * (MAX_MESSAGES + 1)
    assert run_to_end(take_fingerprint(request)) is None
