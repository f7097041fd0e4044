"""A session of the real Claude Code survives the faults of engines: the window, turns, reasoning, tools."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients.claude import bash, session
from tests.clients.engine import Json, refusal, text, tool_results
from tests.support.upstream import json_answer

WINDOW = 32_768  # tokens


def test_a_text_answer_arrives(tmp_path: Path) -> None:
    with session(tmp_path, lambda body, number: text("Hello there")) as s:
        result = s.claude.ask("Say hello")
        assert not result.is_error, result
        assert result.text == "Hello there"


def test_a_tool_runs_and_its_result_comes_back(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        return (
            text(f"It said {tool_results(body)}") if tool_results(body) else bash("echo fine > made.txt; cat made.txt")
        )

    with session(tmp_path, play) as s:
        result = s.claude.ask("Make the file")
        assert result.text == "It said ['fine']"
        assert (s.folder / "made.txt").read_text() == "fine\n"


# --- the window ---


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 32768 tokens. However, you requested {asked} output tokens and your "
        "prompt contains at least {bound} input tokens, for a total of at least 32769 tokens. Please reduce the length "
        "of the input prompt or the number of requested output tokens. (parameter=input_tokens, value={bound})",
        "You passed {bound} input tokens and requested {asked} output tokens. However, the model's context length "
        "is only 32768 tokens, resulting in a maximum input length of {less} tokens. Please reduce the "
        "length of the input prompt. (parameter=input_tokens, value={bound})",
    ],
    ids=["vLLM 0.25", "vLLM 0.16"],
)
def test_an_engine_that_tells_only_a_lower_bound_is_asked_again_with_what_fits(tmp_path: Path, words: str) -> None:
    prompt = 20_000

    def play(body: Json, number: int) -> bytes:
        asked: int = body.get("max_tokens") or body["max_completion_tokens"]
        if prompt + asked > WINDOW:
            bound = WINDOW - asked + 1
            return refusal(400, words.format(asked=asked, bound=bound, less=bound - 1))
        return text("It fits")

    models = {
        "object": "list",
        "data": [{"id": "local", "object": "model", "owned_by": "vllm", "max_model_len": WINDOW}],
    }
    count = {"count": prompt, "max_model_len": WINDOW, "tokens": []}
    with session(tmp_path, play, models=models, others={"/tokenize": lambda body: json_answer(200, count)}) as s:
        result = s.claude.ask("Hello")
        assert result.text == "It fits", result
        assert len(s.engine.chats) <= 3


# --- turns ---


@pytest.mark.fault("A2")
def test_an_engine_whose_template_alternates_is_served(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
        if any(one == other for one, other in pairwise(roles)):
            return refusal(400, "Conversation roles must alternate user/assistant/user/assistant/...")
        return text(f"Answer {number}")

    with session(tmp_path, play) as s:
        assert s.claude.ask("First").text == "Answer 0"
        assert not s.claude.ask("Second").is_error


@pytest.mark.fault("A3")
def test_reasoning_goes_back_to_the_engine_that_spoke_it(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        for message in body["messages"]:
            if message["role"] == "assistant" and message.get("tool_calls") and "reasoning_content" not in message:
                words = "The reasoning_content in the thinking mode must be passed back to the API."
                return refusal(400, words, type="invalid_request_error")
        if tool_results(body):
            return text("Done after thinking")
        return bash("echo thought", reasoning_content="I should run it.")

    with session(tmp_path, play) as s:
        result = s.claude.ask("Think, then run")
        assert result.text == "Done after thinking", result
        # Claude Code asks for answers without the text of their thinking, so it has none to give back
        calls = [m for m in s.engine.chats[-1]["messages"] if m.get("tool_calls")]
        assert calls[-1]["reasoning_content"] == ""


# --- tools ---


@pytest.mark.fault("B14")
def test_no_placeholder_of_a_deferred_tool_reaches_the_model(tmp_path: Path) -> None:
    with session(tmp_path, lambda body, number: text("Seen")) as s:
        s.claude.ask("Hello")
        assert "never call this tool" not in json.dumps(s.engine.chats[0].get("tools")).lower()


@pytest.mark.fault("A11")
def test_an_answer_that_broke_off_is_asked_again(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        return text("Whole") if number else text("Half of", reason="insufficient_system_resource")

    with session(tmp_path, play) as s:
        result = s.claude.ask("Hello")
        assert not result.is_error
        assert result.text == "Whole"
