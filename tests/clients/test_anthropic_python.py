"""Anthropic's SDK for Python: its tool runner, and single requests for the fields that few clients send."""

import base64
import json
import os
import subprocess
from urllib.request import urlopen

import pytest

from anthro_asgi.settings.options import PREFIX
from tests.clients.client import Client
from tests.clients.engine import USAGE, Json, call, delta, finish, last_role, refusal, text
from tests.clients.scenario import PARIS, REPORT, SUNNY, said, served, weather
from tests.support.service import AT_ONCE, COMMAND, Service
from tests.support.upstream import json_answer, sse

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
TOOL: Json = {"name": "look", "description": "Look.", "input_schema": {"type": "object"}}


DRIVER = "anthropic_python"


@BOTH
def test_an_agent_loop(client: Client, stream: bool) -> None:
    with served(weather) as s:
        outcome = client.run(s.url, stream=stream)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])
        outcome = client.run(s.url, stream=stream, structured=True, tools=[])
        assert (outcome.error, outcome.structured) == (None, REPORT)


# --- turns and history ---


@pytest.mark.fault("A2")
def test_a_user_turn_after_a_tool_result_is_moved_for_a_template_that_refuses_it(client: Client) -> None:
    def play(body: Json, number: int) -> bytes:
        if last_role(body) == "user" and body["messages"][-2]["role"] == "tool":
            return refusal(400, "Unexpected role 'user' after role 'tool'", type="invalid_request_message_order")
        return text(f"Answer {number}")

    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": PARIS}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
    history = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    with served(play) as s:
        for _ in range(2):
            outcome = client.run(s.url, history=history, prompt="And now?")
            assert outcome.error is None
        assert len(s.engine.chats) == 3, "the second request is asked in the right form at once"
        last = s.engine.chats[-1]["messages"][-1]
        assert last["role"] == "tool"
        assert "Sunny" in last["content"]
        assert "And now?" in last["content"]


@pytest.mark.fault("A2")
@BOTH
def test_a_template_of_mistral_gets_the_text_and_the_picture_behind_a_result(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        # as the template: neither calls nor results count
        turns = [turn["role"] for turn in body["messages"] if turn["role"] != "tool" and "tool_calls" not in turn]
        if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2):
            return refusal(400, "After the optional system message, conversation roles must alternate user/assistant/…")
        return text(f"Answer {number}")

    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": PARIS}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "image", "source": source}]}
    history = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    with served(play) as s:
        for _ in range(2):
            assert client.run(s.url, history=history, prompt="And now?", stream=stream).error is None
        assert len(s.engine.chats) == 3
        last = s.engine.chats[-1]["messages"]
        assert [turn["role"] for turn in last] == ["user", "assistant", "tool", "assistant", "user"]
        assert "And now?" in said(s.engine.chats[-1])


@pytest.mark.fault("A9")
@BOTH
def test_tools_are_added_and_removed_in_mid_conversation(client: Client, stream: bool) -> None:
    answers = [call("weather", json.dumps(PARIS)), call("clock", "{}", "call_2"), text("Done")]
    with served(lambda body, number: answers[number]) as s:
        outcome = client.run(s.url, kind="changing", stream=stream)
        assert (outcome.error, outcome.text) == (None, "Done")
        assert [call["name"] for call in outcome.calls] == ["weather", "clock"]
        offered = [sorted(tool["function"]["name"] for tool in chat["tools"]) for chat in s.engine.chats]
        assert offered == [["weather"], ["clock", "weather"], ["clock"]]


FOREIGN_HISTORY: list[Json] = [
    {"role": "user", "content": "What was this about?"},
    {"role": "assistant", "content": [{"type": "compaction", "content": "SUMMARY: a journey to Paris."}]},
    {"role": "user", "content": "Go on."},
    {
        "role": "assistant",
        "content": [
            {"type": "fallback", "from": {"model": "one"}, "to": {"model": "two"}},
            {"type": "mcp_tool_listing", "mcp_server_name": "sky", "tools": []},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "advisor", "input": {}},
            {
                "type": "advisor_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": {"type": "advisor_result", "text": "ADVICE: take the train."},
            },
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [
                    {"type": "text", "text": "A page."},
                    {
                        "type": "browser_state",
                        "tabs": [{"tab_id": "1", "title": "TIMETABLE", "url": "http://rail.test/", "active": True}],
                    },
                ],
            }
        ],
    },
    {"role": "system", "output_config": {"effort": "low"}},
    {"role": "user", "content": "Well?"},
]


@pytest.mark.fault("A10")
@BOTH
def test_a_session_that_began_elsewhere_goes_on(client: Client, stream: bool) -> None:
    params = {"messages": FOREIGN_HISTORY, "tools": [TOOL]}
    with served(lambda body, number: text("By train.")) as s:
        outcome = client.run(s.url, kind="create", beta=True, stream=stream, params=params)
        assert (outcome.error, outcome.text) == (None, "By train.")
        prompt = json.dumps(s.engine.chats[0]["messages"])
        for words in ("SUMMARY", "ADVICE", "TIMETABLE", "Well?"):
            assert words in prompt
        for words in ("What was this about?", "fallback", "mcp_tool_listing"):
            assert words not in prompt


# --- how an answer ends ---


@pytest.mark.fault("A11")
@BOTH
@pytest.mark.parametrize("reason", ["insufficient_system_resource", "aborted", "network_error", "engine_error_17"])
def test_an_answer_that_broke_off_is_an_error(client: Client, stream: bool, reason: str) -> None:
    with served(lambda body, number: text("Half of", reason=reason)) as s:
        outcome = client.run(s.url, kind="create", stream=stream, params={})
        assert outcome.error is not None
        assert outcome.error["kind"] in ("APIStatusError", "InternalServerError"), outcome.error


@pytest.mark.fault("A11")
@BOTH
def test_finish_reasons_of_vendors_keep_their_meaning(client: Client, stream: bool) -> None:
    reasons = {
        "model_length": "max_tokens",
        "model_context_window_exceeded": "max_tokens",
        "sensitive": "refusal",
        "SAFETY": "refusal",
        "eos": "end_turn",
    }
    with served(lambda body, number: text("Hello", reason=said(body))) as s:
        for reason, expected in reasons.items():
            outcome = client.run(s.url, kind="create", stream=stream, prompt=reason, params={})
            assert outcome.error is None
            assert (reason, outcome.fields["message"]["stop_reason"]) == (reason, expected)


@pytest.mark.fault("A11")
@BOTH
def test_a_call_that_was_lost_is_an_error_and_not_an_empty_answer(client: Client, stream: bool) -> None:
    lost = sse(delta(role="assistant", content=None), finish("tool_calls"), USAGE)
    with served(lambda body, number: lost) as s:
        outcome = client.run(s.url, kind="create", stream=stream, params={"tools": [TOOL]})
        assert outcome.error is not None


@pytest.mark.fault("B20")
@BOTH
def test_late_reasoning_does_not_end_the_answer(client: Client, stream: bool) -> None:
    late = sse(delta(content="Forty-two."), delta(reasoning="That was easy."), finish("stop"), USAGE)
    with served(lambda body, number: late) as s:
        outcome = client.run(s.url, kind="create", stream=stream, params={})
        assert [block["type"] for block in outcome.fields["message"]["content"]] == ["text"]


# --- fields of the request ---


@pytest.mark.fault("B13")
def test_strict_tools_reach_an_engine_that_knows_them(client: Client) -> None:
    with served(lambda body, number: text("Done"), "--dialect", "vllm") as s:
        outcome = client.run(s.url, kind="create", params={"tools": [{**TOOL, "strict": True}]})
        assert outcome.error is None
        assert s.engine.chats[0]["tools"][0]["function"]["strict"] is True


@pytest.mark.fault("B14")
def test_a_deferred_tool_is_offered_once_a_result_refers_to_it(client: Client) -> None:
    search = {**TOOL, "name": "tool_search", "description": "Finds tools."}
    deferred = {**TOOL, "name": "far", "defer_loading": True}
    question: list[Json] = [{"role": "user", "content": "Hello"}]
    use = {"type": "tool_use", "id": "toolu_1", "name": "tool_search", "input": {}}
    found = [{"type": "tool_reference", "tool_name": "far"}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": found}
    loaded = [*question, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    with served(lambda body, number: text("Done")) as s:
        for messages in (question, loaded):
            params = {"tools": [search, deferred], "messages": messages}
            assert client.run(s.url, kind="create", beta=True, params=params).error is None
        offered = [[tool["function"]["name"] for tool in chat["tools"]] for chat in s.engine.chats]
        assert offered == [["tool_search"], ["tool_search", "far"]]


@pytest.mark.fault("B15")
def test_what_has_no_effect_is_named_and_what_would_change_the_answer_is_refused(client: Client) -> None:
    found = [{"type": "text", "text": "One."}]
    cited = {"type": "search_result", "source": "s", "title": "t", "content": found, "citations": {"enabled": True}}
    question = {"role": "user", "content": [cited, {"type": "text", "text": "Hello"}]}
    with served(lambda body, number: text("Done")) as s:
        params: Json = {"inference_geo": "us", "messages": [question]}
        outcome = client.run(s.url, kind="create", beta=True, params=params)
        assert outcome.error is None
        ignored = outcome.fields["headers"]["anthro-asgi-ignored"].split(", ")
        assert sorted(ignored) == ["citations", "inference_geo"]
        server = {"type": "url", "url": "http://mcp.test", "name": "x"}
        outcome = client.run(s.url, kind="create", beta=True, params={"mcp_servers": [server]})
        assert outcome.error is not None
        assert outcome.error["status"] == 400
        assert "mcp_servers" in outcome.error["message"]


@pytest.mark.fault("B16")
def test_web_search_is_refused_and_not_dropped(client: Client) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    with served(lambda body, number: text("Invented"), "--server-tools", "drop") as s:
        for tools in ([search], [TOOL, search]):
            outcome = client.run(s.url, kind="create", params={"tools": tools})
            assert outcome.error is not None
            assert outcome.error["status"] == 400
        assert s.engine.chats == []


@pytest.mark.fault("B17")
def test_thinking_between_tools_is_accepted_and_disabled_thinking_wins_over_an_effort(client: Client) -> None:
    with served(lambda body, number: text("Done"), "--dialect", "vllm") as s:
        between = {"thinking": {"type": "between_tools"}, "tools": [TOOL]}
        disabled = {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}
        for params in (between, disabled):
            assert client.run(s.url, kind="create", beta=True, params=params).error is None
        on, off = s.engine.chats
        assert on["chat_template_kwargs"]["enable_thinking"] is True
        assert off["chat_template_kwargs"]["enable_thinking"] is False
        assert "reasoning_effort" not in off


@pytest.mark.fault("B22", "D29")
def test_sampling_fields_reach_an_unknown_engine(client: Client) -> None:
    with served(lambda body, number: text("Done")) as s:
        assert client.run(s.url, kind="create", params={"extra_body": {"top_k": 7, "top_p": 0.5}}).error is None
        assert client.run(s.url, kind="create", params={"extra_body": {"top_p": 0}}).error is None
        first, second = s.engine.chats
        assert (first["top_k"], first["top_p"]) == (7, 0.5)
        assert "top_p" not in second
        assert second["temperature"] == 0


@pytest.mark.fault("B24")
def test_documents_model_pages_and_doubled_slashes(client: Client) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The sea is blue."}
    content = [{"type": "document", "title": "Colours", "source": source}, {"type": "text", "text": "Which colour?"}]
    with served(lambda body, number: text("Blue")) as s:
        params = {"messages": [{"role": "user", "content": content}]}
        outcome = client.run(f"{s.url}//", kind="create", params=params)
        assert (outcome.error, outcome.text) == (None, "Blue")
        sent = said(s.engine.chats[0])
        assert "Colours" in sent
        assert "The sea is blue.Which" not in sent.replace("\n", "")
        assert client.run(s.url, kind="models", params={}).fields["models"] == ["local"]
        outcome = client.run(s.url, kind="models", params={"after_id": "unknown"})
        assert (outcome.error, outcome.fields["models"]) == (None, [])


@pytest.mark.fault("D27")
@BOTH
def test_a_stop_sequence_does_not_match_in_a_tools_input(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        if body.get("stop"):  # as vLLM answers: the call is cut, and the finish reason is stop
            function = {"name": "look", "arguments": '{"city": "'}
            calls = [{"index": 0, "id": "c", "type": "function", "function": function}]
            return sse(delta(tool_calls=calls), {**finish("stop"), "stop_reason": "Paris"}, USAGE)
        return call("look", json.dumps(PARIS))

    with served(play, "--dialect", "vllm") as s:
        params = {"tools": [TOOL], "stop_sequences": ["Paris"]}
        outcome = client.run(s.url, kind="create", stream=stream, params=params)
        assert outcome.error is None
        message = outcome.fields["message"]
        assert message["stop_reason"] == "tool_use"
        assert [block["input"] for block in message["content"]] == [PARIS]


# --- usage ---

LATE: Json = {"prompt_tokens": 900, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 400}}
ZEROS: Json = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
END: Json = finish("stop")
PLACES: dict[str, tuple[Json, ...]] = {
    "the choice": ({**END, "choices": [{**END["choices"][0], "usage": LATE}]},),
    "x_groq": ({**END, "x_groq": {"usage": LATE}},),
    "cached_tokens": (END, {"choices": [], "usage": {**LATE, "prompt_tokens_details": None, "cached_tokens": 400}}),
    "zeros behind it": (END, {"choices": [], "usage": LATE}, {"choices": [], "usage": ZEROS}),
}


@pytest.mark.fault("B18")
@BOTH
def test_usage_is_read_wherever_it_stands(client: Client, stream: bool) -> None:
    def play(body: Json, number: int) -> bytes:
        return sse(delta(content="Hello"), *PLACES[said(body)])

    with served(play) as s:
        for place in PLACES:
            outcome = client.run(s.url, kind="create", stream=stream, prompt=place, params={})
            assert (place, outcome.error) == (place, None)
            assert counts(outcome.fields["message"]) == (500, 9, 400)


@pytest.mark.fault("B18", "D35")
@BOTH
def test_thinking_tokens_and_tokens_written_to_the_cache_are_reported(client: Client, stream: bool) -> None:
    details = {"cached_tokens": 400, "created_cache_tokens": 300}
    usage = {**LATE, "prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": 5}}
    answer = sse(delta(reasoning="Hm."), delta(content="Hello"), END, {"choices": [], "usage": usage})
    with served(lambda body, number: answer) as s:
        outcome = client.run(s.url, kind="create", beta=True, stream=stream, params={})
        message = outcome.fields["message"]
        assert counts(message) == (200, 9, 400)
        assert message["usage"]["cache_creation_input_tokens"] == 300
        assert message["usage"]["output_tokens_details"]["thinking_tokens"] == 5


def counts(message: Json) -> tuple[int, int, int]:
    usage = message["usage"]
    return usage["input_tokens"], usage["output_tokens"], usage["cache_read_input_tokens"]


# --- errors ---

ERRORS: dict[str, tuple[bytes, str, int]] = {
    "a rate limit in words": (
        sse({"error": {"message": "Slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}),
        "RateLimitError",
        429,
    ),
    "an overload in words": (
        sse({"error": {"message": "Overloaded", "type": "overloaded_error"}}),
        "OverloadedError",
        529,
    ),
    "a mistake in words": (
        sse({"error": {"message": "Bad image", "type": "invalid_request_error"}}),
        "BadRequestError",
        400,
    ),
    "MiniMax": (
        json_answer(200, {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
        "RateLimitError",
        429,
    ),
    "no credit": (
        json_answer(402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
        "PaymentRequiredError",
        402,
    ),
}


@pytest.mark.fault("B21")
@BOTH
def test_errors_keep_their_meaning(client: Client, stream: bool) -> None:
    with served(lambda body, number: ERRORS[said(body)][0]) as s:
        for name, (_, kind, status) in ERRORS.items():
            outcome = client.run(s.url, kind="create", stream=stream, prompt=name, params={})
            assert outcome.error is not None, name
            assert (name, outcome.error["kind"], outcome.error["status"]) == (name, kind, status)


@pytest.mark.fault("D31")
@BOTH
def test_a_streamed_overflow_that_is_an_empty_200_says_that_the_prompt_is_too_long(
    client: Client, stream: bool
) -> None:
    """llama-cpp-python tells the reason only to a request without a stream."""

    def play(body: Json, number: int) -> bytes:
        if body.get("stream"):
            return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n"
        words = "This model's maximum context length is 512 tokens. However, you requested 1100 tokens (600 in the"
        return refusal(400, f"{words} messages, 500 in the completion).", code="context_length_exceeded")

    with served(play, "--dialect", "llama-cpp-python") as s:
        outcome = client.run(s.url, kind="create", stream=stream, params={})
        assert outcome.error is not None
        assert outcome.error["status"] == 400
        assert "prompt is too long" in outcome.error["message"]


@pytest.mark.fault("A8")
@pytest.mark.parametrize(
    "words",
    ["At most 0 image(s) may be provided in one prompt.", "Model only supports text input; received unsupported type"],
)
def test_a_picture_that_the_model_cannot_read_is_named(client: Client, words: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
    params = {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]}
    with served(lambda body, number: refusal(400, words)) as s:
        outcome = client.run(s.url, kind="create", params=params)
        assert outcome.error is not None
        assert "could not process image" in outcome.error["message"]


@pytest.mark.fault("D30")
@BOTH
def test_an_engine_is_recognised_by_its_paths_and_gets_only_its_own_fields(client: Client, stream: bool) -> None:
    def transformers(body: Json, number: int) -> bytes:
        foreign = body.keys() & {"stream_options", "tool_choice", "parallel_tool_calls", "user", "top_k"}
        return refusal(422, f"Unexpected fields in the request: {foreign}") if foreign else weather(body, number)

    paths: Json = {path: {} for path in ("/v1/chat/completions", "/v1/models", "/load_model", "/reset")}
    schema = json_answer(200, {"info": {"title": "FastAPI"}, "paths": paths})
    params: Json = {"extra_body": {"top_k": 5}, "metadata": {"user_id": "u"}, "tool_choice": {"type": "auto"}}
    with served(transformers, others={"/openapi.json": lambda body: schema}) as s:
        outcome = client.run(s.url, stream=stream, params=params)
        assert (outcome.error, outcome.text, outcome.inputs) == (None, SUNNY, [PARIS])
        assert len(s.engine.chats) == 2, "no request was refused"


@pytest.mark.fault("D32")
def test_the_check_passes_on_a_messages_api_that_the_client_can_use(client: Client) -> None:
    with Service("--simulate", *AT_ONCE) as upstream, Service("--upstream", f"{upstream.url}/v1") as service:
        assert client.run(service.url, kind="create", params={}).error is None
        status, report = check(f"{upstream.url}/v1")
        assert status == 0, report
        assert "called when it is forced" in report


@pytest.mark.fault("D32")
def test_the_check_finds_an_engine_whose_tools_are_off(client: Client) -> None:
    words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'

    def without_tools(body: Json, number: int) -> bytes:
        return refusal(400, words) if body.get("tools") else text("Hello")

    models = {"object": "list", "data": [{"id": "local", "object": "model", "owned_by": "vllm"}]}
    with served(without_tools, models=models) as s:
        assert client.run(s.url, kind="create", params={}).text == "Hello"
        _, report = check(f"{s.engine.url}/v1")
        assert "--enable-auto-tool-choice" in report


def check(url: str) -> tuple[int, str]:
    """The exit status of `anthro-asgi check`, and its report."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = subprocess.run([*COMMAND, "check", "--upstream", url], capture_output=True, text=True, env=environ)
    return done.returncode, done.stdout + done.stderr


# --- a relay ---


@pytest.mark.fault("D34")
@BOTH
def test_a_relay_asks_for_an_answer_that_fits_and_counts_what_is_asked(client: Client, stream: bool) -> None:
    asked: list[Json] = []
    counted: list[Json] = []

    def messages(body: Json) -> bytes:
        asked.append(body)
        if body["max_tokens"] > 400:
            words = f"max_tokens: {body['max_tokens']} > 400, which is the maximum allowed number of output tokens"
            error = {"type": "invalid_request_error", "message": f"{words} for local"}
            return json_answer(400, {"type": "error", "error": error})
        message: Json = {"type": "message", "role": "assistant", "id": "msg_1", "model": "local", "stop_sequence": None}
        message |= {"content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
        return json_answer(200, message | {"usage": {"input_tokens": 9, "output_tokens": 3}})

    def count(body: Json) -> bytes:
        counted.append(body)
        return json_answer(200, {"input_tokens": 9})

    entry = {"type": "model", "id": "local", "display_name": "Local", "max_input_tokens": 1000, "max_tokens": 400}
    others = {"/v1/messages": messages, "/v1/messages/count_tokens": count}
    options = ("--upstream-api", "messages")
    models = {"data": [entry], "has_more": False}
    with served(lambda body, number: refusal(404, "no"), *options, others=others, models=models) as s:
        for _ in range(2):
            assert client.run(s.url, kind="create", stream=stream, params={}).text == "Hello"
        assert [body["max_tokens"] for body in asked] == [500, 400, 400]
        prompt = {"messages": [{"role": "user", "content": "Hello"}], "tools": [TOOL]}
        also = {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "none"}}
        assert client.run(s.url, kind="count", params=prompt | also).fields["tokens"] == 9
        assert counted[0].items() >= also.items()
        with urlopen(f"{s.url}/v1/models") as response:  # noqa: S310 - the service of this test
            (listed,) = json.load(response)["data"]
        assert (listed["max_input_tokens"], listed["max_tokens"]) == (1000, 400)


@pytest.mark.fault("B25")
@BOTH
def test_a_relay_passes_fields_headers_and_blocks_in_both_directions(client: Client, stream: bool) -> None:
    seen: list[Json] = []
    usage = {"input_tokens": 9, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 1}}
    edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_input_tokens": 5, "cleared_tool_uses": 1}]}

    def messages(body: Json) -> bytes:
        seen.append(body)
        start: Json = {"type": "message", "role": "assistant", "id": "msg_1", "model": "local", "content": []}
        start |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
        events: list[Json] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": usage,
                "context_management": edits,
            },
            {"type": "message_stop"},
        ]
        return named_events(events)

    search = {"type": "web_search_20250305", "name": "web_search"}
    params: Json = {
        "tools": [search],
        "betas": ["context-management-2025-06-27"],
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    }
    options = ("--upstream-api", "messages", "--server-tools", "pass")
    with served(lambda body, number: refusal(404, "no"), *options, others={"/v1/messages": messages}) as s:
        outcome = client.run(s.url, kind="create", beta=True, stream=stream, params=params)
        assert (outcome.error, outcome.text) == (None, "Hello")
        message = outcome.fields["message"]
        assert message["context_management"]["applied_edits"][0]["cleared_tool_uses"] == 1
        assert message["usage"]["output_tokens_details"]["thinking_tokens"] == 1
        assert (seen[0]["tools"], seen[0]["context_management"]) == ([search], params["context_management"])
        heads = [head for path, head in s.engine.heads if path == "/v1/messages"]
        assert heads[0]["anthropic-beta"] == "context-management-2025-06-27"


def named_events(events: list[Json]) -> bytes:
    body = b"".join(b"event: %b\ndata: %b\n\n" % (it["type"].encode(), json.dumps(it).encode()) for it in events)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
