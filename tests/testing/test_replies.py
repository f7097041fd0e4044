"""Replies: what they may be, and the steps that they are played as."""

from types import MappingProxyType
from typing import Any

import pytest

from anthro_asgi import Finish, Overloaded, Thinking, ToolJson, ToolStart
from anthro_asgi.testing import Cut, SeenRequest, Stall, ToolCall, error, matching
from anthro_asgi.testing.replies import check_reply, steps_of, words
from anthro_asgi.testing.script import Script


def played(reply: Any, request: SeenRequest | None = None) -> list[Any]:
    return list(steps_of(reply, request or SeenRequest()))


@pytest.mark.parametrize("text", ["", " ", "one", "two words", " leading and trailing  ", "a\n\nb\tc", "漢字 🙂"])
def test_the_words_of_a_text_add_up_to_it(text: str) -> None:
    assert "".join(words(text)) == text


def test_a_text_is_played_word_by_word() -> None:
    assert played("It is sunny.") == ["It", " is", " sunny."]


def test_texts_in_a_list_are_played_as_they_are() -> None:
    assert played(["It is", " sunny."]) == ["It is", " sunny."]


def test_a_tool_call_is_played_as_a_start_and_pieces_of_its_input() -> None:
    call = ToolCall("get_weather", {"city": "Paris", "unit": "°C"}, id="toolu_1")
    start, *pieces = played(call)
    assert start == ToolStart("toolu_1", "get_weather")
    assert len(pieces) > 1
    assert "".join(piece.fragment for piece in pieces) == '{"city": "Paris", "unit": "°C"}'


def test_each_tool_call_has_an_id_of_its_own() -> None:
    assert ToolCall("a").id != ToolCall("a").id


def test_a_tool_call_without_input_has_an_empty_object() -> None:
    assert played(ToolCall("a", id="t")) == [ToolStart("t", "a"), ToolJson("{}")]


def test_the_input_of_a_tool_call_may_be_any_mapping() -> None:
    assert played(ToolCall("a", MappingProxyType({"b": 1}), id="t"))[1:] == [ToolJson('{"b": 1}')]


@pytest.mark.parametrize("input_", ["not a dict", None, 5, ["a"], [("a", 1)]])
def test_a_tool_call_with_an_input_that_is_no_mapping_is_a_type_error(input_: Any) -> None:
    with pytest.raises(TypeError, match="the input of a ToolCall must be a mapping"):
        ToolCall("get_weather", input_)


def test_a_tool_call_whose_name_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="the name of a ToolCall must be text"):
        ToolCall({"city": "Paris"})  # type: ignore[arg-type]  # the mistake that is tested


@pytest.mark.parametrize(
    ("value", "kind"), [(object(), TypeError), (float("nan"), ValueError), ({1, 2}, TypeError), (b"a", TypeError)]
)
def test_an_input_that_is_not_json_is_refused_when_it_is_scripted(value: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        check_reply(["Let me look.", ToolCall("a", {"b": value})])


def test_steps_may_be_mixed() -> None:
    failure = Overloaded()
    steps = [Thinking("hm"), "Hello", Stall(0.5), failure]
    assert played(steps) == steps
    assert played(Cut()) == [Cut()]
    assert played([Finish("max_tokens")]) == [Finish("max_tokens")]


def test_a_function_makes_the_reply_from_the_request() -> None:
    def reply(request: SeenRequest) -> str:
        return f"you asked {request.model}"

    assert played(reply, SeenRequest(body={"model": "m"})) == ["you", " asked", " m"]


def test_a_function_that_returns_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="5 is not a step of a reply"):
        played(lambda request: 5)


@pytest.mark.parametrize("reply", [5, None, b"text", {"type": "text"}, ["text", 5], Overloaded, [[]]])
def test_something_that_is_no_reply_is_a_type_error(reply: object) -> None:
    with pytest.raises(TypeError, match="is not a step of a reply"):
        check_reply(reply)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (Stall, {"seconds": "2s"}, r"^Stall: seconds must be a number, not '2s'$"),
        (error, {"status": "429"}, r"^error: status must be a whole number, not '429'$"),
        (error, {"status": None}, r"^error: status must be a whole number, not None$"),
        (matching, {"text": 5}, r"^matching: text must be text, not 5$"),
        (matching, {"tool": ["x"]}, r"^matching: tool must be text, not \['x'\]$"),
        (
            Script().when,
            {"matcher": "weather"},
            r"^a matcher is matching\(…\) or a function of the request, not 'weather'$",
        ),
    ],
)
def test_a_part_of_a_script_of_another_type_is_refused_where_it_is_written(
    function: Any, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        function(**arguments)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_stall_cannot_last_less_than_nothing(seconds: float) -> None:
    with pytest.raises(ValueError, match="a Stall cannot last"):
        Stall(seconds)


def test_bytes_and_a_function_that_is_not_called_are_named_as_they_are() -> None:
    with pytest.raises(TypeError, match=r"^b'text' is not a step"):
        check_reply(b"text")
    with pytest.raises(TypeError, match=r"^error is a function: write error\(status\)"):
        check_reply(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_an_error_has_the_type_that_the_api_uses_with_its_status(status: int, kind: str) -> None:
    assert (error(status).status, error(status).type, error(status).message) == (
        status,
        kind,
        f"scripted error {status}",
    )


def test_an_error_may_have_another_type_and_further_headers() -> None:
    failure = error(400, "no", type="billing_error", headers={"X-Should-Retry": "true"})
    assert (failure.type, failure.message, failure.headers) == ("billing_error", "no", (("x-should-retry", "true"),))


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (2, {"retry-after": "2"}),
        (2.0, {"retry-after": "2"}),
        (0.25, {"retry-after": "1", "retry-after-ms": "250"}),
        (1.5, {"retry-after": "2", "retry-after-ms": "1500"}),
    ],
)
def test_retry_after_is_whole_seconds_and_a_fraction_is_sent_in_milliseconds_too(
    seconds: float, headers: dict[str, str]
) -> None:
    assert dict(error(429, retry_after=seconds).headers) == headers


@pytest.mark.parametrize("status", [200, 302, 399, 600])
def test_another_status_is_no_error(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        error(status)
