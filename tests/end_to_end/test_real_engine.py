"""The service over the real llama.cpp, with a model whose every answer is known."""

from typing import Any

import pytest

from anthro_asgi.conformance.grammar import check_stream, message_from_events
from tests.support.client import Answer, ask, ask_both_ways, comparable, get, prompt_tokens
from tests.support.llama.model import ANSWER, ARGUMENT, THINKING
from tests.support.llama.server import LlamaServer
from tests.support.service import Service

Json = dict[str, Any]

SPOKEN = {"type": "text", "text": ANSWER}
# Each word is a token, except the emoji, which is two. The end of the turn is one more.
LENGTH = len(ANSWER.split()) + 2


def tool(name: str, argument: str) -> Json:
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"name": name, "description": f"Tells the {name}.", "input_schema": schema}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]
INPUTS = {"get_weather": {"city": ARGUMENT}, "get_time": {"zone": ARGUMENT}}
THINK = {"type": "enabled", "budget_tokens": 1024}


def user(*content: str | Json) -> Json:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(*content: Json) -> Json:
    return {"role": "assistant", "content": list(content)}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def error_of(answer: Answer) -> Json:
    """The error of a response, after a check of its envelope."""
    body = answer.json
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    error: Json = body["error"]
    return error


def engines_count(llama: LlamaServer, messages: list[Json], **how: Any) -> int:
    """The length of the prompt that llama.cpp makes from chat messages."""
    prompt = ask(llama.url, "/apply-template", messages=messages, **how).json["prompt"]
    return len(ask(llama.url, "/tokenize", content=prompt, add_special=True, parse_special=True).json["tokens"])


# --- text ---


@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_answer_is_exact_to_the_character(real: Service, stream: bool) -> None:
    answer = ask(real.url, stream=stream)
    message = message_from_events(answer.events) if stream else answer.json
    assert message["content"] == [SPOKEN]
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "one-sentence")
    assert answer.headers["request-id"].startswith("req_")


def test_a_stream_arrives_word_by_word(real: Service) -> None:
    events = ask(real.url, stream=True).events
    deltas = [event.data["delta"]["text"] for event in events if event.type == "content_block_delta"]
    assert deltas[:3] == ["Hello!", " I", " am"]
    assert "".join(deltas) == ANSWER
    assert " 🙂" in deltas


def test_the_headers_of_a_stream_forbid_buffering_by_proxies(real: Service) -> None:
    headers = ask(real.url, stream=True).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/v1"])
def test_every_prefix_of_the_path_is_served(real: Service, prefix: str) -> None:
    assert ask(real.url, f"{prefix}/messages?beta=true").json["content"] == [SPOKEN]


@pytest.mark.clause("4.1")
def test_the_model_is_named_as_the_client_named_it(real: Service) -> None:
    assert ask_both_ways(real.url, model="claude-whatever")["model"] == "claude-whatever"


# --- thinking ---


def test_enabled_thinking_comes_first_and_is_signed(real: Service) -> None:
    thought, spoken = ask_both_ways(real.url, thinking=THINK)["content"]
    assert (thought["type"], thought["thinking"]) == ("thinking", THINKING)
    assert thought["signature"]
    assert spoken == SPOKEN


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}])
def test_there_is_no_thinking_unless_it_is_enabled(real: Service, thinking: Json | None) -> None:
    assert ask_both_ways(real.url, thinking=thinking)["content"] == [SPOKEN]


def test_adaptive_thinking_gives_a_thinking_block(real: Service) -> None:
    content = ask_both_ways(real.url, thinking={"type": "adaptive"})["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]


def test_thinking_cut_by_max_tokens_is_a_signed_block(real: Service) -> None:
    message = ask_both_ways(real.url, thinking=THINK, max_tokens=3)
    (thought,) = message["content"]
    assert thought["thinking"] == "They want something;"
    assert thought["signature"]
    assert message["stop_reason"] == "max_tokens"


# --- tools ---


def test_tool_choice_any_calls_a_tool(real: Service) -> None:
    message = ask_both_ways(real.url, tools=TOOLS, tool_choice={"type": "any"})
    spoken, call = message["content"]
    assert spoken == SPOKEN
    assert call["type"] == "tool_use"
    assert call["id"]
    assert call["input"] == INPUTS[call["name"]]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.clause("3.17")
@pytest.mark.parametrize("name", INPUTS)
def test_a_named_tool_choice_calls_that_tool(real: Service, name: str) -> None:
    message = ask_both_ways(real.url, tools=TOOLS, tool_choice={"type": "tool", "name": name})
    call = message["content"][-1]
    assert (call["name"], call["input"]) == (name, INPUTS[name])
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("choice", [None, {"type": "auto"}, {"type": "none"}])
def test_tool_choice_none_or_absent_calls_no_tool(real: Service, choice: Json | None) -> None:
    message = ask_both_ways(real.url, tools=TOOLS, tool_choice=choice)
    assert (message["content"], message["stop_reason"]) == ([SPOKEN], "end_turn")


def test_the_result_of_a_call_is_answered(real: Service, llama: LlamaServer) -> None:
    called = ask(real.url, tools=TOOLS, tool_choice={"type": "any"}).json
    result = {"type": "tool_result", "tool_use_id": called["content"][-1]["id"], "content": "Sunny, 25 °C"}
    turns = [user("Hello?"), assistant(*called["content"]), user(result)]
    message = ask_both_ways(real.url, messages=turns, tools=TOOLS)
    assert (message["content"], message["stop_reason"]) == ([SPOKEN], "end_turn")
    assert prompt_tokens(message["usage"]) > engines_count(llama, turns[:1])


def test_a_call_cut_by_max_tokens_is_left_out_or_complete_and_never_an_error(real: Service) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    whole = ask(real.url, tools=TOOLS, tool_choice=choice).json["usage"]["output_tokens"]
    for room in range(LENGTH - 1, whole, 3):
        body: Json = {"tools": TOOLS, "tool_choice": choice, "max_tokens": room}
        answer, stream = ask(real.url, **body), ask(real.url, **body, stream=True)
        assert answer.status == stream.status == 200
        check_stream(stream.events)
        assert answer.json["stop_reason"] == message_from_events(stream.events)["stop_reason"] == "max_tokens"
        assert answer.json["content"][0] == SPOKEN
        assert all(isinstance(block["input"], dict) for block in answer.json["content"][1:])


@pytest.mark.clause("3.18")
def test_an_answer_follows_an_output_schema(real: Service) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    message = ask_both_ways(real.url, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert message["content"] == [text(f'{{"city":"{ARGUMENT}"}}')]


# --- ends ---


@pytest.mark.parametrize(
    ("sequences", "matched"),
    [
        (["comes"], "comes"),
        (["then", "comes", "plain"], "comes"),
        (["nowhere", "🙂"], "🙂"),
        (["字 and"], "字 and"),
        (["é"], "é"),
        (["sentence is what"], "sentence is what"),
        (["end."], "end."),
        (["Hello"], "Hello"),
        (["plain words,", "words"], "words"),
    ],
)
def test_a_stop_sequence_ends_the_text_before_it_and_is_reported(
    real: Service, sequences: list[str], matched: str
) -> None:
    message = ask_both_ways(real.url, stop_sequences=sequences)
    said = ANSWER.partition(matched)[0]
    assert "".join(block["text"] for block in message["content"]) == said
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", matched)


def test_a_stop_sequence_that_does_not_match_removes_nothing(real: Service) -> None:
    message = ask_both_ways(real.url, stop_sequences=["at its end.!", "nowhere"])
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == ([SPOKEN], "end_turn", None)


@pytest.mark.parametrize(("room", "said"), [(1, "Hello!"), (5, "Hello! I am a model"), (LENGTH - 1, ANSWER)])
def test_an_answer_has_at_most_max_tokens(real: Service, room: int, said: str) -> None:
    message = ask_both_ways(real.url, max_tokens=room)
    assert message["content"] == [text(said)]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", room)


# --- usage ---


@pytest.mark.clause("4.10")
def test_usage_is_the_engines_count_with_cached_tokens_apart(real: Service, llama: LlamaServer) -> None:
    counted = engines_count(llama, [user("Hello?")])
    for _ in range(2):
        usage = ask_both_ways(real.url)["usage"]
        assert prompt_tokens(usage) == counted
        assert usage["output_tokens"] == LENGTH
    assert usage["cache_read_input_tokens"] > 0  # the engine has read this prompt before


@pytest.mark.clause("5.5")
def test_message_start_has_the_exact_prompt_length(real: Service, llama: LlamaServer) -> None:
    words = "How long is this prompt, which nobody has seen before?"
    events = ask(real.url, messages=[user(words)], stream=True).events
    first, last = events[0].data["message"]["usage"], events[-2].data["usage"]
    assert prompt_tokens(first) == prompt_tokens(last) == engines_count(llama, [user(words)])
    assert first["input_tokens"] == last["input_tokens"]
    assert (first["output_tokens"], last["output_tokens"]) == (0, LENGTH)


# --- the prompt ---


def test_the_engine_reads_system_and_turns_as_they_were_sent(real: Service, llama: LlamaServer) -> None:
    turns = [user("One"), assistant(text("Two")), user(text("Three"), text("Four"))]
    system = [text("Be brief.") | {"cache_control": {"type": "ephemeral"}}, text("Be kind.")]
    message = ask_both_ways(real.url, system=system, messages=turns)
    told = [
        {"role": "system", "content": "Be brief.\nBe kind."},
        user("One"),
        {"role": "assistant", "content": "Two"},
        user("Three\nFour"),
    ]
    assert prompt_tokens(message["usage"]) == engines_count(llama, told)
    assert message["content"] == [SPOKEN]


@pytest.mark.clause("3.29")
def test_thinking_of_the_history_is_sent_back_to_the_engine(real: Service, llama: LlamaServer) -> None:
    first = ask(real.url, thinking=THINK).json
    turns = [user("Hello?"), assistant(*first["content"]), user("And now?")]
    message = ask_both_ways(real.url, messages=turns, thinking=THINK)
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    told = [user("Hello?"), {"role": "assistant", "content": ANSWER, "reasoning_content": THINKING}, user("And now?")]
    how = {"chat_template_kwargs": {"enable_thinking": True}}
    assert prompt_tokens(message["usage"]) == engines_count(llama, told, **how)


@pytest.mark.clause("3.3")
def test_empty_text_blocks_change_nothing(real: Service, llama: LlamaServer) -> None:
    turns = [user(text(""), text("Hello?"), text("")), assistant(text("")), user(text("")), user("Well?")]
    assert ask_both_ways(real.url, messages=turns, system=[text("")])["content"] == [SPOKEN]
    blank = ask(real.url, messages=[user(text(""), text("Hello?"), text(""))]).json
    assert prompt_tokens(blank["usage"]) == engines_count(llama, [user("Hello?")])


@pytest.mark.clause("3.43")
def test_a_prefill_is_continued_and_not_repeated(real: Service) -> None:
    turns = [user("Hello?"), assistant(text("Well: "))]
    assert ask_both_ways(real.url, messages=turns)["content"] == [SPOKEN]


# --- refusals ---


@pytest.mark.clause("7.6")
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_is_refused_with_prompt_is_too_long(
    real: Service, llama: LlamaServer, stream: bool
) -> None:
    messages = [user("x" * 9000)]
    answer = ask(real.url, messages=messages, stream=stream)
    error = error_of(answer)
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert error["message"] == f"prompt is too long: {engines_count(llama, messages)} tokens > 8192 maximum"


def test_an_image_for_a_text_model_is_a_400(real: Service) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    answer = ask(real.url, messages=[user({"type": "image", "source": source}, text("What is it?"))])
    error = error_of(answer)
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert "image" in error["message"]


def test_an_invalid_request_names_the_path_at_fault(real: Service) -> None:
    answer = ask(real.url, messages=[user("Hello?"), user(text("x"), {"type": "hologram"})])
    assert answer.status == 400
    assert error_of(answer)["message"].startswith("messages.1.content.1")


# --- other routes ---


@pytest.mark.clause("9.1")
def test_the_model_list_has_the_engines_models_and_window(real: Service) -> None:
    (listed,) = get(real.url, "/v1/models").json["data"]
    for model in (listed, get(real.url, "/v1/models/one-sentence").json):
        assert (model["id"], model["type"], model["owned_by"]) == ("one-sentence", "model", "llamacpp")
        assert model["max_input_tokens"] == 8192


def test_tokens_are_counted_exactly_or_marked_as_estimated(real: Service) -> None:
    answer = ask(real.url, "/v1/messages/count_tokens", system="Be brief.", tools=TOOLS)
    counted = answer.json["input_tokens"]
    if answer.headers.get("anthro-asgi-token-count") == "estimate":
        assert counted > 0
    else:
        assert counted == prompt_tokens(ask(real.url, system="Be brief.", tools=TOOLS).json["usage"])


def test_readyz_is_200_while_the_engine_runs(real: Service) -> None:
    assert get(real.url, "/healthz").status == get(real.url, "/readyz").status == 200


def test_two_equal_requests_differ_in_their_ids_only(real: Service) -> None:
    one, other = ask(real.url).json, ask(real.url).json
    assert comparable(one) == comparable(other)
    assert one["id"] != other["id"]
