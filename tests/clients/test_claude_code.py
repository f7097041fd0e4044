"""A session of the real Claude Code survives each fault that engines were reported to have."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients.claude import ClaudeCode
from tests.clients.engine import (
    USAGE,
    Json,
    Play,
    ScriptedEngine,
    call,
    delta,
    finish,
    last_role,
    refusal,
    text,
    tool_results,
)
from tests.support.service import Service
from tests.support.upstream import json_answer, sse

WINDOW = 32_768  # tokens


class Session:
    """Claude Code, the service and a scripted engine."""

    def __init__(self, claude: ClaudeCode, engine: ScriptedEngine, folder: Path) -> None:
        self.claude, self.engine, self.folder = claude, engine, folder


@contextmanager
def session(tmp_path: Path, play: Play, *options: str, **engine: object) -> Iterator[Session]:
    folder = tmp_path / "project"
    folder.mkdir()
    with (
        ScriptedEngine(play, **engine) as scripted,  # type: ignore[arg-type]  # its own keywords
        Service("--upstream", f"{scripted.url}/v1", *options, may_log_errors=True) as service,
    ):
        yield Session(ClaudeCode(service.url, folder), scripted, folder)


def bash(command: str, identity: str = "call_1", **more: object) -> bytes:
    return call("Bash", json.dumps({"command": command, "description": "a step"}), identity, **more)


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


def test_an_engine_whose_template_alternates_is_served(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
        if any(one == other for one, other in pairwise(roles)):
            return refusal(400, "Conversation roles must alternate user/assistant/user/assistant/...")
        return text(f"Answer {number}")

    with session(tmp_path, play) as s:
        assert s.claude.ask("First").text == "Answer 0"
        assert not s.claude.ask("Second").is_error


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


# --- calls ---


ARGUMENTS = {"command": "echo once >> runs.txt; cat runs.txt", "description": "a step"}


def chunked_call(*deltas: Json) -> bytes:
    return sse(
        delta(role="assistant", content=None), *(delta(tool_calls=[d]) for d in deltas), finish("tool_calls"), USAGE
    )


def part(arguments: object, **more: object) -> Json:
    return {"index": 0, "function": {"arguments": arguments}, **more}


FIRST = {"index": 0, "id": "call_1", "type": "function"}
SAID = json.dumps(ARGUMENTS)
GOOD = {**FIRST, "function": {"name": "Bash", "arguments": SAID}}
STYLES: dict[str, bytes] = {
    "encoded twice": chunked_call({**FIRST, "function": {"name": "Bash", "arguments": json.dumps(SAID)}}),
    "an empty object first": chunked_call({**FIRST, "function": {"name": "Bash", "arguments": "{}"}}, part(SAID)),
    "an object instead of a text": chunked_call({**FIRST, "function": {"name": "Bash", "arguments": ARGUMENTS}}),
    "repeated by a last chunk": chunked_call(
        {**FIRST, "function": {"name": "Bash", "arguments": SAID}},
        {**FIRST, "function": {"name": "Bash", "arguments": SAID}},
    ),
    "beside a ghost call": chunked_call(
        {**FIRST, "function": {"name": "Bash", "arguments": SAID}},
        {"index": 1, "id": "", "type": "function", "function": {"name": "", "arguments": ""}},
    ),
    "a trailing comma": chunked_call({**FIRST, "function": {"name": "Bash", "arguments": SAID[:-1] + ",}"}}),
    "in a fence": chunked_call({**FIRST, "function": {"name": "Bash", "arguments": f"```json\n{SAID}\n```"}}),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_call_runs_once_with_its_arguments_however_the_engine_says_it(tmp_path: Path, style: str) -> None:
    def play(body: Json, number: int) -> bytes:
        return text(f"It said {tool_results(body)}") if last_role(body) == "tool" else STYLES[style]

    with session(tmp_path, play) as s:
        result = s.claude.ask("Run it")
        assert result.text == "It said ['once']", result
        assert (s.folder / "runs.txt").read_text() == "once\n"
        assert not s.claude.ask("And go on").is_error


def test_an_answer_that_broke_off_is_asked_again(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        return text("Whole") if number else text("Half of", reason="insufficient_system_resource")

    with session(tmp_path, play) as s:
        result = s.claude.ask("Hello")
        assert not result.is_error
        assert result.text == "Whole"


# --- what the model cannot read ---


def png() -> bytes:
    """A red picture of 8 by 8 pixels."""
    rows = b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def has_image(body: Json) -> bool:
    return any("image_url" in json.dumps(message.get("content")) for message in body["messages"])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "At most 0 image(s) may be provided in one prompt."),
        (400, "local is not a multimodal model"),
        (400, "Model only supports text input; received unsupported content type 'image_url'"),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    ],
)
def test_a_picture_that_the_model_cannot_read_does_not_end_the_session(tmp_path: Path, status: int, words: str) -> None:
    def play(body: Json, number: int) -> bytes:
        if has_image(body):
            return refusal(status, words)
        if last_role(body) == "user" and "picture" in json.dumps(body["messages"][-1]["content"]) and number < 2:
            return call("Read", json.dumps({"file_path": str(tmp_path / "project" / "red.png")}))
        return text("Going on")

    with session(tmp_path, play) as s:
        (s.folder / "red.png").write_bytes(png())
        s.claude.ask("Look at the picture red.png")
        result = s.claude.ask("Never mind, go on")
        assert not result.is_error, result
        assert result.text == "Going on"


def test_a_pdf_does_not_end_the_session(tmp_path: Path) -> None:
    def play(body: Json, number: int) -> bytes:
        if last_role(body) == "user" and "paper.pdf" in json.dumps(body["messages"][-1]["content"]) and number < 2:
            return call("Read", json.dumps({"file_path": str(tmp_path / "project" / "paper.pdf")}))
        return text("Going on")

    with session(tmp_path, play) as s:
        (s.folder / "paper.pdf").write_bytes(base64.b64decode(PDF))
        s.claude.ask("Read paper.pdf")
        result = s.claude.ask("Never mind, go on")
        assert not result.is_error, result
        assert result.text == "Going on"


PDF = base64.b64encode(
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


# --- tools ---


def test_no_placeholder_of_a_deferred_tool_reaches_the_model(tmp_path: Path) -> None:
    with session(tmp_path, lambda body, number: text("Seen")) as s:
        s.claude.ask("Hello")
        assert "never call this tool" not in json.dumps(s.engine.chats[0].get("tools")).lower()
