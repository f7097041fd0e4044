"""Checks of the profile `gateway`: the suite is also the engine, and judges what the gateway makes of both sides.

A gateway is a server that speaks the Messages API to clients and OpenAI's chat completions to an engine. Authorities
are those of `server_checks`; "OpenAI" is OpenAI's reference of chat completions, "engines" is what vLLM, SGLang,
llama.cpp and others were seen to send.
"""

import json
from time import monotonic, sleep
from typing import Any, Final

from .check import WEATHER, Session, calls_of, check, error_of, events_of, fail, must, normalised, text_of
from .exchange import Exchange as Sent
from .exchange import Json
from .grammar import parse_events
from .scripted_engine import Exchange, broken, call, chunk, deltas, error, frames, message, raw, text
from .stream_rules import folded

_FLOOD: Final = 64 << 20  # bytes that the engine offers to a client that does not read
_BUFFERED: Final = 24 << 20  # bytes of them that buffers of a gateway and of the system may take


def _asked(s: Session) -> Json:
    """The chat request that reached the engine."""
    must(s.engine.asked, "the engine was not asked")
    return dict(s.engine.asked[-1].body)


def _whole(s: Session, *messages: Json | str, **fields: Any) -> Json:
    return s.message(*messages, **fields)


def _both(s: Session, *messages: Json | str, **fields: Any) -> list[Json]:
    """The message of a whole answer and that of a stream."""
    return [s.message(*messages, **fields), folded(s.stream(*messages, **fields))]


def _plain(content: Any) -> str:
    """The text of a chat message, whose content is a text or parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


def _roles(chat: Json) -> list[str]:
    return [turn["role"] for turn in chat["messages"]]


# --- what reaches the engine ---


@check("gateway", "request", "must", "API, OpenAI: roles and contents")
def the_conversation_reaches_the_engine(s: Session) -> None:
    s.message("One.", {"role": "assistant", "content": "Two."}, "Three.")
    chat = _asked(s)
    must(_roles(chat) == ["user", "assistant", "user"], f"the roles are {_roles(chat)}")
    must([_plain(turn["content"]) for turn in chat["messages"]] == ["One.", "Two.", "Three."], "texts differ")


@check("gateway", "request", "must", "API: system")
def the_system_prompt_comes_first(s: Session) -> None:
    s.message("Hi.", system=[{"type": "text", "text": "Be brief."}])
    first = _asked(s)["messages"][0]
    must(first["role"] in ("system", "developer"), f"the first role is {first['role']!r}")
    must(_plain(first["content"]) == "Be brief.", f"its text is {first['content']!r}")


@check("gateway", "request", "must", "API: max_tokens")
def max_tokens_reaches_the_engine(s: Session) -> None:
    s.message("Hi.", max_tokens=33)
    chat = _asked(s)
    limits = [chat[name] for name in ("max_tokens", "max_completion_tokens") if chat.get(name) is not None]
    must(limits and set(limits) == {33}, f"the engine was told {limits}")


@check("gateway", "request", "must", "API: sampling fields")
def sampling_reaches_the_engine(s: Session) -> None:
    s.message("Hi.", temperature=0.25, top_p=0.75)
    chat = _asked(s)
    must((chat.get("temperature"), chat.get("top_p")) == (0.25, 0.75), "temperature or top_p differ")


@check("gateway", "request", "must", "API: stop_sequences")
def stop_sequences_reach_the_engine_or_are_applied(s: Session) -> None:
    s.engine.set(text("one ", "EN", "D two"))
    answer = s.message("Hi.", stop_sequences=["END"])
    must(_asked(s).get("stop") in (["END"], "END") or text_of(answer) == "one ", "END was neither sent nor applied")


@check("gateway", "request", "must", "API, OpenAI: tools")
def tools_reach_the_engine(s: Session) -> None:
    s.message("Hi.", tools=[WEATHER])
    tools = _asked(s).get("tools") or [{}]
    function = tools[0].get("function", {})
    must(function.get("name") == "get_weather", f"the tools are {tools}")
    must(function.get("description") == WEATHER["description"], "the description differs")
    must(
        function.get("parameters", {}).get("properties") == WEATHER["input_schema"]["properties"], "the schema differs"
    )


@check("gateway", "request", "must", "API, OpenAI: tool_choice")
def the_choice_of_a_tool_reaches_the_engine(s: Session) -> None:
    s.engine.set(deltas(*call(0, "call_1", "get_weather", '{"city": "Rome"}'), finish="tool_calls"))
    s.message("Hi.", tools=[WEATHER], tool_choice={"type": "any"})
    must(_asked(s).get("tool_choice") == "required", f"any became {_asked(s).get('tool_choice')!r}")
    s.message("Hi.", tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"})
    choice = _asked(s).get("tool_choice")
    named = isinstance(choice, dict) and choice.get("function", {}).get("name") == "get_weather"
    must(named or choice == "required", f"the tool became {choice!r}")


@check("gateway", "request", "must", "API, OpenAI: tool calls and results")
def a_tool_result_follows_its_call(s: Session) -> None:
    use = {"type": "tool_use", "id": "toolu_7", "name": "get_weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_7", "content": "Sunny"}
    turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    s.message("Weather in Rome?", *turns, tools=[WEATHER])
    chat = _asked(s)
    at = next((at for at, turn in enumerate(chat["messages"]) if turn.get("tool_calls")), None)
    if at is None:
        fail("the call did not reach the engine")
    made = chat["messages"][at]["tool_calls"][0]
    must(json.loads(made["function"]["arguments"]) == {"city": "Rome"}, "the arguments differ")
    after = chat["messages"][at + 1] if at + 1 < len(chat["messages"]) else {}
    must(after.get("role") == "tool", f"role {after.get('role')!r} follows the call")
    must(after.get("tool_call_id") == made["id"], "the result has another id than the call")
    must(_plain(after.get("content")) == "Sunny", f"the result is {after.get('content')!r}")


@check("gateway", "request", "should", "clients: parallel calls; engines want all results before the next text")
def results_stand_before_the_text_of_their_turn(s: Session) -> None:
    uses = [{"type": "tool_use", "id": f"toolu_{n}", "name": "get_weather", "input": {"city": "R"}} for n in (1, 2)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": f"r{n}"} for n in (2, 1)]
    said = {"type": "text", "text": "And now?"}
    turns = [{"role": "assistant", "content": uses}, {"role": "user", "content": [said, *results]}]
    s.message("Weather?", *turns, tools=[WEATHER])
    roles = _roles(_asked(s))
    must(roles[-3:] == ["tool", "tool", "user"], f"the roles end with {roles[-3:]}")


@check("gateway", "request", "should", "API, OpenAI: images")
def an_image_reaches_the_engine(s: Session) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    exchange = s.post(s.body({"role": "user", "content": [{"type": "image", "source": source}]}))
    if exchange.status != 200:
        error_of(exchange, 400)
        return
    parts = _asked(s)["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    must(urls == ["data:image/png;base64,iVBORw0KGgo="], f"the engine got {parts}")


@check("gateway", "request", "should", "OpenAI: stream_options; usage is in the last chunk only if it is asked for")
def the_usage_of_a_stream_is_asked_for(s: Session) -> None:
    s.stream("Hi.")
    must(
        (_asked(s).get("stream_options") or {}).get("include_usage") is True, "stream_options.include_usage is not true"
    )


@check("gateway", "request", "should", "engines: each new connection costs a round trip")
def connections_to_the_engine_are_used_again(s: Session) -> None:
    for _ in range(3):
        s.message("Hi.")
    must(len(s.engine.connections) < 3, "three requests used three connections")


# --- what reaches the client ---


@check("gateway", "answer", "must", "API, OpenAI: text")
def text_reaches_the_client(s: Session) -> None:
    s.engine.set(text("Hel", "lo ", "wörld 🙂"))
    for answer in _both(s, "Hi."):
        must(text_of(answer) == "Hello wörld 🙂", f"the text is {text_of(answer)!r}")


@check("gateway", "answer", "must", "API, OpenAI: usage")
def the_counts_of_the_engine_reach_the_client(s: Session) -> None:
    for answer in _both(s, "Hi."):
        usage = answer["usage"]
        must((usage["input_tokens"], usage["output_tokens"]) == (11, 7), f"usage is {usage}")


@check("gateway", "answer", "should", "API: cached tokens are not in input_tokens")
def cached_tokens_are_told_apart(s: Session) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}}
    s.engine.set(deltas({"content": "Hi."}, usage=usage))
    for answer in _both(s, "Hi."):
        told = answer["usage"]
        must(told.get("cache_read_input_tokens") == 60, f"usage is {told}")
        must(told["input_tokens"] == 40, f"usage is {told}")


def _maps(finish: str, reason: str, weight: Any) -> None:
    """Register a check that a finish reason becomes a stop reason."""

    def run(s: Session) -> None:
        made = call(0, "call_1", "get_weather", "{}") if finish == "tool_calls" else [{"content": "Hi."}]
        s.engine.set(deltas(*made, finish=finish))
        for answer in _both(s, "Hi.", tools=[WEATHER]):
            must(answer["stop_reason"] == reason, f"stop_reason is {answer['stop_reason']!r}")

    run.__name__ = f"finish_reason_{finish}_becomes_{reason}"
    check("gateway", "answer", weight, "API, OpenAI: finish_reason")(run)


_maps("stop", "end_turn", "must")
_maps("length", "max_tokens", "must")
_maps("tool_calls", "tool_use", "must")
_maps("content_filter", "refusal", "should")


@check("gateway", "answer", "must", "API, OpenAI: tool calls in pieces")
def a_call_in_pieces_is_joined(s: Session) -> None:
    s.engine.set(deltas(*call(0, "call_1", "get_weather", '{"ci', 'ty": "Ro', 'me"}'), finish="tool_calls"))
    for answer in _both(s, "Weather?", tools=[WEATHER]):
        must([made["input"] for made in calls_of(answer)] == [{"city": "Rome"}], f"content is {answer['content']}")


@check("gateway", "answer", "must", "API, OpenAI: parallel calls")
def parallel_calls_stay_apart(s: Session) -> None:
    made = call(0, "call_1", "get_weather", '{"city": "A"}') + call(1, "call_2", "get_weather", '{"city": "B"}')
    s.engine.set(deltas(*made, finish="tool_calls"))
    for answer in _both(s, "Weather?", tools=[WEATHER]):
        calls = calls_of(answer)
        must([one["input"] for one in calls] == [{"city": "A"}, {"city": "B"}], f"content is {answer['content']}")
        must(len({one["id"] for one in calls}) == 2, "both calls have one id")


@check("gateway", "answer", "must", "engines: a call without arguments")
def a_call_without_arguments_has_an_empty_input(s: Session) -> None:
    s.engine.set(deltas(*call(0, "call_1", "get_weather"), finish="tool_calls"))
    for answer in _both(s, "Weather?", tools=[WEATHER]):
        must([made["input"] for made in calls_of(answer)] == [{}], f"content is {answer['content']}")


@check("gateway", "answer", "must", "engines: vLLM and others end a call with finish_reason stop")
def a_call_that_ends_with_stop_is_a_tool_use(s: Session) -> None:
    s.engine.set(deltas(*call(0, "call_1", "get_weather", "{}"), finish="stop"))
    for answer in _both(s, "Weather?", tools=[WEATHER]):
        must(answer["stop_reason"] == "tool_use", f"stop_reason is {answer['stop_reason']!r}")


@check("gateway", "answer", "must", "API: text before a call")
def text_before_a_call_is_kept(s: Session) -> None:
    s.engine.set(deltas({"content": "I look."}, *call(0, "call_1", "get_weather", "{}"), finish="tool_calls"))
    for answer in _both(s, "Weather?", tools=[WEATHER]):
        kinds = [block["type"] for block in answer["content"]]
        must(kinds == ["text", "tool_use"], f"the blocks are {kinds}")


def _thinks(field: str, weight: Any) -> None:
    """Register a check that reasoning in a field becomes a thinking block."""

    def run(s: Session) -> None:
        s.engine.set(deltas({field: "Hm, "}, {field: "well."}, {"content": "Hi."}))
        for answer in _both(s, "Hi.", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048):
            thought = "".join(block["thinking"] for block in answer["content"] if block["type"] == "thinking")
            must(thought == "Hm, well.", f"content is {answer['content']}")
            must(text_of(answer) == "Hi.", f"content is {answer['content']}")

    run.__name__ = f"{field}_becomes_thinking"
    check("gateway", "answer", weight, "engines: reasoning; API: thinking blocks")(run)


_thinks("reasoning_content", "must")
_thinks("reasoning", "should")


# --- hostile streams ---


@check("gateway", "streams", "must", "SSE: line ends, comments, no space after the colon")
def all_forms_of_events_are_read(s: Session) -> None:
    usual = frames([{"content": "a"}, {"content": "b"}])
    odd = b"".join(usual).replace(b"data: ", b": comment\r\ndata:").replace(b"\n\n", b"\r\n\r\n")
    s.engine.set(raw(odd))
    must(text_of(folded(s.stream("Hi."))) == "ab", "the text differs")


@check("gateway", "streams", "must", "HTTP: bytes may arrive in any pieces")
def a_stream_may_arrive_byte_by_byte(s: Session) -> None:
    body = b"".join(frames([{"content": "wörld 🙂"}]))
    s.engine.set(raw(*(body[at : at + 1] for at in range(len(body)))))
    must(text_of(folded(s.stream("Hi."))) == "wörld 🙂", "the text differs")


@check("gateway", "streams", "must", "engines: a stream without [DONE]")
def a_stream_may_end_without_done(s: Session) -> None:
    s.engine.set(raw(*frames([{"content": "Hi."}])[:-1]))
    must(text_of(folded(s.stream("Hi."))) == "Hi.", "the text differs")


@check("gateway", "streams", "must", "engines: vLLM sends usage in each chunk with continuous_usage_stats")
def usage_may_be_in_each_chunk(s: Session) -> None:
    counted = [
        chunk({"content": c}, None, {"prompt_tokens": 11, "completion_tokens": n}) for n, c in enumerate("abc", 1)
    ]
    body = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in (*counted, chunk({}, "stop"))]
    s.engine.set(raw(*body, b"data: [DONE]\n\n"))
    answer = folded(s.stream("Hi."))
    must((text_of(answer), answer["usage"]["output_tokens"]) == ("abc", 3), f"{text_of(answer)!r}, {answer['usage']}")


@check("gateway", "streams", "must", "API: error events; a stream that breaks off must not look whole")
def a_stream_that_breaks_off_ends_with_an_error(s: Session) -> None:
    s.engine.set(broken(*frames([{"content": "one "}, {"content": "two"}])[:3]))
    exchange = s.post(s.body("Hi.", stream=True))
    if exchange.status != 200:
        error_of(exchange)
        return
    kinds = [] if exchange.cut else [event.type for event in parse_events(normalised(exchange.body))]
    must("message_stop" not in kinds, "the stream looks complete")
    must(exchange.cut or kinds[-1:] == ["error"], f"the last event is {kinds[-1] if kinds else 'none'}")


@check("gateway", "streams", "must", "engines: an error chunk between tokens")
def an_error_between_tokens_reaches_the_client(s: Session) -> None:
    told = b'data: {"error": {"message": "the engine ran out of memory", "type": "server_error", "code": 500}}\n\n'
    s.engine.set(raw(*frames([{"content": "one "}])[:2], told))
    events = events_of(s.post(s.body("Hi.", stream=True)))
    kinds = [event.type for event in events]
    must(kinds[-1:] == ["error"], f"the last event is {kinds[-1] if kinds else 'none'}")


@check("gateway", "streams", "must", "SDK: pieces of a stream are passed on at once")
def a_token_is_passed_on_before_the_next(s: Session) -> None:
    first, *rest = frames([{"content": "one "}, {"content": "two"}])

    def slow(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.write(first + rest[0])
        sleep(1.0)
        for frame in rest[1:]:
            exchange.write(frame)
        exchange.end()

    s.engine.set(slow)
    exchange = s.post(s.body("Hi.", stream=True))
    folded(events_of(exchange))
    early = b"".join(piece for at, piece in exchange.reads if at < exchange.reads[-1][0] - 0.5)
    must(b"one " in early, "the first token arrived together with the last")


# --- errors of the engine ---


def _becomes(name: str, answer: Any, statuses: tuple[int, ...], kinds: tuple[str, ...], weight: Any) -> None:
    """Register a check that a refusal of the engine becomes one of these statuses and types, streamed or not."""

    def run(s: Session) -> None:
        for streams in (False, True):
            s.engine.set(answer)
            exchange = s.post(s.body("Hi.", stream=streams))
            failure = error_of(exchange)
            must(exchange.status in statuses, f"status {exchange.status}, not {statuses}")
            must(failure["type"] in kinds, f"error.type is {failure['type']!r}")

    run.__name__ = name
    check("gateway", "engine errors", weight, "API: errors; SDK: which statuses are tried again")(run)


def _openai(text: str, kind: str, code: Any) -> Json:
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


_BUSY: Final = ("rate_limit_error", "overloaded_error")
_BROKEN: Final = ("api_error", "overloaded_error")
_WINDOW: Final = _openai(
    "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens (39952 in the messages, "
    "48 in the completion). Please reduce the length of the messages or completion.",
    "BadRequestError",
    "context_length_exceeded",
)

_becomes(
    "a_busy_engine_is_an_error_that_is_tried_again",
    error(429, _openai("slow down", "rate_limit", 429), ("retry-after", "0")),
    (429, 529),
    _BUSY,
    "must",
)
_becomes(
    "an_engine_that_fails_is_an_error_that_is_tried_again",
    error(500, _openai("boom", "server_error", 500)),
    (500, 502, 503, 529),
    _BROKEN,
    "must",
)
_becomes(
    "an_engine_that_is_down_is_an_error_that_is_tried_again",
    error(503, b"<html>Service Unavailable</html>"),
    (500, 502, 503, 529),
    _BROKEN,
    "must",
)
_becomes(
    "a_page_instead_of_an_answer_is_an_error",
    lambda exchange: exchange.whole(200, b"<html>Welcome</html>", "text/html"),
    (500, 502, 503, 529),
    _BROKEN,
    "must",
)
_becomes(
    "a_connection_that_ends_before_the_answer_is_an_error",
    lambda exchange: exchange.reset(),
    (500, 502, 503, 504, 529),
    _BROKEN,
    "must",
)
_becomes(
    "a_prompt_beyond_the_window_is_an_invalid_request",
    error(400, _WINDOW),
    (400, 413),
    ("invalid_request_error", "request_too_large"),
    "must",
)


@check("gateway", "engine errors", "should", "clients: Claude Code compacts when it reads `prompt is too long`")
def a_prompt_beyond_the_window_is_told_in_the_words_of_the_api(s: Session) -> None:
    s.engine.set(error(400, _WINDOW))
    failure = error_of(s.post(s.body("Hi.")))
    must("prompt is too long" in failure["message"].lower(), f"the message is {failure['message']!r}")


@check("gateway", "engine errors", "should", "API: the engine's own key is the operator's matter")
def a_refused_key_of_the_engine_is_no_401_of_the_client(s: Session) -> None:
    s.engine.set(error(401, _openai("Incorrect API key", "invalid_request_error", "invalid_api_key")))
    exchange = s.post(s.body("Hi."))
    error_of(exchange)
    must(exchange.status not in (401, 403), f"status {exchange.status}")


# --- cancellation and back-pressure ---


@check("gateway", "cancellation", "must", "clients: a cancelled answer must free the engine")
def the_engine_is_freed_when_the_client_leaves(s: Session) -> None:
    ended: list[bool] = []

    def endless(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        for frame in frames([{"content": "one "}, {"content": "two "}])[:3]:
            exchange.write(frame)
        ended.append(exchange.wait_for_the_end())
        s.engine.left.set()

    s.engine.set(endless)
    body = json.dumps(s.body("Hi.", stream=True)).encode()
    connection = s.client.connect()
    sent = s.note(s.client.begin(connection, "POST", "/v1/messages", body))
    _read_until(connection, sent, b"two")
    connection.close()
    must(s.engine.left.wait(11), "the engine still answers ten seconds after the client left")
    must(ended == [True], "the connection to the engine is still open ten seconds after the client left")


def _read_until(connection: Any, sent: Sent, words: bytes) -> None:
    response = connection.getresponse()
    sent.status = response.status
    until = monotonic() + 10
    while words not in sent.body:
        piece = response.read1(4096)
        must(piece and monotonic() < until, f"{words!r} did not arrive")
        sent.body += piece


@check("gateway", "cancellation", "should", "clients: a client that stops reading must not fill the memory")
def a_client_that_does_not_read_slows_the_engine(s: Session) -> None:
    frame = b"data: " + json.dumps(chunk({"content": "x" * 60_000})).encode() + b"\n\n"
    offered: list[Exchange] = []

    def flood(exchange: Exchange) -> None:
        offered.append(exchange)
        exchange.head(200, "text/event-stream")
        while exchange.written < _FLOOD:
            exchange.write(frame)

    s.engine.set(flood)
    body = json.dumps(s.body("Hi.", stream=True, max_tokens=64)).encode()
    connection = s.client.connect()
    try:
        s.note(s.client.begin(connection, "POST", "/v1/messages", body))
        before, until = -1, monotonic() + 20
        while not offered or offered[0].written != before:  # until the engine writes no more
            must(monotonic() < until, "the engine could write for 20 seconds")
            before = offered[0].written if offered else -1
            sleep(0.5)
    finally:
        connection.close()
    must(offered[0].written < _BUFFERED, f"{offered[0].written >> 20} MiB were taken from the engine")


@check("gateway", "cancellation", "must", "API: whole answers")
def an_answer_of_a_megabyte_arrives_whole(s: Session) -> None:
    words = "lorem ipsum " * 90_000
    s.engine.set(lambda exchange: exchange.whole(200, message([{"content": words}], "stop"), "application/json"))
    must(text_of(_whole(s, "Hi.")) == words, "the text differs")
