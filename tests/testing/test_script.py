"""Which reply a request gets, and what a SeenRequest tells of it."""

from typing import Any

import pytest

from anthro_asgi.testing import SeenRequest, matching
from anthro_asgi.testing.script import Script


def asked(text: Any = "Hi", **fields: Any) -> SeenRequest:
    return SeenRequest(body={"model": "m", "messages": [{"role": "user", "content": text}], **fields})


def test_replies_are_used_in_order_and_once() -> None:
    script = Script()
    script.add("a", "b")
    script.add("c")
    assert script.unused == ["a", "b", "c"]
    assert [script.next_reply(asked()) for _ in range(4)] == ["a", "b", "c", None]
    assert script.unused == []


def test_a_rule_comes_first_and_repeats_its_last_reply() -> None:
    script = Script()
    script.add("in order")
    script.when(matching(text="weather"), "a", "b")
    replies = [script.next_reply(asked(text)) for text in ("weather?", "time?", "weather?", "weather?", "time?")]
    assert replies == ["a", "in order", "b", "b", None]


def test_the_first_rule_that_matches_is_used() -> None:
    script = Script()
    script.when(lambda request: request.stream, "stream")
    script.when(lambda request: True, "any")
    assert [script.next_reply(asked(stream=value)) for value in (True, False)] == ["stream", "any"]


def test_otherwise_is_for_the_requests_that_get_no_other_reply() -> None:
    script = Script()
    script.otherwise("last")
    script.add("first")
    assert [script.next_reply(asked()) for _ in range(3)] == ["first", "last", "last"]


def test_a_script_is_empty_until_something_is_added_and_after_clear() -> None:
    script = Script()
    assert script.is_empty
    script.add("a")
    assert not script.is_empty
    script.next_reply(asked())
    assert not script.is_empty
    script.clear()
    assert script.is_empty
    assert script.next_reply(asked()) is None


def test_a_rule_needs_a_reply() -> None:
    with pytest.raises(ValueError, match="a rule needs a reply"):
        Script().when(matching())


def test_a_wrong_reply_is_refused_when_it_is_added() -> None:
    wrong: Any = 5
    script = Script()
    for add in (script.add, script.otherwise, lambda reply: script.when(matching(), reply)):
        with pytest.raises(TypeError, match="5 is not a step"):
            add(wrong)
    assert script.is_empty


RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Sunny"}]}


@pytest.mark.parametrize(
    ("conditions", "request_", "expected"),
    [
        ({}, asked(), True),
        ({"model": "claude-*"}, asked(model="claude-x"), True),
        ({"model": "claude-*"}, asked(model="other"), False),
        ({"text": "WEATHER"}, asked("The weather?"), True),
        ({"text": "weather"}, asked("The time?"), False),
        ({"tool": "look"}, asked(tools=[{"name": "look"}]), True),
        ({"tool": "look"}, asked(), False),
        ({"tool_result": "sun"}, asked([RESULT]), True),
        ({"tool_result": "rain"}, asked([RESULT]), False),
        ({"tool_result": ""}, asked(), False),
        ({"stream": True}, asked(stream=True), True),
        ({"stream": False}, asked(stream=True), False),
        ({"text": "weather", "stream": True}, asked("weather"), False),
    ],
)
def test_all_conditions_of_a_matcher_must_hold(conditions: Any, request_: SeenRequest, expected: bool) -> None:
    assert matching(**conditions)(request_) is expected


def test_a_seen_request_tells_what_was_asked() -> None:
    request = SeenRequest(
        body={
            "model": "m",
            "stream": True,
            "tools": [{"name": "look", "input_schema": {}}],
            "messages": [
                {"role": "user", "content": "first"},
                {"role": "user", "content": [RESULT, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        }
    )
    assert (request.model, request.stream, request.tools) == ("m", True, ["look"])
    assert (request.text, request.tool_results, len(request.messages)) == ("a\nb", {"t1": "Sunny"}, 2)
    assert repr(request) == "<SeenRequest POST /v1/messages 'a\\nb' status=None>"


@pytest.mark.parametrize(
    "body", [{}, {"messages": 5, "tools": "x"}, {"messages": ["x"]}, {"messages": [{"content": 5}]}]
)
def test_a_seen_request_with_an_invalid_body_is_empty(body: Any) -> None:
    request = SeenRequest(body=body)
    assert (request.model, request.stream, request.tools, request.text, request.tool_results) == ("", False, [], "", {})


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-api-key": "k"}, "k"),
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer k"}, "k"),
        ({"authorization": "Basic k"}, None),
        ({"x-api-key": "a", "authorization": "Bearer b"}, "a"),
    ],
)
def test_the_key_of_a_request_may_be_in_either_header(headers: dict[str, str], key: str | None) -> None:
    assert SeenRequest(headers=headers).api_key == key


def test_waiting_for_the_end_of_a_request_is_bounded() -> None:
    request = SeenRequest()
    with pytest.raises(TimeoutError, match=r"POST /v1/messages has not ended within 0\.01 s"):
        request.wait_ended(0.01)
    request.mark_ended()
    request.wait_ended(0)
