"""A refusal by an engine → the dialect in which to ask again, and the body that this gives."""

from typing import Any

import pytest

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import DIALECTS, PLAIN, Dialect
from anthro_asgi.engines.openai.refusals import amended_dialect, changes_between
from anthro_asgi.engines.openai.sent_messages import look_in_steps
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import MessagesRequest
from tests.support.chat_requests import Json, assistant, request, result, use, user

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
LOOP = request(
    user("a"),
    assistant(THOUGHT, use("x")),
    user(result("x", "1"), "b"),
    assistant(use("y")),
    user(result("y", "2")),
    tools=[{"name": "look", "strict": True}],
    tool_choice={"type": "any"},
    top_k=5,
    thinking={"type": "adaptive"},
    output_config={"format": {"type": "json_schema", "schema": {}}},
)
LATE = request(user("a"), {"role": "system", "content": "s"}, user("b"))
KEEPING = Dialect("x", "X", late_system=True)


def amended(asked: MessagesRequest, refusal: str, dialect: Dialect = PLAIN) -> Json | None:
    """The body to send after the refusal of the first one; None if there is no other."""
    body = to_chat(asked, dialect)
    instead = amended_dialect(dialect, body, run_to_end(look_in_steps(body["messages"])), refusal)
    return None if instead is None else to_chat(asked, instead)


@pytest.mark.clause("3.40")
@pytest.mark.parametrize(
    "refusal",
    [
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 3",
    ],
)
def test_reasoning_is_sent_once_the_engine_demands_it(refusal: str) -> None:
    body = amended(LOOP, refusal)
    assert body is not None
    turns = [turn for turn in body["messages"] if turn["role"] == "assistant"]
    assert [turn["reasoning_content"] for turn in turns] == ["Hm.", ""]


@pytest.mark.parametrize(
    "refusal",
    [
        "'messages.1' : for 'role:assistant' the following must be satisfied: property 'reasoning' is unsupported",
        "1 validation error\nmessages.1.assistant.reasoning\n  Extra inputs are not permitted",
        "Unrecognized field: reasoning",
    ],
)
def test_reasoning_is_left_out_once_the_engine_refuses_it(refusal: str) -> None:
    body = amended(LOOP, refusal, DIALECTS["vllm"])
    assert body is not None
    assert not any("reasoning" in turn for turn in body["messages"])


@pytest.mark.clause("3.37")
def test_text_moves_into_the_tool_message_once_the_engine_refuses_a_user_turn_behind_it() -> None:
    body = amended(LOOP, "Unexpected role 'user' after role 'tool'")
    assert body is not None
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "tool", "assistant", "tool"]
    assert body["messages"][2]["content"] == "1\nb"


@pytest.mark.clause("3.37")
@pytest.mark.parametrize("words", ["Conversation roles must alternate user/assistant/…", "roles must alternate"])
def test_text_moves_into_the_tool_message_of_a_template_that_does_not_count_calls(words: str) -> None:
    body = amended(LOOP, f"Error: Jinja Exception: {words}")
    assert body is not None
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "tool", "assistant", "tool"]
    assert amended(request(user("a"), assistant("b"), user("c")), words) is None


def test_the_source_of_the_template_that_a_refusal_quotes_is_not_its_words() -> None:
    quoted = "While executing CallExpression in source: raise_exception('System message must be at the beginning.')"
    body = amended(LOOP, f"{quoted}\nError: Jinja Exception: Unexpected role 'user' after role 'tool'")
    assert body is not None
    assert body["messages"][2]["content"] == "1\nb"
    late = amended(LATE, f"{quoted}\nError: Jinja Exception: no image here", KEEPING)
    assert late is None


@pytest.mark.clause("3.41")
@pytest.mark.parametrize(
    "refusal",
    [
        "System message must be at the beginning.",
        "Unexpected role 'system' after role 'user'",
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ],
)
def test_a_late_system_message_is_folded_once_the_engine_refuses_it(refusal: str) -> None:
    body = amended(LATE, refusal, KEEPING)
    assert body is not None
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert amended(LATE, refusal) is None, "it was folded already"


def test_thinking_is_switched_off_once_the_engine_refuses_a_forced_call_beside_it() -> None:
    dialect = DIALECTS["zai"]
    switched = Dialect("x", "X", thinking_on=dialect.thinking_on, thinking_off=dialect.thinking_off)
    body = amended(LOOP, "Thinking mode does not support this tool_choice", switched)
    assert body is not None
    assert (body["thinking"], body["tool_choice"]) == ({"type": "disabled"}, "required")
    plain = amended(LOOP, "tool_choice 'required' is incompatible with thinking enabled")
    assert plain is not None
    assert plain["tool_choice"] == "auto", "there is no switch"


def test_a_forced_call_becomes_auto_once_the_engine_knows_nothing_else() -> None:
    body = amended(LOOP, "tool_choice only supports auto")
    assert body is not None
    assert body["tool_choice"] == "auto"


@pytest.mark.clause("3.12")
@pytest.mark.parametrize(
    "refusal",
    [
        "Unknown parameter: 'tools[0].function.strict'",
        "Invalid schema for response_format 'output': In context=(), 'additionalProperties' is required to be supplied",
    ],
)
def test_strict_is_left_out_once_the_engine_refuses_it(refusal: str) -> None:
    body = amended(LOOP, refusal)
    assert body is not None
    assert "strict" not in body["tools"][0]["function"]
    assert "strict" not in body["response_format"]["json_schema"]


@pytest.mark.clause("3.39")
@pytest.mark.parametrize(
    "refusal",
    [
        'can only concatenate str (not "NoneType") to str',
        "messages.1.content: Input should be a valid string",
        "content must not be null",
    ],
)
def test_null_content_becomes_empty_once_the_engine_refuses_it(refusal: str) -> None:
    body = amended(LOOP, refusal)
    assert body is not None
    assert body["messages"][1]["content"] == ""


def test_call_ids_get_the_length_that_the_engine_names() -> None:
    words = "Tool call id was toolu_x but must be a-z, A-Z, 0-9, with a length of 9."
    body = amended(LOOP, words)
    assert body is not None
    assert [len(turn["tool_call_id"]) for turn in body["messages"] if turn["role"] == "tool"] == [9, 9]


@pytest.mark.clause("3.43")
def test_a_prefill_gets_its_mark_once_the_engine_refuses_an_assistant_turn_at_the_end() -> None:
    prefilled = request(user("a"), assistant("It is"))
    body = amended(prefilled, "Expected last role User or Tool (or Assistant with prefix True) but got assistant")
    assert body is not None
    assert body["messages"][-1] == {"role": "assistant", "content": "It is", "prefix": True}


def test_calls_get_a_signature_once_the_engine_misses_it() -> None:
    body = amended(LOOP, "Function call `look` in the 2. content block is missing a `thought_signature`.")
    assert body is not None
    assert "extra_content" in body["messages"][1]["tool_calls"][0]


@pytest.mark.clause("3.6")
@pytest.mark.parametrize(
    "refusal",
    ["Unrecognized request argument supplied: top_k", "property 'top_k' is unsupported", 'Unknown name "top_k"'],
)
def test_top_k_is_left_out_once_the_engine_refuses_it(refusal: str) -> None:
    body = amended(LOOP, refusal)
    assert body is not None
    assert "top_k" not in body


HI = request()


@pytest.mark.parametrize(
    "refusal",
    [
        "",
        "the temperature is odd",
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "Unexpected role 'user' after role 'tool'",
        "System message must be at the beginning.",
        "Thinking mode does not support this tool_choice",
        "property 'reasoning' is unsupported",
        "Unknown parameter: 'tools[0].function.strict'",
        'can only concatenate str (not "NoneType") to str',
        "Tool call id was x but must be a-z, A-Z, 0-9, with a length of 9.",
        "Function call is missing a thought_signature",
        "property 'top_k' is unsupported",
        "Expected last role User or Tool but got assistant",
    ],
)
def test_words_about_something_that_was_not_sent_change_nothing(refusal: str) -> None:
    assert amended(HI, refusal) is None


def test_the_same_refusal_again_changes_nothing() -> None:
    refusal = "Unexpected role 'user' after role 'tool'"
    body = to_chat(LOOP, PLAIN)
    dialect = amended_dialect(PLAIN, body, run_to_end(look_in_steps(body["messages"])), refusal)
    assert dialect is not None
    assert amended(LOOP, refusal, dialect) is None


def test_the_changes_are_the_fields_that_differ() -> None:
    changes: dict[str, Any] = {"top_k": False, "no_content": ""}
    after = Dialect("openai", "x", longest_tool_name=64, strict_tools=True, **changes)
    assert changes_between(PLAIN, after) == changes | {"title": "x"}
