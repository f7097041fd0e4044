"""What a chat-completions engine is asked for, and that nothing a client said is lost on the way."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.chat import called, encode, to_chat
from anthro_asgi.engines.dialects import DIALECTS, LLAMACPP, OLLAMA, PLAIN, SGLANG, VLLM, Dialect
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import MessagesRequest, parse_request

Json = dict[str, Any]
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
TOOLS = [{"name": "look", "input_schema": {"type": "object"}}, {"name": "leap", "description": "Jumps."}]
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.3a3; cc_entrypoint=cli; cch=fa690;"
every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def request(*messages: Json, **fields: Any) -> MessagesRequest:
    turns = messages or ({"role": "user", "content": "Hi"},)
    return parse_request(json.dumps({"model": "m", "max_tokens": 16, "messages": turns, **fields}).encode())


def chat(*messages: Json, dialect: Dialect = PLAIN, **fields: Any) -> Json:
    return to_chat(request(*messages, **fields), dialect)


def told(*messages: Json, dialect: Dialect = PLAIN, **fields: Any) -> list[Json]:
    body: list[Json] = chat(*messages, dialect=dialect, **fields)["messages"]
    return body


def user(*blocks: Json | str) -> Json:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks: Json | str) -> Json:
    return {**user(*blocks), "role": "assistant"}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def use(identity: str, name: str = "look", **arguments: Any) -> Json:
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def result(identity: str, content: Any = None, **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


def tool(identity: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": content}


# the frame


def test_the_plain_body_holds_what_was_asked_and_nothing_else() -> None:
    assert chat() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_an_alias_goes_upstream_as_the_engines_own_name() -> None:
    asked = request()
    asked.engine_model = "served"
    assert to_chat(asked, PLAIN)["model"] == "served"


def test_sampling_and_user_are_passed_on() -> None:
    body = chat(temperature=0, top_p=0.5, metadata={"user_id": "u", "other": 1})
    assert (body["temperature"], body["top_p"], body["user"]) == (0, 0.5, "u")


@every_dialect
def test_top_k_goes_only_where_it_is_known_and_zero_goes_nowhere(dialect: Dialect) -> None:
    assert chat(dialect=dialect, top_k=5).get("top_k") == (5 if dialect.top_k else None)
    assert "top_k" not in chat(dialect=dialect, top_k=0)


@every_dialect
def test_stop_strings_go_only_to_an_engine_that_says_which_one_matched(dialect: Dialect) -> None:
    body = chat(dialect=dialect, stop_sequences=["END", "\n\n"])
    assert body.get("stop") == (["END", "\n\n"] if dialect.stops else None)
    assert body.get("verbose") == (True if dialect is LLAMACPP else None)
    assert "verbose" not in chat(dialect=dialect)


def test_a_stop_string_that_another_always_beats_stays_here() -> None:
    assert chat(dialect=VLLM, stop_sequences=["b", "abc", "ab"])["stop"] == ["b", "ab"]


def test_an_output_schema_arrives_as_it_was_sent() -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"b": {"cache_control": 1}, "a": {}}, "junk": [None]}
    body = chat(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert body["response_format"]["type"] == "json_schema"
    assert json.dumps(body["response_format"]["json_schema"]["schema"]) == json.dumps(schema)


def test_early_usage_is_asked_for_where_it_is_known() -> None:
    assert chat(dialect=VLLM)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert chat(dialect=LLAMACPP)["return_progress"] is True
    assert "return_progress" not in chat(dialect=VLLM)


def test_cache_marks_stay_here() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    calls = assistant({**use("a"), **mark})
    answers = user({**result("a", [{**text("r"), **mark}]), **mark}, {**text("t"), **mark})
    body = chat(calls, answers, system=[{**text("s"), **mark}], tools=[{**TOOLS[0], **mark}], **mark)
    assert b"cache_control" not in encode(body)


def test_what_orjson_cannot_write_is_written_all_the_same() -> None:
    deep: Any = 2**80
    for _ in range(300):
        deep = [deep]
    assert json.loads(encode({"a": deep, "b": "é\ud83d"}))["b"] == "é?"
    assert str(2**80).encode() in encode(deep)


def test_what_is_nested_beyond_all_measure_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        encode(deep)
    while isinstance(deep, list):  # taken apart here, level by level
        deep = deep.pop()


# system


def test_system_blocks_are_joined_into_one_message_at_the_head() -> None:
    assert told(system=[text("One."), text(""), text("Two.")])[0] == {"role": "system", "content": "One.\nTwo."}
    assert told(system="Be.")[0] == {"role": "system", "content": "Be."}
    assert told(system="") == told()


def test_the_billing_header_is_taken_out() -> None:
    assert told(system=[text(BILLING), text("Be.")])[0]["content"] == "Be."
    assert told(system=[text(BILLING)]) == told()


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
def test_what_only_resembles_the_billing_header_stays(words: str) -> None:
    assert told(system=[text(words)])[0]["content"] == words


def test_the_billing_header_stays_in_any_other_block() -> None:
    assert told(system=[text("Be."), text(BILLING)])[0]["content"] == f"Be.\n{BILLING}"


LATE = [{"role": "user", "content": "a"}, {"role": "system", "content": [text("s"), text("t")]}]


def test_a_late_system_message_stays_in_its_place_as_marked_user_text() -> None:
    assert told(*LATE, system="p") == [
        {"role": "system", "content": "p"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "<system>\ns\nt\n</system>"},
    ]


def test_a_late_system_message_keeps_its_role_where_the_template_takes_it() -> None:
    assert told(*LATE, dialect=Dialect("x", "X", late_system=True))[1] == {"role": "system", "content": "s\nt"}


def test_a_system_message_before_the_first_turn_is_the_system_prompt() -> None:
    first = {"role": "system", "content": "q"}
    assert told(first, user("a"))[0] == first
    assert told(first, user("a"), system="p")[0] == {"role": "system", "content": "p\nq"}


def test_an_empty_system_message_is_none() -> None:
    assert told(user("a"), {"role": "system", "content": ""}, user("b")) == told(user("a"), user("b"))


# tool results


def test_results_come_first_in_the_clients_order_then_the_text() -> None:
    turn = user("before", result("b", "2"), "between", result("a", "1"))
    assert told(assistant(use("a"), use("b")), turn)[1:] == [
        tool("b", "2"),
        tool("a", "1"),
        {"role": "user", "content": "before\nbetween"},
    ]


@pytest.mark.parametrize("between", [user("Wait."), {"role": "system", "content": "Mind."}])
def test_nothing_stands_between_a_call_and_its_results(between: Json) -> None:
    messages = told(assistant(use("a"), use("b")), user(result("a", "1")), between, user(result("b", "2"), "c"))
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user", "user"]
    assert messages[1:3] == [tool("a", "1"), tool("b", "2")]


@pytest.mark.parametrize("content", [None, "", [], [text("")]])
def test_an_empty_result_is_an_empty_text(content: Any) -> None:
    assert told(assistant(use("a")), user(result("a", content)))[1:] == [tool("a", "")]


def test_a_failed_result_carries_a_mark() -> None:
    turn = user(
        result("a", "no such file", is_error=True), result("b", is_error=True), result("c", "ok", is_error=False)
    )
    assert [message["content"] for message in told(assistant(use("a"), use("b"), use("c")), turn)[1:]] == [
        "[tool error] no such file",
        "[tool error]",
        "ok",
    ]


def test_images_of_results_follow_as_a_user_message() -> None:
    turn = user(result("a", [text("see"), {"type": "image", "source": PNG}, text("end")]), result("b", "2"), "then")
    first, second, last = told(assistant(use("a"), use("b")), turn)[1:]
    assert (first, second) == (tool("a", "see\n[image: see the next message]\nend"), tool("b", "2"))
    assert last == {"role": "user", "content": [PICTURE, text("then")]}


def test_a_result_may_hold_documents_search_results_and_tool_references() -> None:
    content = [
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
        {"type": "search_result", "title": "S", "source": "http://s", "content": [text("one"), text("two")]},
        {"type": "tool_reference", "tool_name": "leap"},
    ]
    messages = told(assistant(use("a")), user(result("a", content)))
    assert messages[1] == tool("a", "T\nbody\nS\nhttp://s\none\ntwo\nleap")


# user turns


def test_texts_of_a_turn_are_one_string_and_empty_ones_are_skipped() -> None:
    assert told(user("a", "", "b")) == [{"role": "user", "content": "a\nb"}]
    assert told(user("")) == told({"role": "user", "content": ""}) == [{"role": "user", "content": ""}]


def test_images_and_videos_keep_their_place_among_the_text() -> None:
    video = {"type": "video", "source": {"type": "base64", "media_type": "video/mp4", "data": "aGk="}}
    moving = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aGk="}}
    content = told(user("a", {"type": "image", "source": PNG}, "b", video))[0]["content"]
    assert content == [text("a"), PICTURE, text("b"), moving]


def test_documents_are_told_with_title_and_context() -> None:
    plain = {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "body"}}
    inner = [text("x"), {"type": "image", "source": PNG}]
    mixed = {"type": "document", "title": "U", "source": {"type": "content", "content": inner}}
    assert told(user(plain))[0]["content"] == "T\nC\nbody"
    assert told(user(mixed))[0]["content"] == [text("U"), text("x"), PICTURE]
    assert told(user({"type": "document", "source": {"type": "content", "content": "y"}}))[0]["content"] == "y"


def test_container_uploads_are_dropped() -> None:
    assert told(user({"type": "container_upload", "file_id": "f"}, "a"))[0]["content"] == "a"


# assistant turns


def test_an_assistant_turn_keeps_its_text_and_calls() -> None:
    assert told(assistant("Let me ", "look.", use("a", q="é", n=1)), user(result("a", "1")))[0] == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"q":"é","n":1}'}}],
    }
    assert told(assistant(use("a")), user(result("a")))[0]["content"] is None


@every_dialect
def test_thinking_of_the_history_goes_where_the_engine_reads_it(dialect: Dialect) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    turn = told(assistant(thought, {"type": "redacted_thinking", "data": "x"}, "Yes."), user("b"), dialect=dialect)[0]
    key = {"llamacpp": "reasoning_content", "sglang": "reasoning_content", "vllm": "reasoning"}.get(dialect.name)
    assert turn == {"role": "assistant", "content": "Yes.", **({key: "Hm."} if key else {})}


def server(kind: str, content: Any) -> str:
    block = {"type": kind, "tool_use_id": "s", "content": content}
    return str(told(assistant(block), user("b"))[0]["content"]).strip("\n")


def test_server_tools_of_the_history_become_text() -> None:
    found = [{"type": "web_search_result", "title": "T", "url": "http://t", "encrypted_content": "zzz"}, {"url": "u"}]
    assert server("web_search_tool_result", found) == "T (http://t)\n (u)"
    ran = {"type": "code_execution_result", "stdout": "out", "stderr": "err", "return_code": 1, "content": []}
    assert server("code_execution_tool_result", ran) == "out\nerr\nreturn code 1"
    assert server("bash_code_execution_tool_result", ran) == "out\nerr\nreturn code 1"
    page = {"type": "document", "title": "P", "source": {"type": "text", "media_type": "text/plain", "data": "body"}}
    assert server("web_fetch_tool_result", {"type": "web_fetch_result", "url": "u", "content": page}) == "P\nbody"
    view = {"type": "text_editor_code_execution_view_result", "content": "file", "file_type": "text", "num_lines": 1}
    assert server("text_editor_code_execution_tool_result", view) == "file"
    assert server("text_editor_code_execution_tool_result", {"lines": ["-a", "+b"], "old_start": 1}) == "-a\n+b"
    assert server("mcp_tool_result", [text("m"), text("n")]) == "m\nn"
    assert server("tool_search_tool_result", {"tool_references": [{"tool_name": "leap"}]}) == ""


def test_a_server_tools_error_is_told_and_a_pdfs_bytes_are_not() -> None:
    failed = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    assert server("web_search_tool_result", failed) == "error: max_uses_exceeded"
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    assert server("web_fetch_tool_result", {"content": pdf}) == ""


def test_a_server_tool_call_of_the_history_is_told() -> None:
    call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    assert told(assistant("a", call, "b"), user("c"))[0]["content"] == 'a\n[web_search {"query":"q"}]\nb'


def test_the_ids_of_the_history_are_known() -> None:
    assert called(request(assistant("a", use("x"), use("y")), user(result("x")), user("b"))) == {"x", "y"}


# prefill, thinking, effort


@every_dialect
def test_a_trailing_assistant_turn_is_continued_where_there_is_a_switch(dialect: Dialect) -> None:
    switches = ("add_generation_prompt", "continue_final_message")
    said = chat(user("a"), assistant("It is"), dialect=dialect)
    expected = {"vllm": {switches[0]: False, switches[1]: True}, "sglang": {switches[1]: True}}
    assert {key: said[key] for key in switches if key in said} == expected.get(dialect.name, {})
    for finished in (chat(dialect=dialect), chat(user("a"), assistant(use("x")), dialect=dialect)):
        assert not set(switches) & set(finished)


@every_dialect
def test_thinking_is_switched_only_where_there_is_a_switch_and_the_client_spoke(dialect: Dialect) -> None:
    for kind, on in (({"type": "adaptive"}, True), ({"type": "disabled"}, False)):
        switch = {"enable_thinking": on} if dialect.thinking_switch else None
        assert chat(dialect=dialect, thinking=kind).get("chat_template_kwargs") == switch
    assert "chat_template_kwargs" not in chat(dialect=dialect)


@every_dialect
def test_effort_goes_in_words_that_the_engine_knows(dialect: Dialect) -> None:
    for effort, word in {"low": "low", "medium": "medium", "max": "high", "xhigh": "high", "odd": None}.items():
        sent = chat(dialect=dialect, output_config={"effort": effort}).get("reasoning_effort")
        assert sent == (word if dialect in (VLLM, SGLANG, OLLAMA) else None)


# tools


def test_tools_are_functions_and_their_schema_is_untouched() -> None:
    schema = {"type": "nonsense", "$schema": "s", "properties": {"z": {}, "a": {"cache_control": True}}}
    spare = {"strict": True, "defer_loading": True, "input_examples": [{}]}
    body = chat(tools=[{"name": "look", "description": "", "input_schema": schema, **spare}, {"name": "leap"}])
    assert body["tools"] == [
        {"type": "function", "function": {"name": "look", "description": "", "parameters": schema}},
        {"type": "function", "function": {"name": "leap", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert "tools" not in chat(tools=[])
    assert not {"tool_choice", "parallel_tool_calls"} & set(body)


@pytest.mark.parametrize(("kind", "word"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_tool_choice_is_told_in_the_engines_word(kind: str, word: str) -> None:
    body = chat(tools=TOOLS, tool_choice={"type": kind})
    assert (body["tool_choice"], len(body["tools"])) == (word, 2)


@every_dialect
def test_a_named_tool_choice_is_sent_by_name_or_narrowed_to_that_tool(dialect: Dialect) -> None:
    body = chat(dialect=dialect, tools=TOOLS, tool_choice={"type": "tool", "name": "leap"})
    names = [entry["function"]["name"] for entry in body["tools"]]
    narrowed = dialect in (LLAMACPP, OLLAMA)
    by_name = {"type": "function", "function": {"name": "leap"}}
    assert (body["tool_choice"], names) == (("required", ["leap"]) if narrowed else (by_name, ["look", "leap"]))


@pytest.mark.parametrize("kind", ["auto", "any", "tool"])
def test_parallel_calls_can_be_ruled_out(kind: str) -> None:
    choice = {"type": kind, "disable_parallel_tool_use": True, **({"name": "look"} if kind == "tool" else {})}
    assert chat(tools=TOOLS, tool_choice=choice)["parallel_tool_calls"] is False


# nothing is lost


class Words:
    """Hands out words that occur nowhere else, and remembers them."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self) -> str:
        self.said.append(f"w{len(self.said)}w")
        return self.said[-1]


def content_block(kind: str, say: Words) -> Json:
    match kind:
        case "document":
            return {"type": kind, "title": say(), "context": say(), "source": {"type": "text", "data": say()}}
        case "pages":
            inner = [text(say()), {"type": "image", "source": PNG}, text(say())]
            return {"type": "document", "title": say(), "source": {"type": "content", "content": inner}}
        case "search_result":
            return {"type": kind, "title": say(), "source": say(), "content": [text(say()), text(say())]}
        case "image":
            return {"type": kind, "source": PNG}
    return text(say())


KINDS = st.sampled_from(["text", "document", "pages", "search_result", "image"])
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "system"]),
        st.lists(KINDS, max_size=4),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def conversation(turns: list[Any], say: Words) -> list[Json]:
    """Messages of these shapes; calls are answered in the next user turn, backwards."""
    messages: list[Json] = []
    open_calls: list[str] = []
    for role, kinds, calls, flag in turns:
        blocks: list[Json] = [] if role == "user" else [text(say()) for _ in kinds]
        if role == "user":
            blocks += [content_block(kind, say) for kind in kinds]
            while open_calls:
                answer = [content_block(kind, say) for kind in kinds]
                blocks.insert(flag and len(blocks), result(open_calls.pop(), answer, is_error=flag))
        elif role == "assistant":
            ids = [f"id{len(messages)}_{number}" for number in range(calls)]
            blocks += [use(identity, q=say(), deep=[{"k": say()}]) for identity in ids]
            blocks.insert(0, {"type": "thinking", "thinking": say(), "signature": "s"})
            open_calls += ids
        messages.append({"role": role, "content": blocks})
    return messages


def strings(value: Any) -> str:
    """Every string in a body, in the order they stand in it."""
    if isinstance(value, str):
        return value + "\n"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "".join(map(strings, items))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(turns=TURNS, dialect=st.sampled_from([LLAMACPP, VLLM, SGLANG]))
def test_no_text_of_a_client_is_lost(turns: list[Any], dialect: Dialect) -> None:
    say = Words()
    body = chat(*conversation(turns, say), system=[text(say()), text(say())], dialect=dialect)
    sent = strings(body)
    assert [word for word in say.said if word not in sent] == []


@settings(derandomize=True, deadline=None, max_examples=150)
@given(turns=TURNS)
def test_results_always_stand_behind_their_call(turns: list[Any]) -> None:
    messages = told(*conversation(turns, Words()))
    for before, message in zip([{"role": "none"}, *messages], messages, strict=False):
        assert message["role"] != "tool" or before["role"] in ("assistant", "tool")
