"""The real engine of the tests answers as its model was made to."""

import http.client
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama.model import ANSWER, ARGUMENT, THINKING, write_model
from tests.support.llama.server import ROOT, LlamaServer, ServerFailed, Thinking

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
DO_NOT_THINK = {"chat_template_kwargs": {"enable_thinking": False}}


@contextmanager
def answer(server: LlamaServer, **body: Any) -> Iterator[http.client.HTTPResponse]:
    body = {"messages": [{"role": "user", "content": "Hello?"}], **body}
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        yield connection.getresponse()


def choice(server: LlamaServer, **body: Any) -> tuple[dict[str, Any], str]:
    """The one choice's message and finish reason."""
    with answer(server, **body) as response:
        first = json.loads(response.read())["choices"][0]
    return first["message"], first["finish_reason"]


def test_two_models_are_the_same_bytes(tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("temperature", [0, 1, 2])
@pytest.mark.parametrize("words", ["Hello?", "", "日本 " * 50, 'a "quoted" {thing}'])
def test_every_prompt_gets_the_same_sentence(llama: LlamaServer, words: str, temperature: float) -> None:
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1, "min_p": 0}
    message, finish = choice(llama, messages=[{"role": "user", "content": words}], **sampling)
    assert (message, finish) == ({"role": "assistant", "content": ANSWER}, "stop")


def test_it_thinks_first_if_asked_to(llama: LlamaServer) -> None:
    message, finish = choice(llama, **THINK)
    assert (message["reasoning_content"], message["content"], finish) == (THINKING, ANSWER, "stop")


def test_a_required_tool_is_called_after_the_sentence(llama: LlamaServer) -> None:
    message, finish = choice(llama, tools=[WEATHER], tool_choice="required")
    (call,) = message["tool_calls"]
    assert (message["content"], finish) == (ANSWER, "tool_calls")
    assert call["function"] == {"name": "get_weather", "arguments": f'{{"city":"{ARGUMENT}"}}'}
    assert call["id"]


def test_a_tool_that_is_not_required_is_not_called(llama: LlamaServer) -> None:
    assert choice(llama, tools=[WEATHER]) == ({"role": "assistant", "content": ANSWER}, "stop")


def test_a_schema_is_filled_and_closed(llama: LlamaServer) -> None:
    properties = {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "string"}},
        "one": {"enum": ["b", "a"]},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    message, _ = choice(llama, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    filled = {"text": ARGUMENT, "count": 4, "flag": True, "list": [ARGUMENT], "one": "a"}
    assert json.loads(message["content"]) == filled


def test_the_sentence_continues_a_prefill(llama: LlamaServer) -> None:
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Well: "}]
    assert choice(llama, messages=turns)[0]["content"] == f"Well: {ANSWER}"


def test_a_stream_has_one_word_per_chunk_and_whole_emojis(llama: LlamaServer) -> None:
    with answer(llama, stream=True) as response:
        lines = [line for line in response.read().decode().split("\n") if line.startswith("data: {")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"].get("content") for line in lines]
    pieces = [delta for delta in deltas if delta]
    assert "".join(pieces) == ANSWER
    assert pieces[:2] == ["Hello!", " I"]
    assert " 🙂" in pieces


@pytest.mark.parametrize(("setting", "by_default"), [("off", False), ("on", True), ("auto", True)])
def test_the_setting_applies_to_requests_without_a_thinking_switch(setting: Thinking, by_default: bool) -> None:
    with LlamaServer(thinking=setting) as server:
        assert ("reasoning_content" in choice(server)[0]) == by_default
        assert "reasoning_content" in choice(server, **THINK)[0]
        assert "reasoning_content" not in choice(server, **DO_NOT_THINK)[0]


def test_metrics_show_running_requests(llama: LlamaServer) -> None:
    before = llama.metrics()
    with answer(llama, stream=True, ignore_eos=True, max_tokens=8000) as response:
        response.readline()
        assert llama.metrics()["requests_processing"] == 1
    llama.until_idle()
    assert llama.metrics()["prompt_tokens_total"] > before["prompt_tokens_total"]


def test_slots_key_and_socket_can_be_set(tmp_path: Path) -> None:
    uds = tmp_path / "s.sock"
    with LlamaServer(ctx=512, parallel=3, api_key="k", uds=uds) as server:
        slots = json.loads(server.get("/slots"))
        assert [slot["n_ctx"] for slot in slots] == [512, 512, 512]
        assert uds.is_socket()
        stranger = LlamaServer(uds=uds)
        stranger.url = server.url
        with pytest.raises(AssertionError, match="Invalid API Key"):
            stranger.get("/slots")
    assert not uds.exists()


def test_an_invalid_model_fails_with_the_servers_message(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"not a model")
    with pytest.raises(ServerFailed, match="invalid magic"), LlamaServer(model=tmp_path / "bad"):
        pytest.fail("nothing can be served")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux lets a stranger wait for a process's end")
def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = "import tests.support.llama.server as s; x = s.LlamaServer().start(); print(x.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        ended, _, _ = select.select([child], [], [], 5)
        assert ended
    finally:
        os.close(child)
