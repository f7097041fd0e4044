"""The messages of a chat request: the form and order of each content block, and that no text is lost."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.engines.openai.chat_request import call_ids, chat_messages
from anthro_asgi.engines.openai.dialects import DIALECTS, LLAMACPP, SGLANG, VLLM, Dialect
from tests.support.chat_requests import (
    Json,
    assistant,
    chat,
    every_dialect,
    request,
    result,
    sent,
    text,
    tool,
    use,
    user,
)

PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


# tool results


@pytest.mark.clause("3.27", "3.36")
def test_results_come_first_in_the_clients_order_then_the_text() -> None:
    turn = user("before", result("b", "2"), "between", result("a", "1"))
    assert sent(assistant(use("a"), use("b")), turn)[1:] == [
        tool("b", "2"),
        tool("a", "1"),
        {"role": "user", "content": "before\nbetween"},
    ]


@pytest.mark.clause("3.36")
@pytest.mark.parametrize("between", [user("Wait."), {"role": "system", "content": "Mind."}])
def test_tool_results_directly_follow_their_calls(between: Json) -> None:
    messages = sent(assistant(use("a"), use("b")), user(result("a", "1")), between, user(result("b", "2"), "c"))
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user"]
    assert messages[1:3] == [tool("a", "1"), tool("b", "2")]


@pytest.mark.clause("3.27")
@pytest.mark.parametrize("content", [None, "", [], [text("")]])
def test_an_empty_tool_result_is_an_empty_text(content: Any) -> None:
    assert sent(assistant(use("a")), user(result("a", content)))[1:] == [tool("a", "")]


@pytest.mark.clause("3.28")
def test_a_tool_result_with_an_error_has_a_mark() -> None:
    turn = user(
        result("a", "no such file", is_error=True), result("b", is_error=True), result("c", "ok", is_error=False)
    )
    assert [message["content"] for message in sent(assistant(use("a"), use("b"), use("c")), turn)[1:]] == [
        "[tool error] no such file",
        "[tool error]",
        "ok",
    ]


@pytest.mark.clause("3.28")
def test_images_of_results_follow_as_a_user_message() -> None:
    turn = user(result("a", [text("see"), {"type": "image", "source": PNG}, text("end")]), result("b", "2"), "then")
    first, second, last = sent(assistant(use("a"), use("b")), turn)[1:]
    assert (first, second) == (tool("a", "see\n[image: see the next message]\nend"), tool("b", "2"))
    assert last == {"role": "user", "content": [PICTURE, text("then")]}


@pytest.mark.clause("3.26", "3.27")
def test_a_result_may_hold_documents_search_results_and_tool_references() -> None:
    content = [
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
        {"type": "search_result", "title": "S", "source": "http://s", "content": [text("one"), text("two")]},
        {"type": "tool_reference", "tool_name": "leap"},
    ]
    messages = sent(assistant(use("a")), user(result("a", content)))
    document = "<document>\n<title>T</title>\nbody\n</document>"
    search = "<search_result>\n<title>S</title>\nhttp://s\none\ntwo\n</search_result>"
    assert messages[1] == tool("a", f"{document}\n{search}\nleap")


# user turns


@pytest.mark.clause("3.3")
def test_texts_of_a_turn_are_one_string_and_empty_ones_are_skipped() -> None:
    assert sent(user("a", "", "b")) == [{"role": "user", "content": "a\nb"}]
    assert sent(user("")) == sent({"role": "user", "content": ""}) == [{"role": "user", "content": ""}]


@pytest.mark.clause("3.25")
def test_images_and_videos_keep_their_position_in_the_text() -> None:
    video = {"type": "video", "source": {"type": "base64", "media_type": "video/mp4", "data": "aGk="}}
    moving = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aGk="}}
    content = sent(user("a", {"type": "image", "source": PNG}, "b", video))[0]["content"]
    assert content == [text("a"), PICTURE, text("b"), moving]


@pytest.mark.clause("3.26", "3.38")
def test_a_document_stands_between_marks_with_its_title_and_context() -> None:
    plain = {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "body"}}
    inner = [text("x"), {"type": "image", "source": PNG}]
    mixed = {"type": "document", "title": "U", "source": {"type": "content", "content": inner}}
    assert sent(user(plain))[0]["content"] == "<document>\n<title>T</title>\nC\nbody\n</document>"
    assert sent(user(mixed))[0]["content"] == [
        text("<document>\n<title>U</title>"),
        text("x"),
        PICTURE,
        text("</document>"),
    ]
    assert sent(user({"type": "document", "source": {"type": "content", "content": "y"}}))[0]["content"] == (
        "<document>\ny\n</document>"
    )


@pytest.mark.clause("3.26")
def test_container_uploads_are_dropped() -> None:
    assert sent(user({"type": "container_upload", "file_id": "f"}, "a"))[0]["content"] == "a"


# assistant turns


@pytest.mark.clause("3.29")
def test_an_assistant_turn_keeps_its_text_and_calls() -> None:
    assert sent(assistant("Let me ", "look.", use("a", q="é", n=1)), user(result("a", "1")))[0] == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"q":"é","n":1}'}}],
    }
    assert sent(assistant(use("a")), user(result("a")))[0]["content"] is None


@pytest.mark.clause("3.29")
@every_dialect
def test_thinking_in_the_history_is_sent_in_the_engines_reasoning_field(dialect: Dialect) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    turn = sent(assistant(thought, {"type": "redacted_thinking", "data": "x"}, "Yes."), user("b"), dialect=dialect)[0]
    field = {
        "llamacpp": "reasoning_content",
        "sglang": "reasoning_content",
        "vllm-mlx": "reasoning_content",
        "fastllm": "reasoning_content",
        "dynamo": "reasoning_content",
        "deepseek": "reasoning_content",
        "moonshot": "reasoning_content",
        "zai": "reasoning_content",
        "vllm": "reasoning",
        "ollama": "reasoning",
        "sambanova": "reasoning",
        "mlx-lm": "reasoning",
        "openrouter": "reasoning",
    }.get(dialect.name)
    content = "<think>\nHm.\n</think>\n\nYes." if dialect.name == "minimax" else "Yes."
    assert turn == {"role": "assistant", "content": content, **({field: "Hm."} if field else {})}


@pytest.mark.clause("3.40")
@every_dialect
def test_an_engine_that_demands_reasoning_beside_calls_gets_an_empty_one(dialect: Dialect) -> None:
    turn = sent(assistant(use("a")), user(result("a")), dialect=dialect)[0]
    demanding = dialect.name in ("deepseek", "moonshot")
    assert turn.get("reasoning_content") == ("" if demanding else None)
    assert "reasoning_content" not in sent(assistant("b"), user("c"), dialect=dialect)[0]


@pytest.mark.clause("3.39")
@pytest.mark.parametrize("empty", [[], [""], [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]])
def test_an_assistant_turn_that_is_left_empty_is_not_sent(empty: list[Any]) -> None:
    assert sent(user("a"), assistant(*empty), user("b")) == [{"role": "user", "content": "a\nb"}]
    assert sent(user("a"), assistant(*empty)) == [{"role": "user", "content": "a"}]


@pytest.mark.clause("3.39")
@every_dialect
def test_the_content_beside_calls_is_null_or_empty_as_the_engine_accepts_it(dialect: Dialect) -> None:
    turn = sent(assistant(use("a")), user(result("a")), dialect=dialect)[0]
    empty = dialect.name in ("llama-cpp-python", "transformers", "max", "mlx-lm", "vllm-mlx", "fastllm")
    assert turn["content"] == ("" if empty else None)


# neighbours of one role


@pytest.mark.clause("3.37")
@every_dialect
def test_neighbours_of_one_role_become_one_turn(dialect: Dialect) -> None:
    said = sent(
        *(user("a"), {"role": "user", "content": "b"}, assistant("c", "d"), {"role": "assistant", "content": "e"}),
        user({"type": "image", "source": PNG}),
        user("f"),
        dialect=dialect,
    )
    assert said == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "cd\ne"},
        {"role": "user", "content": [PICTURE, text("f")]},
    ]


@pytest.mark.clause("3.37")
def test_neighbours_with_calls_become_one_turn_and_the_results_keep_their_place() -> None:
    said = sent(assistant("x", use("a")), assistant(use("b")), user(result("a", "1"), "y"), user("z", result("b", "2")))
    assert [call["id"] for call in said[0]["tool_calls"]] == ["a", "b"]
    assert said[1:] == [tool("a", "1"), tool("b", "2"), {"role": "user", "content": "y\nz"}]


@pytest.mark.clause("3.37", "3.41")
def test_a_folded_system_message_joins_the_user_turns_beside_it() -> None:
    late = {"role": "system", "content": "Mind."}
    assert sent(user("a"), late, user("b")) == [{"role": "user", "content": "a\n<system>\nMind.\n</system>\nb"}]
    kept = sent(user("a"), late, late, user("b"), dialect=Dialect("x", "X", late_system=True))
    assert [turn["content"] for turn in kept] == ["a", "Mind.\nMind.", "b"]


MISTRAL = DIALECTS["mistral"]


@pytest.mark.clause("3.37")
def test_text_after_a_tool_result_goes_into_it_if_only_an_assistant_turn_may_follow() -> None:
    late = {"role": "system", "content": "Mind."}
    said = sent(assistant(use("a")), user(result("a", "1"), "b"), late, user("c"), dialect=MISTRAL)
    assert [turn["role"] for turn in said] == ["assistant", "tool"]
    assert said[1]["content"] == "1\nb\n<system>\nMind.\n</system>\nc"
    image = {"type": "image", "source": PNG}
    said = sent(assistant(use("a")), user(result("a", "1"), image), dialect=MISTRAL)
    assert [turn["role"] for turn in said] == ["assistant", "tool", "assistant", "user"]
    assert (said[1]["content"], said[3]["content"]) == ("1", [PICTURE])


@pytest.mark.slow
def test_the_time_for_neighbours_is_linear_in_their_number() -> None:
    text = "x" * 200
    said = chat_messages(request(*({"role": "user", "content": text} for _ in range(50_000))), LLAMACPP)
    assert [len(turn["content"]) for turn in said] == [50_000 * 201 - 1]
    calls = (assistant(text, use(f"c{number}")) for number in range(50_000))
    (turn,) = chat_messages(request(*calls), LLAMACPP)
    assert (len(turn["content"]), len(turn["tool_calls"])) == (50_000 * 201 - 1, 50_000)


def server(kind: str, content: Any) -> str:
    block = {"type": kind, "tool_use_id": "s", "content": content}
    return str(sent(assistant("a", block), user("b"))[0]["content"]).removeprefix("a").strip("\n")


@pytest.mark.clause("3.30")
def test_server_tool_results_in_the_history_become_text() -> None:
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


def test_a_server_tool_error_becomes_text_and_a_pdf_does_not() -> None:
    failed = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    assert server("web_search_tool_result", failed) == "error: max_uses_exceeded"
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    assert server("web_fetch_tool_result", {"content": pdf}) == ""


@pytest.mark.clause("3.30")
def test_a_server_tool_call_in_the_history_becomes_text() -> None:
    call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    assert sent(assistant("a", call, "b"), user("c"))[0]["content"] == 'a\n[web_search {"query":"q"}]\nb'


def test_an_mcp_call_in_the_history_becomes_text_with_its_result() -> None:
    call = {"type": "mcp_tool_use", "id": "m", "name": "find", "server_name": "s", "input": {"q": 1}}
    answers = [{"type": "mcp_tool_result", "tool_use_id": "m", "content": "found"}, {"type": "mcp_tool_result"}]
    answers[1]["tool_use_id"] = "n"
    assert sent(assistant(call, *answers), user("c"))[0]["content"] == '\n[find {"q":1}]\n\nfound\n'


def test_an_image_url_is_passed_on_unchanged() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    asked = request(user("a"))
    asked.messages = [user(image), assistant(use("x")), user(result("x", [image]))]
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = chat_messages(asked, LLAMACPP)
    assert messages[0]["content"] == messages[3]["content"] == [part]


def test_call_ids_lists_the_tool_calls_of_the_history() -> None:
    assert call_ids(request(assistant("a", use("x"), use("y")), user(result("x")), user("b"))) == {"x", "y"}


# no text is lost


class Words:
    """Returns a new unique word at each call, and records it."""

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
    """Messages of these shapes; the next user turn answers the calls in reverse order."""
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


@pytest.mark.slow
@pytest.mark.clause("3.24")
@settings(derandomize=True, deadline=None, max_examples=150)
@given(turns=TURNS, dialect=st.sampled_from([LLAMACPP, VLLM, SGLANG]))
def test_no_text_of_the_conversation_is_lost(turns: list[Any], dialect: Dialect) -> None:
    say = Words()
    body = chat(*conversation(turns, say), system=[text(say()), text(say())], dialect=dialect)
    sent = strings(body)
    assert [word for word in say.said if word not in sent] == []


@pytest.mark.slow
@pytest.mark.clause("3.36")
@settings(derandomize=True, deadline=None, max_examples=150)
@given(turns=TURNS)
def test_tool_results_always_follow_their_call(turns: list[Any]) -> None:
    messages = sent(*conversation(turns, Words()))
    for before, message in zip([{"role": "none"}, *messages], messages, strict=False):
        assert message["role"] != "tool" or before["role"] in ("assistant", "tool")
