"""The body of a chat completion, read as a request of ours."""

from typing import Any

import orjson
import pytest

from anthro_asgi.simulator.chat_request import CompletionRequest, parse
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import MessagesRequest, ThinkingConfig, Tool, ToolChoice

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "d", "parameters": {"type": "object"}},
}


def read(**more: Any) -> CompletionRequest:
    return parse(orjson.dumps({**HELLO, **more}))


def request(**more: Any) -> MessagesRequest:
    return read(**more).request


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return request(messages=list(messages)).messages


def complaint(**more: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(**more)
    return caught.value.message


def test_what_engines_read_is_read() -> None:
    asked = request(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=5, stop="x", stream=True, user="u", reasoning_effort="low"
    )
    assert (asked.model, asked.max_tokens, asked.temperature, asked.top_p, asked.top_k) == ("m", 9, 0.5, 0.9, 5)
    assert (asked.stop_sequences, asked.stream, asked.user_id, asked.effort) == (("x",), True, "u", "low")


def test_a_length_that_is_left_open_is_none() -> None:
    assert request().max_tokens == 1_000_000
    assert request(max_completion_tokens=7, max_tokens=9).max_tokens == 7


def test_leading_system_messages_are_the_system_prompt_and_later_ones_stay() -> None:
    asked = request(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": "Be quick."},
        ]
    )
    assert asked.system == ["Be kind.", "Be brief."]
    assert asked.messages == [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be quick."}]


def test_text_parts_are_text_and_all_others_pictures() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:…"}}
    (turn,) = turns({"role": "user", "content": [{"type": "text", "text": "Look:"}, image]})
    assert turn["content"] == [{"type": "text", "text": "Look:"}, {"type": "image", "source": image}]


def test_calls_and_reasoning_become_blocks_and_results_one_user_turn() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    other = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "no json"}}
    first, results, last = turns(
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "So?"},
    )
    assert first["content"] == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": "no json"},
    ]
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
            {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
        ],
    }
    assert last == {"role": "user", "content": "So?"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ({"type": "function", "function": {"name": "get_weather"}}, ToolChoice("tool", "get_weather")),
    ],
)
def test_tools_and_the_choice_among_them(choice: Any, expected: ToolChoice | None) -> None:
    asked = request(tools=[WEATHER], tool_choice=choice)
    assert asked.tools == [Tool("get_weather", "d", {"type": "object"})]
    assert asked.tool_choice == expected


def test_one_call_at_a_time_may_be_asked_for() -> None:
    asked = request(tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False)
    assert asked.tool_choice == ToolChoice("auto", None, parallel=False)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"reasoning_effort": "high"}, ThinkingConfig("adaptive")),
        ({"reasoning_effort": "none"}, ThinkingConfig("disabled")),
        ({"chat_template_kwargs": {"enable_thinking": True}}, ThinkingConfig("adaptive")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, ThinkingConfig("disabled")),
        ({"chat_template_kwargs": {"thinking": True}}, ThinkingConfig("adaptive")),
        ({"chat_template_kwargs": {"other": 1}}, None),
    ],
)
def test_the_switches_of_engines_switch_thinking(more: dict[str, Any], expected: ThinkingConfig | None) -> None:
    assert request(**more).thinking == expected


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert request(response_format=shape).output_schema == schema
    assert request(response_format={"type": "json_object"}).output_schema == {"type": "object"}
    assert request(response_format={"type": "text"}).output_schema is None


def test_the_counts_are_for_who_asks_for_them() -> None:
    assert read().usage is False
    assert read(stream_options={"include_usage": True}).usage is True
    assert read(stream_options=None).usage is False


def test_what_no_engine_of_ours_reads_is_ignored() -> None:
    more = {"logprobs": True, "seed": 3, "n": 1, "logit_bias": {}, "frequency_penalty": 2, "store": False}
    assert request(**more) == request()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": None}, "model: required"),
        ({"messages": None}, "messages: required"),
        ({"messages": []}, "messages: must not be empty"),
        ({"messages": ["hi"]}, "messages.0: must be an object"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "king"}]}, "messages.1.role: must be one of"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: must be a string or an array"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages.0.content: must have parts with a type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.text: required"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages: tool_calls must have a function"),
        ({"n": 2}, "n: must be 1"),
        ({"max_tokens": 0}, "max_tokens: must be 1 or more"),
        ({"temperature": 3}, "temperature: must be between 0 and 2"),
        ({"stop": 5}, "stop: must be a string or an array of strings"),
        ({"stream": "yes"}, "stream: must be a boolean"),
        ({"tools": [{}]}, "tools.0.function: required"),
        ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice: must be one of"),
        ({"tool_choice": "required"}, "tool_choice: required needs tools"),
        ({"tool_choice": {"function": {"name": "x"}}}, "tool_choice: no tool is named 'x'"),
        ({"response_format": {"type": "json_schema"}}, "json_schema: required"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(more: dict[str, Any], words: str) -> None:
    assert words in complaint(**more)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_json_object_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="body: "):
        parse(body)
