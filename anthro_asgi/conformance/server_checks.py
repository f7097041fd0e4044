"""Checks of the profile `server`: for any Messages server, without knowledge of what is behind it.

Prompts are such that any instruct model answers. A check judges properties that hold whatever the model says.
Authorities: "API" is Anthropic's documentation of the Messages API; "SDK" are the types and the behaviour of its
client libraries; "HTTP" is RFC 9110 and 9112; "SSE" is the HTML standard, section 9.2; "clients" is what Claude Code
and agent frameworks were seen to need.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from .check import (
    WEATHER,
    Session,
    Unsupported,
    calls_of,
    check,
    document,
    error_of,
    events_of,
    fail,
    is_text,
    message_of,
    must,
    text_of,
)
from .exchange import Json
from .stream_rules import folded

_COUNT: Final = "Count from 1 to 30 in digits, separated by single spaces. Write nothing else."
_STOPS: Final = ["5", "e", "ZZZZ"]  # a count has the first, other text the second
_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
_TOOL_HISTORY: Final[list[Json]] = [
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_01", "name": "get_weather", "input": {"city": "Paris"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "Sunny, 21 degrees"}]},
]


def _user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def _text(text: str, **more: Any) -> Json:
    return {"type": "text", "text": text, **more}


# --- messages ---


@check("server", "messages", "must", "API: Create a Message")
def a_request_is_answered_with_a_message(s: Session) -> None:
    message = s.message("Say hello.")
    must(message["content"], "content is empty")


@check("server", "messages", "must", "API: models are named in the response")
def the_message_names_a_model(s: Session) -> None:
    must(is_text(s.message("Say hello.")["model"]), "model is not a text")


@check("server", "messages", "should", "SDK: ids begin with msg_")
def the_id_of_a_message_begins_with_msg(s: Session) -> None:
    message = s.message("Say hello.")
    must(message["id"].startswith("msg_"), f"id is {message['id']!r}")


@check("server", "messages", "must", "API: each message has an id of its own")
def two_messages_have_two_ids(s: Session) -> None:
    ids = [s.message("Say hello.")["id"] for _ in range(2)]
    must(ids[0] != ids[1], f"both have the id {ids[0]!r}")


@check("server", "messages", "must", "API: usage")
def a_message_counts_its_tokens(s: Session) -> None:
    usage = s.message("Say hello.")["usage"]
    must(usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0) > 0, "no input token was counted")
    must(usage["output_tokens"] > 0, "no output token was counted")


@check("server", "messages", "should", "API: usage.input_tokens")
def a_longer_prompt_has_more_input_tokens(s: Session) -> None:
    def tokens(text: str) -> int:
        usage = s.message(text, max_tokens=1)["usage"]
        cached = [usage.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation")]
        return int(usage["input_tokens"] + sum(cached))

    few, many = tokens("Say hello."), tokens("Say hello. " + "This sentence makes the prompt longer. " * 20)
    must(many > few, f"{few} tokens for the short prompt, {many} for the long one")


@check("server", "messages", "must", "API: max_tokens")
def an_answer_ends_at_max_tokens(s: Session) -> None:
    message = s.message(_COUNT, max_tokens=4)
    produced = message["usage"]["output_tokens"]
    must(produced <= 4, f"{produced} output tokens, and max_tokens was 4")
    must(message["stop_reason"] == "max_tokens", f"stop_reason is {message['stop_reason']!r} after {produced} tokens")


@check("server", "messages", "must", "API: stop_sequences")
def a_stop_sequence_is_not_in_the_answer(s: Session) -> None:
    text = text_of(s.message(_COUNT, stop_sequences=_STOPS, max_tokens=64))
    must(not any(stop in text for stop in _STOPS), f"the text holds a stop sequence: {text!r}")


@check("server", "messages", "must", "API: stop_sequence")
def the_matched_stop_sequence_is_named(s: Session) -> None:
    message = s.message(_COUNT, stop_sequences=_STOPS, max_tokens=64)
    if message["stop_reason"] == "stop_sequence":
        must(message["stop_sequence"] in _STOPS, f"stop_sequence is {message['stop_sequence']!r}")
    else:
        must(message["stop_sequence"] is None, "stop_sequence is not null, and stop_reason is another")


@check("server", "messages", "must", "API: system")
def the_system_prompt_may_be_a_text(s: Session) -> None:
    s.message("Say hello.", system="You are brief.")


@check("server", "messages", "must", "API: system")
def the_system_prompt_may_be_blocks(s: Session) -> None:
    s.message("Say hello.", system=[_text("You are brief.", cache_control={"type": "ephemeral"}), _text("Be kind.")])


@check("server", "messages", "must", "API: content blocks")
def content_may_be_several_text_blocks(s: Session) -> None:
    s.message(_user(_text("Here is a text: abc."), _text("Say hello.", cache_control={"type": "ephemeral"})))


@check("server", "messages", "must", "API: consecutive turns of one role are combined")
def two_user_turns_may_follow_each_other(s: Session) -> None:
    s.message("My name is Ada.", "Say hello.")


@check("server", "messages", "must", "API: multiple turns")
def a_conversation_may_have_assistant_turns(s: Session) -> None:
    s.message("Say hello.", {"role": "assistant", "content": "Hello."}, "Say it again.")


@check("server", "messages", "must", "API: assistant content blocks")
def assistant_turns_may_be_blocks(s: Session) -> None:
    s.message("Say hello.", {"role": "assistant", "content": [_text("Hello.")]}, "Say it again.")


@check("server", "messages", "must", "API: sampling fields")
def sampling_fields_are_accepted(s: Session) -> None:
    s.message("Say hello.", temperature=0.5, top_p=0.9, top_k=40)


@check("server", "messages", "must", "API: temperature")
def temperature_zero_is_accepted(s: Session) -> None:
    s.message("Say hello.", temperature=0)


@check("server", "messages", "must", "API: metadata.user_id")
def metadata_is_accepted(s: Session) -> None:
    s.message("Say hello.", metadata={"user_id": "user-1"})


@check("server", "messages", "must", "API: thinking")
def thinking_may_be_disabled(s: Session) -> None:
    s.message("Say hello.", thinking={"type": "disabled"})


@check("server", "messages", "must", "SDK: stream is a boolean")
def stream_false_gives_a_whole_message(s: Session) -> None:
    s.message("Say hello.", stream=False)


@check("server", "messages", "must", "JSON: RFC 8259 section 8.1")
def text_of_any_script_is_accepted(s: Session) -> None:
    s.message("Say hello. Grüße, 你好, مرحبا, 🙂, \u0000, \u2028.")


@check("server", "messages", "should", "clients: JavaScript cuts texts inside an emoji")
def half_of_a_surrogate_pair_is_accepted(s: Session) -> None:
    body = json.dumps(s.body("Say hello. CUT")).replace("CUT", "\\ud83d").encode()
    message_of(s.post(body))


@check("server", "messages", "should", "API: plain-text documents")
def a_document_may_be_plain_text(s: Session) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The sky is green."}
    s.message(_user({"type": "document", "source": source, "title": "Sky"}, _text("What is green?")))


@check("server", "messages", "must", "API: images; a server without vision refuses with an error")
def an_image_is_read_or_refused(s: Session) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": _PIXEL}
    exchange = s.post(s.body(_user({"type": "image", "source": source}, _text("What colour is it?"))))
    if exchange.status == 200:
        message_of(exchange)
    else:
        error_of(exchange, 400, "invalid_request_error")


@check("server", "messages", "should", "clients: a thinking block of an earlier answer comes back")
def a_thinking_block_in_the_history_is_accepted(s: Session) -> None:
    block = {"type": "thinking", "thinking": "I should greet.", "signature": "c2lnbmF0dXJl"}
    assistant = {"role": "assistant", "content": [block, _text("Hello.")]}
    exchange = s.post(s.body("Say hello.", assistant, "Again."))
    if exchange.status != 400:  # a server that verifies signatures refuses one that is not its own
        message_of(exchange)
    else:
        must("signature" in error_of(exchange)["message"], "refused for another reason than its signature")


@check("server", "messages", "must", "clients: what a server gives it must take back")
def an_answer_may_come_back_in_the_history(s: Session) -> None:
    first = s.message("Say hello.")
    s.message("Say hello.", {"role": "assistant", "content": first["content"]}, "Say it again.")


# --- tools ---


@check("server", "tools", "must", "API: tools")
def tools_are_accepted(s: Session) -> None:
    s.message("Say hello.", tools=[WEATHER])


@check("server", "tools", "must", "API: tool_choice of type tool")
def a_forced_tool_is_called(s: Session) -> None:
    message = s.message("Weather in Paris?", tools=[WEATHER], tool_choice=_forced(), max_tokens=96)
    calls = calls_of(message)
    must(calls or message["stop_reason"] == "max_tokens", "no tool was called")
    must(all(call["name"] == "get_weather" for call in calls), "another tool was called")


def _forced() -> Json:
    return {"type": "tool", "name": "get_weather"}


@check("server", "tools", "must", "API: stop_reason tool_use")
def a_call_ends_with_stop_reason_tool_use(s: Session) -> None:
    message = s.message("Weather in Paris?", tools=[WEATHER], tool_choice={"type": "any"}, max_tokens=96)
    called, reason = bool(calls_of(message)), message["stop_reason"]
    must(called == (reason == "tool_use") or reason == "max_tokens", f"called: {called}, stop_reason {reason!r}")


@check("server", "tools", "must", "API: tool_use ids")
def a_call_has_an_id_and_an_input(s: Session) -> None:
    for call in calls_of(s.message("Weather in Paris?", tools=[WEATHER], tool_choice=_forced(), max_tokens=96)):
        must(is_text(call.get("id")) and isinstance(call.get("input"), dict), f"the call is {call}")


@check("server", "tools", "should", "API: ids match ^[a-zA-Z0-9_-]+$")
def the_id_of_a_call_is_made_of_letters_digits_and_dashes(s: Session) -> None:
    for call in calls_of(s.message("Weather in Paris?", tools=[WEATHER], tool_choice=_forced(), max_tokens=96)):
        plain = str(call["id"]).replace("_", "").replace("-", "")
        must(plain.isascii() and plain.isalnum(), f"id is {call['id']!r}")


@check("server", "tools", "must", "API: tool_choice none")
def no_tool_is_called_with_tool_choice_none(s: Session) -> None:
    message = s.message("Weather in Paris?", tools=[WEATHER], tool_choice={"type": "none"})
    must(not calls_of(message), "a tool was called")


@check("server", "tools", "should", "API: disable_parallel_tool_use")
def at_most_one_tool_is_called_when_parallel_use_is_disabled(s: Session) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    message = s.message("Weather in Paris and in Rome?", tools=[WEATHER], tool_choice=choice, max_tokens=96)
    must(len(calls_of(message)) <= 1, f"{len(calls_of(message))} calls")


@check("server", "tools", "must", "API: tool_result")
def a_tool_result_is_accepted(s: Session) -> None:
    s.message(*_TOOL_HISTORY, tools=[WEATHER])


@check("server", "tools", "must", "API: tool_result content blocks, is_error")
def a_tool_result_may_be_blocks_and_an_error(s: Session) -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "is_error": True, "content": [_text("no network")]}
    s.message(*_TOOL_HISTORY[:2], _user(result, _text("Go on.")), tools=[WEATHER])


@check("server", "tools", "must", "API: tool_result without content")
def a_tool_result_may_be_empty(s: Session) -> None:
    s.message(*_TOOL_HISTORY[:2], _user({"type": "tool_result", "tool_use_id": "toolu_01"}), tools=[WEATHER])


@check("server", "tools", "must", "API: input_schema is any JSON schema")
def a_tool_without_properties_is_accepted(s: Session) -> None:
    s.message("Say hello.", tools=[{"name": "now", "input_schema": {"type": "object"}}])


@check("server", "tools", "must", "API: names match ^[a-zA-Z0-9_-]{1,128}$")
def a_tool_without_a_name_is_refused(s: Session) -> None:
    s.refusal(s.body("Say hello.", tools=[{"input_schema": {"type": "object"}}]), 400, "invalid_request_error")


# --- validation ---


def _refused(name: str, weight: Any, authority: str, **fields: Any) -> None:
    """Register a check that a request with these fields is refused with 400."""

    def run(s: Session) -> None:
        s.refusal(s.body("Say hello.", **fields), 400, "invalid_request_error")

    run.__name__ = name
    check("server", "validation", weight, authority)(run)


_refused("a_request_without_model_is_refused", "must", "API: model is required", model=...)
_refused("a_request_without_max_tokens_is_refused", "must", "API: max_tokens is required", max_tokens=...)
_refused("a_request_without_messages_is_refused", "must", "API: messages is required", messages=...)
_refused("messages_that_are_empty_are_refused", "must", "API: messages", messages=[])
_refused("messages_that_are_no_array_are_refused", "must", "API: messages", messages="hello")
_refused("a_text_as_max_tokens_is_refused", "must", "API: max_tokens is an integer", max_tokens="many")
_refused("negative_max_tokens_are_refused", "must", "API: max_tokens", max_tokens=-1)
_refused("a_text_as_temperature_is_refused", "must", "API: temperature is a number", temperature="hot")
_refused("a_temperature_of_nine_is_refused", "should", "API: temperature has a range", temperature=9)
_refused("an_unknown_role_is_refused", "must", "API: roles", messages=[{"role": "robot", "content": "hi"}])
_refused("a_number_as_content_is_refused", "must", "API: content", messages=[{"role": "user", "content": 5}])
_refused("a_message_without_content_is_refused", "must", "API: content", messages=[{"role": "user"}])
_refused("a_block_without_type_is_refused", "must", "API: blocks", messages=[{"role": "user", "content": [{"a": 1}]}])
_refused(
    "an_unknown_block_is_refused",
    "should",
    "API: content blocks",
    messages=[{"role": "user", "content": [{"type": "hologram", "data": "x"}]}],
)
_refused("a_number_as_system_is_refused", "must", "API: system", system=5)
_refused("a_text_as_stop_sequences_is_refused", "must", "API: stop_sequences is an array", stop_sequences="stop")
_refused("a_text_as_tools_is_refused", "must", "API: tools is an array", tools="hammer")
_refused(
    "an_image_of_an_unknown_type_is_refused",
    "should",
    "API: media types of images",
    messages=[_user({"type": "image", "source": {"type": "base64", "media_type": "image/x-none", "data": "AAAA"}})],
)


@check("server", "validation", "must", "API: errors; SDK: BadRequestError")
def a_body_that_is_no_json_is_refused(s: Session) -> None:
    s.refusal(b'{"model": "m", ', 400, "invalid_request_error")


@check("server", "validation", "must", "API: errors")
def a_body_that_is_an_array_is_refused(s: Session) -> None:
    s.refusal([1, 2], 400, "invalid_request_error")


@check("server", "validation", "must", "API: errors")
def an_empty_body_is_refused(s: Session) -> None:
    s.refusal(b"", 400, "invalid_request_error")


@check("server", "validation", "must", "SDK: a stream is refused with a status, before it begins")
def a_refused_stream_is_an_error_status(s: Session) -> None:
    s.refusal(s.body("Say hello.", stream=True, max_tokens="many"), 400, "invalid_request_error")


@check("server", "validation", "should", "API: the message of an error names the field")
def a_refusal_names_the_field(s: Session) -> None:
    error = s.refusal(s.body("Say hello.", max_tokens="many"), 400, "invalid_request_error")
    must("max_tokens" in error["message"], f"the message is {error['message']!r}")


@check("server", "validation", "should", "API: not_found_error for an unknown model")
def an_unknown_model_is_not_found(s: Session) -> None:
    s.refusal(s.body("Say hello.", model="no-such-model-0000"), 404, "not_found_error")


# --- errors ---


@check("server", "errors", "should", "API: errors have a request_id")
def an_error_names_its_request(s: Session) -> None:
    exchange = s.post(s.body("Say hello.", max_tokens="many"))
    error_of(exchange, 400)
    must(is_text(document(exchange).get("request_id")), "request_id is missing in the error")


@check("server", "errors", "should", "SDK: the header request-id")
def each_response_has_the_header_request_id(s: Session) -> None:
    for exchange in (s.post(s.body("Say hello.")), s.post(s.body("Say hello.", max_tokens="many"))):
        must("request-id" in exchange.headers, f"status {exchange.status} has no header request-id")


@check("server", "errors", "should", "API: not_found_error")
def an_unknown_path_is_not_found(s: Session) -> None:
    error_of(s.get("/v1/no-such-path"), 404, "not_found_error")


@check("server", "errors", "should", "HTTP: RFC 9110 section 15.5.6")
def a_wrong_method_is_refused(s: Session) -> None:
    exchange = s.note(s.client.send("DELETE", "/v1/messages"))
    must(exchange.status in (404, 405), f"status {exchange.status}, not 405 or 404")


@check("server", "errors", "must", "API: authentication_error")
def a_wrong_key_is_refused(s: Session) -> None:
    if s.client.key is None:
        raise Unsupported("no key was given")
    error_of(s.post(s.body("Say hello."), headers={"x-api-key": "wrong"}), 401, "authentication_error")


@check("server", "errors", "must", "SDK: Authorization: Bearer, or x-api-key")
def a_bearer_token_is_accepted(s: Session) -> None:
    if s.client.key is None:
        raise Unsupported("no key was given")
    headers = {"x-api-key": None, "authorization": f"Bearer {s.client.key}"}
    s.message("Say hello.", headers=headers)


# --- headers of the API ---


@check("server", "headers", "must", "SDK: anthropic-beta")
def an_unknown_beta_is_accepted(s: Session) -> None:
    s.message("Say hello.", headers={"anthropic-beta": "interleaved-thinking-2025-05-14,fine-grained-2030-01-01"})


@check("server", "headers", "must", "SDK: client.beta.messages sends ?beta=true")
def a_query_is_accepted(s: Session) -> None:
    message_of(s.post(s.body("Say hello."), "/v1/messages?beta=true"))


@check("server", "headers", "should", "clients: some send no anthropic-version")
def anthropic_version_may_be_missing(s: Session) -> None:
    s.message("Say hello.", headers={"anthropic-version": None})


@check("server", "headers", "should", "clients: content-type with a charset")
def content_type_may_have_a_charset(s: Session) -> None:
    s.message("Say hello.", headers={"content-type": "application/json; charset=utf-8"})


# --- streams ---


@check("server", "streams", "must", "API: streaming; SSE")
def a_stream_keeps_the_order_of_its_events(s: Session) -> None:
    folded(s.stream("Say hello."))


@check("server", "streams", "must", "SDK: the stream ends with message_stop, not with [DONE]")
def nothing_follows_message_stop(s: Session) -> None:
    events = s.stream("Say hello.")
    must(events and events[-1].type == "message_stop", f"the last event is {events[-1].type if events else 'none'}")


@check("server", "streams", "must", "API: streaming; SDK types")
def a_stream_holds_a_message(s: Session) -> None:
    message = folded(s.stream("Say hello."))
    must(message["content"], "content is empty")
    must(message["usage"]["output_tokens"] > 0, "no output token was counted")


@check("server", "streams", "must", "SDK: usage in message_start")
def message_start_has_usage(s: Session) -> None:
    events = s.stream("Say hello.")
    usage = events[0].data["message"].get("usage") if events and "message" in events[0].data else None
    must(isinstance(usage, dict) and type(usage.get("input_tokens")) is int, f"usage is {usage!r}")


@check("server", "streams", "must", "API: the last message_delta has the usage of the whole message")
def message_delta_has_the_count_of_output_tokens(s: Session) -> None:
    deltas = [event.data for event in s.stream(_COUNT) if event.type == "message_delta"]
    must(deltas, "no message_delta")
    must(deltas[-1].get("usage", {}).get("output_tokens", 0) > 1, f"usage is {deltas[-1].get('usage')}")


@check("server", "streams", "must", "API: streaming of tool_use")
def the_input_of_a_call_is_streamed_as_json(s: Session) -> None:
    message = folded(s.stream("Weather in Paris?", tools=[WEATHER], tool_choice=_forced(), max_tokens=96))
    must(calls_of(message) or message["stop_reason"] == "max_tokens", "no tool was called")
    must(all(call["name"] == "get_weather" for call in calls_of(message)), "another tool was called")


@check("server", "streams", "must", "API: stop_reason tool_use")
def a_streamed_call_ends_with_stop_reason_tool_use(s: Session) -> None:
    message = folded(s.stream("Weather in Paris?", tools=[WEATHER], tool_choice=_forced(), max_tokens=96))
    reason = message["stop_reason"]
    must(bool(calls_of(message)) == (reason == "tool_use") or reason == "max_tokens", f"stop_reason is {reason!r}")


@check("server", "streams", "must", "API: max_tokens")
def a_stream_ends_at_max_tokens(s: Session) -> None:
    message = folded(s.stream(_COUNT, max_tokens=4))
    must(message["stop_reason"] == "max_tokens", f"stop_reason is {message['stop_reason']!r}")
    must(message["usage"]["output_tokens"] <= 4, f"{message['usage']['output_tokens']} output tokens")


@check("server", "streams", "must", "API: stop_sequences")
def a_stop_sequence_is_not_in_the_stream(s: Session) -> None:
    message = folded(s.stream(_COUNT, stop_sequences=_STOPS, max_tokens=64))
    text, matched = text_of(message), message["stop_sequence"]
    must(not any(stop in text for stop in _STOPS), f"the text holds a stop sequence: {text!r}")
    must((matched in _STOPS) == (message["stop_reason"] == "stop_sequence"), f"stop_sequence is {matched!r}")


@check("server", "streams", "must", "SSE: UTF-8 only")
def a_stream_is_utf8(s: Session) -> None:
    exchange = s.post(s.body("Say hello in Chinese, Arabic and with an emoji.", stream=True))
    try:
        exchange.body.decode()
    except UnicodeDecodeError as exc:
        fail(f"the stream is not UTF-8: {exc}")
    folded(events_of(exchange))


@check("server", "streams", "should", "API: text deltas are not empty")
def no_delta_is_empty(s: Session) -> None:
    for event in s.stream("Say hello."):
        delta = event.data.get("delta", {})
        if event.type == "content_block_delta" and delta.get("type") == "text_delta":
            must(delta.get("text") != "", "a text_delta is empty")


@check("server", "streams", "should", "API: a thinking block ends with its signature")
def a_thinking_block_has_a_signature(s: Session) -> None:
    message = folded(s.stream("Say hello.", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1100))
    for block in message["content"]:
        if block["type"] == "thinking":
            must(block["signature"], "a thinking block has no signature")


@check("server", "streams", "should", "clients: proxies must not store a stream")
def a_stream_must_not_be_cached(s: Session) -> None:
    exchange = s.post(s.body("Say hello.", stream=True))
    events_of(exchange)
    control = exchange.headers.get("cache-control", "")
    must("no-cache" in control or "no-store" in control, f"cache-control is {control!r}")


@check("server", "streams", "should", "clients: a stream shows progress")
def a_stream_arrives_piece_by_piece(s: Session) -> None:
    exchange = s.post(s.body(_COUNT, stream=True))
    deltas = sum(event.type == "content_block_delta" for event in events_of(exchange))
    must(deltas < 8 or len(exchange.reads) > 2, f"{deltas} deltas arrived in {len(exchange.reads)} reads")


@check("server", "streams", "may", "clients: the same prompt at temperature 0")
def a_stream_and_a_whole_message_agree_at_temperature_zero(s: Session) -> None:
    whole = s.message(_COUNT, temperature=0, top_k=1)
    streamed = folded(s.stream(_COUNT, temperature=0, top_k=1))
    kinds = [[block["type"] for block in message["content"]] for message in (whole, streamed)]
    must(kinds[0] == kinds[1], f"the blocks are {kinds[0]} and {kinds[1]}")
    must(text_of(whole) == text_of(streamed), f"the texts are {text_of(whole)!r} and {text_of(streamed)!r}")


# --- counting ---


def _counted(s: Session, *messages: Json | str, **fields: Any) -> int:
    body = s.body(*messages, max_tokens=..., **fields)
    exchange = s.post(body, "/v1/messages/count_tokens")
    must(exchange.status == 200, f"status {exchange.status}, not 200")
    tokens = document(exchange).get("input_tokens")
    if type(tokens) is not int:
        fail(f"input_tokens is {tokens!r}, not a count")
    return tokens


@check("server", "count_tokens", "must", "API: Count tokens in a Message")
def a_prompt_is_counted(s: Session) -> None:
    must(_counted(s, "Say hello.") > 0, "input_tokens is 0")


@check("server", "count_tokens", "must", "API: Count tokens in a Message")
def a_longer_prompt_counts_more(s: Session) -> None:
    few, many = _counted(s, "Say hello."), _counted(s, "Say hello. " + "This makes the prompt longer. " * 20)
    must(many > few, f"{few} tokens for the short prompt, {many} for the long one")


@check("server", "count_tokens", "must", "API: tools and system are counted")
def tools_and_system_are_counted(s: Session) -> None:
    bare = _counted(s, "Say hello.")
    must(_counted(s, "Say hello.", tools=[WEATHER]) > bare, "a tool adds no token")
    must(_counted(s, "Say hello.", system="You are a helpful assistant.") > bare, "a system prompt adds no token")


@check("server", "count_tokens", "should", "API: the count is close to usage.input_tokens")
def the_count_is_close_to_the_usage(s: Session) -> None:
    prompt = "Say hello. " + "This makes the prompt longer. " * 20
    usage = s.message(prompt, max_tokens=1)["usage"]
    billed = usage["input_tokens"] + sum(usage.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    counted = _counted(s, prompt)
    must(abs(counted - billed) <= max(8, billed // 10), f"{counted} counted, {billed} in usage")


@check("server", "count_tokens", "must", "API: errors")
def a_broken_prompt_is_not_counted(s: Session) -> None:
    s.refusal({"model": s.model, "messages": "hello"}, 400, "invalid_request_error", "/v1/messages/count_tokens")


# --- models ---


@check("server", "models", "must", "API: List Models")
def models_are_listed(s: Session) -> None:
    page = document(s.get("/v1/models"))
    data = page.get("data")
    if not isinstance(data, list) or not data:
        fail("data is no list of models")
    must(all(isinstance(model, dict) and is_text(model.get("id")) for model in data), "a model has no id")


@check("server", "models", "should", "API: List Models; SDK ModelInfo")
def a_listed_model_has_the_fields_of_the_api(s: Session) -> None:
    page = document(s.get("/v1/models"))
    must(type(page.get("has_more")) is bool, "has_more is not a boolean")
    must("first_id" in page and "last_id" in page, "first_id or last_id is missing")
    for model in page["data"]:
        must(model.get("type") == "model", f"type is {model.get('type')!r}")
        must(is_text(model.get("display_name")), "display_name is not a text")
        must(is_text(model.get("created_at")), "created_at is not a text")


@check("server", "models", "should", "API: Get a Model")
def a_model_can_be_asked_for(s: Session) -> None:
    first = document(s.get("/v1/models"))["data"][0]["id"]
    model = document(s.get(f"/v1/models/{first}"))
    must(model.get("id") == first, f"id is {model.get('id')!r}, not {first!r}")


@check("server", "models", "should", "API: not_found_error")
def an_unknown_model_cannot_be_asked_for(s: Session) -> None:
    error_of(s.get("/v1/models/no-such-model-0000"), 404, "not_found_error")


# --- connections ---


@check("server", "connections", "must", "HTTP: RFC 9112 section 9.3")
def a_connection_serves_several_requests(s: Session) -> None:
    body = json.dumps(s.body("Say hello.")).encode()
    connection = s.client.connect()
    try:
        for turn in range(2):
            must(turn == 0 or connection.sock is not None, "the connection was closed after a response")
            exchange = s.client.begin(connection, "POST", "/v1/messages", body)
            message_of(s.note(s.client.receive(connection, exchange)))
    finally:
        connection.close()


@check("server", "connections", "must", "HTTP: RFC 9112 section 7.1")
def a_body_may_be_sent_in_chunks(s: Session) -> None:
    body = json.dumps(s.body("Say hello.")).encode()
    message_of(s.post(_pieces(body)))


def _pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 40):
        yield body[at : at + 40]


@check("server", "connections", "should", "HTTP: RFC 9110 section 10.1.1")
def a_client_may_expect_100_continue(s: Session) -> None:
    s.message("Say hello.", headers={"expect": "100-continue"})


@check("server", "connections", "must", "clients: cancelled requests")
def the_server_goes_on_after_a_client_left(s: Session) -> None:
    body = json.dumps(s.body(_COUNT, stream=True, max_tokens=64)).encode()
    connection = s.client.connect()
    s.client.begin(connection, "POST", "/v1/messages", body)
    response = connection.getresponse()
    response.read1(64)
    connection.close()
    s.message("Say hello.")


@check("server", "connections", "may", "clients: Claude Code asks HEAD / before it begins")
def the_root_answers_a_probe(s: Session) -> None:
    exchange = s.note(s.client.send("HEAD", "/"))
    must(exchange.status < 500, f"status {exchange.status}")
