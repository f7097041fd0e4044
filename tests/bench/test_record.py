"""Recording a server's answers as a trace: the content of events, and failures."""

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthro_asgi.bench import record
from anthro_asgi.bench.record import of_chat, of_messages
from anthro_asgi.simulator import read_trace
from bench.process import serving

MESSAGES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"type": "message_start", "message": {}}, []),
    ({"type": "ping"}, []),
    ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, []),
    ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}}, [("call", "f")]),
    ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, [("text", "a")]),
    ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "b"}}, [("thinking", "b")]),
    ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "c"}}, [("json", "c")]),
    ({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "s"}}, []),
    ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, [("stop", "max_tokens")]),
    ({"type": "message_stop"}, []),
]


@pytest.mark.parametrize(("event", "said"), MESSAGES)
def test_the_content_of_messages_events(event: dict[str, Any], said: list[tuple[str, str]]) -> None:
    assert list(of_messages(event)) == said


def test_the_content_of_chat_chunks() -> None:
    call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}}
    delta = {"reasoning": "a", "content": "b", "tool_calls": [call]}
    chunk = {"choices": [{"delta": delta, "finish_reason": "tool_calls"}]}
    said = [pair for pair in of_chat(chunk) if pair[1]]
    assert said == [("thinking", "a"), ("text", "b"), ("call", "f"), ("json", "{}"), ("stop", "tool_use")]
    assert list(of_chat({"choices": [], "usage": {}})) == []


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    return record.main(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("fail", "words"), [("429=1", "status 429"), ("error=1", "an error in the stream"), ("cut=1", "")]
)
def test_a_failed_answer_ends_the_recording_with_a_reason(
    fail: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("serve", "--port", "0", "--simulate-ttft", "0", "--simulate-itl", "0", "--simulate-fail", fail)
    with serving((sys.executable, "-m", "anthro_asgi", *command)) as (url, _):
        assert run(url, "--out", str(tmp_path / "trace")) == 1
    said = capsys.readouterr().err
    assert said.startswith("anthro-asgi bench record: ")
    assert words in said


def test_bodies_from_a_file_are_stored_with_the_answers(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello?"}]}
    bodies.write_bytes(orjson.dumps(asked) + b"\n\n" + orjson.dumps({**asked, "max_tokens": 7}))
    out = tmp_path / "trace"
    command = ("serve", "--port", "0", "--simulate-ttft", "0", "--simulate-itl", "0")
    with serving((sys.executable, "-m", "anthro_asgi", *command)) as (url, _):
        assert run(url, "--bodies", str(bodies), "--out", str(out)) == 0
    lines = out.read_bytes().splitlines()
    assert [len(answer.parts) for answer in read_trace(lines)] == [5, 7]
    assert orjson.loads(lines[1])["request"] == {**asked, "max_tokens": 7, "stream": True}


@pytest.mark.parametrize("arguments", [("http://example.com",), ("http://127.0.0.1:9", "--bodies", "/nowhere")])
def test_invalid_options_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("anthro-asgi bench record: ")
