"""The body of a chat request: options, the system prompt, tools, and the fields of each dialect."""

import json
from dataclasses import replace
from typing import Any

import pytest

from anthro_asgi.engines.openai.chat_request import encode, to_chat
from anthro_asgi.engines.openai.dialects import (
    LLAMA_CPP_PYTHON,
    LLAMACPP,
    OLLAMA,
    PLAIN,
    SGLANG,
    VLLM,
    Dialect,
)
from anthro_asgi.wire.errors import InvalidRequest
from tests.support.chat_requests import assistant, chat, every_dialect, request, result, sent, text, use, user

TOOLS: list[dict[str, Any]] = [
    {"name": "look", "input_schema": {"type": "object"}},
    {"name": "leap", "description": "Jumps."},
]
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.3a3; cc_entrypoint=cli; cch=fa690;"


# the body


def test_the_plain_body_holds_only_what_the_request_contains() -> None:
    assert chat() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_an_alias_is_sent_as_the_engines_own_model_name() -> None:
    asked = request()
    asked.engine_model = "served"
    assert to_chat(asked, PLAIN)["model"] == "served"


@pytest.mark.clause("3.7")
def test_sampling_and_user_are_passed_on() -> None:
    body = chat(temperature=0, top_p=0.5, metadata={"user_id": "u", "other": 1})
    assert (body["temperature"], body["top_p"], body["user"]) == (0, 0.5, "u")


@pytest.mark.clause("8.2")
@every_dialect
def test_top_k_is_sent_only_to_engines_that_know_it_and_never_as_zero(dialect: Dialect) -> None:
    assert chat(dialect=dialect, top_k=5).get("top_k") == (5 if dialect.top_k else None)
    assert "top_k" not in chat(dialect=dialect, top_k=0)


@every_dialect
def test_stop_strings_are_sent_only_to_engines_that_report_the_match(dialect: Dialect) -> None:
    body = chat(dialect=dialect, stop_sequences=["END", "\n\n"])
    assert body.get("stop") == (["END", "\n\n"] if dialect.stops else None)
    assert body.get("verbose") == (True if dialect is LLAMACPP else None)
    assert "verbose" not in chat(dialect=dialect)


@pytest.mark.clause("4.9")
@every_dialect
def test_stop_strings_are_not_sent_if_tools_can_be_called_or_thinking_is_on(dialect: Dialect) -> None:
    stops: Any = {"dialect": dialect, "stop_sequences": ["END"]}
    sent_stops = ["END"] if dialect.stops else None
    assert "stop" not in chat(**stops, tools=TOOLS)
    assert "stop" not in chat(**stops, tools=TOOLS, tool_choice={"type": "any"})
    assert "stop" not in chat(**stops, thinking={"type": "adaptive"})
    assert chat(**stops, thinking={"type": "disabled"}).get("stop") == sent_stops
    assert chat(**stops, tools=TOOLS, tool_choice={"type": "none"}).get("stop") == sent_stops


def test_a_model_that_was_seen_to_think_gets_no_stop_sequences_unless_thinking_is_switched_off() -> None:
    thinks = replace(VLLM, thinks=True)
    assert "stop" not in chat(dialect=thinks, stop_sequences=["END"])
    assert chat(dialect=thinks, stop_sequences=["END"], thinking={"type": "disabled"})["stop"] == ["END"]
    without_switch = replace(thinks, thinking_off={})
    assert "stop" not in chat(dialect=without_switch, stop_sequences=["END"], thinking={"type": "disabled"})


def test_vllm_receives_at_most_four_stop_strings() -> None:
    assert chat(dialect=VLLM, stop_sequences=list("abcdef"))["stop"] == list("abcd")
    assert chat(dialect=SGLANG, stop_sequences=list("abcdef"))["stop"] == list("abcdef")


def test_a_stop_string_that_contains_another_is_not_sent() -> None:
    assert chat(dialect=VLLM, stop_sequences=["b", "abc", "ab"])["stop"] == ["b", "ab"]


@pytest.mark.clause("3.18", "8.2")
def test_an_output_schema_is_passed_on_unchanged() -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"b": {"cache_control": 1}, "a": {}}, "junk": [None]}
    body = chat(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert body["response_format"]["type"] == "json_schema"
    assert json.dumps(body["response_format"]["json_schema"]["schema"]) == json.dumps(schema)


@pytest.mark.clause("8.2")
def test_early_usage_is_requested_from_engines_that_know_it() -> None:
    assert chat(dialect=VLLM)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert chat(dialect=LLAMACPP)["return_progress"] is True
    assert "return_progress" not in chat(dialect=VLLM)


@pytest.mark.clause("3.31")
def test_cache_marks_are_not_sent() -> None:
    mark: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    calls = assistant({**use("a"), **mark})
    answers = user({**result("a", [{**text("r"), **mark}]), **mark}, {**text("t"), **mark})
    body = chat(calls, answers, system=[{**text("s"), **mark}], tools=[{**TOOLS[0], **mark}], **mark)
    assert b"cache_control" not in encode(body)


def test_values_that_orjson_cannot_write_are_encoded() -> None:
    deep: Any = 2**80
    for _ in range(300):
        deep = [deep]
    assert json.loads(encode({"a": deep, "b": "é\ud83d"}))["b"] == "é\ufffd"
    assert str(2**80).encode() in encode(deep)


@pytest.mark.slow
def test_a_value_nested_too_deeply_for_python_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        encode(deep)
    while isinstance(deep, list):  # taken apart here, level by level
        deep = deep.pop()


# system


@pytest.mark.clause("3.4")
def test_system_blocks_are_joined_into_one_first_message() -> None:
    assert sent(system=[text("One."), text(""), text("Two.")])[0] == {
        "role": "system",
        "content": "One.\nTwo.",
    }
    assert sent(system="Be.")[0] == {"role": "system", "content": "Be."}
    assert sent(system="") == sent()


@pytest.mark.clause("3.42")
def test_the_billing_header_is_removed() -> None:
    assert sent(system=[text(BILLING), text("Be.")])[0]["content"] == "Be."
    assert sent(system=[text(BILLING)]) == sent()


@pytest.mark.clause("3.42")
@pytest.mark.parametrize(
    "words",
    [
        BILLING + "\nBe kind.",
        BILLING + "\n",
        "Explain " + BILLING,
        BILLING.removesuffix(";"),
        BILLING + " Be kind.",
        "x-anthropic-billing-header: is a header; tell me what it does;",
        "x-anthropic-billing-header:",
        BILLING.upper(),
    ],
)
def test_text_that_only_resembles_the_billing_header_is_kept(words: str) -> None:
    assert sent(system=[text(words)])[0]["content"] == words


def test_the_billing_header_is_kept_in_any_other_block() -> None:
    assert sent(system=[text("Be."), text(BILLING)])[0]["content"] == f"Be.\n{BILLING}"


LATE: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "system", "content": [text("s"), text("t")]}]


@pytest.mark.clause("3.41")
def test_a_late_system_message_becomes_marked_user_text_in_the_same_place() -> None:
    assert sent(*LATE, system="p") == [
        {"role": "system", "content": "p"},
        {"role": "user", "content": "a\n<system>\ns\nt\n</system>"},
    ]


@pytest.mark.clause("3.41", "8.2")
def test_a_late_system_message_keeps_its_role_if_the_dialect_accepts_it() -> None:
    assert sent(*LATE, dialect=Dialect("x", "X", late_system=True))[1] == {"role": "system", "content": "s\nt"}


def test_a_system_message_before_the_first_turn_is_the_system_prompt() -> None:
    first = {"role": "system", "content": "q"}
    assert sent(first, user("a"))[0] == first
    assert sent(first, user("a"), system="p")[0] == {"role": "system", "content": "p\nq"}


def test_an_empty_system_message_is_left_out() -> None:
    assert sent(user("a"), {"role": "system", "content": ""}, user("b")) == sent(user("a"), user("b"))


# prefill, thinking, effort


@pytest.mark.clause("3.43", "8.2")
@every_dialect
def test_a_trailing_assistant_turn_sends_the_prefill_switches_of_the_dialect(dialect: Dialect) -> None:
    switches = ("add_generation_prompt", "continue_final_message")
    said = chat(user("a"), assistant("It is"), dialect=dialect)
    expected = {"vllm": {switches[0]: False, switches[1]: True}, "sglang": {switches[1]: True}}
    assert {key: said[key] for key in switches if key in said} == expected.get(dialect.name, {})
    marks = {"mistral": {"prefix": True}, "moonshot": {"partial": True}}
    prefilled = {"role": "assistant", "content": "It is"}
    assert said["messages"][-1] == prefilled | marks.get(dialect.name, {})
    blank = chat(user("a"), assistant(" \n"), dialect=dialect)
    for finished in (blank, chat(dialect=dialect), chat(user("a"), assistant(use("x")), dialect=dialect)):
        assert not set(switches) & set(finished)


@pytest.mark.clause("3.10", "8.2")
@every_dialect
def test_thinking_is_switched_only_if_the_dialect_has_a_switch_and_the_client_asks(dialect: Dialect) -> None:
    for kind, on in (({"type": "adaptive"}, True), ({"type": "disabled"}, False)):
        sent = chat(dialect=dialect, thinking=kind)
        switches = {key: sent[key] for key in ("chat_template_kwargs", "thinking", "reasoning") if key in sent}
        assert switches == _switch(dialect.name, on)
    assert not {"chat_template_kwargs", "thinking", "reasoning"} & set(chat(dialect=dialect))


def _switch(name: str, on: bool) -> dict[str, Any]:
    if name in ("deepseek", "moonshot", "zai"):
        return {"thinking": {"type": "enabled" if on else "disabled"}}
    if name == "openrouter":
        return {"reasoning": {"enabled": on}}
    if name in ("vllm", "sglang", "dynamo"):  # templates differ in the name of the switch, and ignore the other one
        return {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}}
    if name in ("openai", "ollama", "llama-cpp-python", "minimax", "mistral", "xai", "gemini", "groq"):
        return {}
    return {"chat_template_kwargs": {"enable_thinking": on}}


@pytest.mark.clause("3.9")
@every_dialect
def test_disabled_thinking_wins_over_an_effort_beside_it(dialect: Dialect) -> None:
    sent = chat(dialect=dialect, thinking={"type": "disabled"}, output_config={"effort": "high"})
    assert sent.get("reasoning_effort") == ("none" if dialect is OLLAMA else None)


@every_dialect
def test_a_forced_call_switches_thinking_off_where_the_two_exclude_each_other(dialect: Dialect) -> None:
    forced = chat(dialect=dialect, thinking={"type": "adaptive"}, tools=TOOLS, tool_choice={"type": "any"})
    if dialect.name in ("deepseek", "moonshot"):
        assert (forced["thinking"], forced["tool_choice"]) == ({"type": "disabled"}, "required")
    else:
        free = chat(dialect=dialect, thinking={"type": "adaptive"}, tools=TOOLS)
        assert [forced.get(key) for key in dialect.thinking_on] == [free.get(key) for key in dialect.thinking_on]


def test_a_forced_call_is_left_to_the_model_where_thinking_has_no_switch() -> None:
    dialect = Dialect("x", "X", forced_choice_while_thinking=False)
    sent = chat(dialect=dialect, tools=TOOLS, tool_choice={"type": "tool", "name": "leap"})
    assert (sent["tool_choice"], [tool["function"]["name"] for tool in sent["tools"]]) == ("auto", ["leap"])


@pytest.mark.clause("3.6")
@every_dialect
def test_top_p_zero_is_sent_as_temperature_zero(dialect: Dialect) -> None:
    sent = chat(dialect=dialect, top_p=0, temperature=1)
    assert ("top_p" in sent, sent["temperature"]) == (False, 0)


EFFORT = {
    "llamacpp",
    "vllm",
    "sglang",
    "ollama",
    "sambanova",
    "tensorrt-llm",
    "max",
    "dynamo",
    "deepseek",
    "gemini",
}


@pytest.mark.clause("3.18", "8.2")
@every_dialect
def test_effort_is_sent_as_a_word_that_the_engine_knows(dialect: Dialect) -> None:
    for effort, word in {"low": "low", "medium": "medium", "max": "high", "xhigh": "high", "odd": None}.items():
        sent = chat(dialect=dialect, output_config={"effort": effort}).get("reasoning_effort")
        assert sent == (word if dialect.name in EFFORT else None)


# tools


@pytest.mark.clause("3.11")
def test_tools_are_functions_and_their_schema_is_untouched() -> None:
    schema = {"type": "nonsense", "$schema": "s", "properties": {"z": {}, "a": {"cache_control": True}}}
    spare = {"defer_loading": True, "input_examples": [{}]}
    body = chat(tools=[{"name": "look", "description": "", "input_schema": schema, **spare}, {"name": "leap"}])
    assert body["tools"] == [
        {"type": "function", "function": {"name": "look", "description": "", "parameters": schema}},
        {"type": "function", "function": {"name": "leap", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert "tools" not in chat(tools=[])
    assert not {"tool_choice", "parallel_tool_calls"} & set(body)


@pytest.mark.clause("3.17")
@pytest.mark.parametrize(("kind", "word"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_tool_choice_is_sent_as_the_chat_apis_word(kind: str, word: str) -> None:
    body = chat(tools=TOOLS, tool_choice={"type": kind})
    assert (body["tool_choice"], len(body["tools"])) == (word, 2)


@pytest.mark.clause("3.17")
@every_dialect
def test_a_named_tool_choice_is_sent_by_name_or_narrowed_to_that_tool(dialect: Dialect) -> None:
    body = chat(dialect=dialect, tools=TOOLS, tool_choice={"type": "tool", "name": "leap"})
    names = [entry["function"]["name"] for entry in body["tools"]]
    by_name = {"type": "function", "function": {"name": "leap"}}
    narrowed = {"llamacpp": "required", "ollama": None, "transformers": None, "mlx-lm": None}
    narrowed |= {"zai": "auto", "minimax": "auto"}
    if dialect.name in narrowed:
        assert (body.get("tool_choice"), names) == (narrowed[dialect.name], ["leap"])
    else:
        assert (body["tool_choice"], names) == (by_name, ["look", "leap"])


@pytest.mark.clause("3.17")
@pytest.mark.parametrize("kind", ["auto", "any", "tool"])
def test_disable_parallel_tool_use_is_sent(kind: str) -> None:
    choice = {"type": kind, "disable_parallel_tool_use": True, **({"name": "look"} if kind == "tool" else {})}
    assert chat(tools=TOOLS, tool_choice=choice)["parallel_tool_calls"] is False


@pytest.mark.clause("3.12")
@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object", "required": []}, {"type": "object", "required": [], "properties": {}}),
        ({"anyOf": [{"type": "object"}]}, {"anyOf": [{"type": "object"}]}),
        ({"type": "object", "properties": None}, {"type": "object", "properties": None}),
    ],
)
def test_a_schema_without_properties_gets_empty_ones(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    body = chat(tools=[{"name": "look", "input_schema": schema}])
    assert body["tools"][0]["function"]["parameters"] == sent


@pytest.mark.clause("3.12")
@every_dialect
@pytest.mark.parametrize("strict", [True, False, None])
def test_strict_is_sent_to_engines_that_know_it(dialect: Dialect, strict: bool | None) -> None:
    function = chat(dialect=dialect, tools=[{"name": "look", "strict": strict}])["tools"][0]["function"]
    known = dialect.name in ("openai", "vllm", "sglang", "mistral", "openrouter", "groq")
    assert function.get("strict") is (strict if known else None)


@pytest.mark.clause("3.18")
@every_dialect
def test_an_output_schema_has_the_form_that_the_engine_reads(dialect: Dialect) -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    sent = chat(dialect=dialect, output_config={"format": {"type": "json_schema", "schema": schema}})
    if dialect.name in ("transformers", "mlx-lm", "deepseek", "zai", "minimax"):
        assert "response_format" not in sent
    elif dialect is LLAMA_CPP_PYTHON:
        assert sent["response_format"] == {"type": "json_object", "schema": schema}
    else:
        shape = {"name": "output", "schema": schema, "strict": True}
        assert sent["response_format"] == {"type": "json_schema", "json_schema": shape}
