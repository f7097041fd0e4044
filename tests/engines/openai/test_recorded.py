"""Streams recorded from five real engines, read by `ChunkReader`, against an independent reading of the chunks."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import ApiError, BadUpstream, EngineFailed, InvalidRequest
from tests.replay import Case, cases

BROKEN: dict[str, type[ApiError]] = {
    "vllm/12_midstream_kill_v1_chat_completions.sse": EngineFailed,
    "vllm-noreason/06f_thinking_budget.sse": InvalidRequest,
    "sglang/12_midstream_abort_v1_chat_completions.sse": BadUpstream,
    "sglang/12_midstream_kill_v1_chat_completions.sse": BadUpstream,
    "llama-cpp-python/07b_ctx_exceeded_stream.json": BadUpstream,
}
STREAMS = cases(request="POST /v1/chat/completions", status=200, streamed=True)
WHOLE = cases(request="POST /v1/chat/completions", status=200, streamed=False)
MEANING = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def payloads(case: Case) -> list[bytes]:
    """The data of a recording's events. Each of these recordings has one `data: ` line per event."""
    return [line.removeprefix(b"data: ") for line in case.content.split(b"\n") if line.startswith(b"data: ")]


def read(said: list[bytes], stops: list[str]) -> list[Delta]:
    reader = ChunkReader(stops, lambda: "toolu_1")
    return reader.feed(said) + reader.end()


def stops_of(case: Case) -> list[str]:
    return case.body.get("stop", []) if isinstance(case.body, dict) else []


def shown(deltas: list[Delta]) -> Any:
    """Text, thinking and arguments, each joined; the names of the calls; the stop reason and stop sequence."""
    finish = deltas[-1]
    assert isinstance(finish, Finish)
    return {
        "text": "".join(delta for delta in deltas if isinstance(delta, str)),
        "thinking": "".join(delta.text for delta in deltas if isinstance(delta, Thinking)),
        "names": [delta.name for delta in deltas if isinstance(delta, ToolStart)],
        "arguments": "".join(delta.fragment for delta in deltas if isinstance(delta, ToolJson)),
        "reason": finish.stop_reason,
        "matched": finish.stop_sequence,
    }


def expected(chunks: list[Any], stops: list[str]) -> Any:
    """The same, read directly from the raw chunks."""
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    choices.sort(key=lambda choice: choice.get("index") or 0)
    deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    named = {
        call.get("index", call.get("id")): call["function"]["name"] for call in calls if call["function"].get("name")
    }
    reason = next(choice["finish_reason"] for choice in choices if choice.get("finish_reason"))
    told = [choice.get("stop_reason") or choice.get("matched_stop") for choice in choices]
    told += [chunk["__verbose"].get("stopping_word") for chunk in chunks if "__verbose" in chunk]
    matched = next((word for word in told if word in stops), None)
    text = "".join(delta.get("content") or "" for delta in deltas)
    return {
        "text": "" if text.isspace() and calls else text,
        "thinking": "".join(delta.get("reasoning_content") or delta.get("reasoning") or "" for delta in deltas),
        "names": list(named.values()),
        "arguments": "".join(call["function"].get("arguments") or "" for call in calls),
        "reason": "stop_sequence" if matched else MEANING[reason],
        "matched": matched,
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in STREAMS if case.file not in BROKEN], ids=str)
def test_every_recorded_stream_is_read_completely(case: Case) -> None:
    said, stops = payloads(case), stops_of(case)
    chunks = [json.loads(payload) for payload in said if payload != b"[DONE]"]
    assert shown(read(said, stops)) == expected(chunks, stops)


@pytest.mark.slow
@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_every_recorded_completion_is_read_completely(case: Case) -> None:
    stops = stops_of(case)
    assert shown(read([case.content], stops)) == expected([json.loads(case.content)], stops)


@pytest.mark.parametrize("case", [case for case in STREAMS if case.file in BROKEN], ids=str)
def test_every_recorded_failure_in_a_stream_is_an_error(case: Case) -> None:
    with pytest.raises(ApiError) as caught:
        read(payloads(case), [])
    assert type(caught.value) is BROKEN[case.file]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in STREAMS + WHOLE if case.file not in BROKEN], ids=str)
def test_every_recorded_usage_is_reported(case: Case) -> None:
    said = payloads(case) if case.streamed else [case.content]
    usage = [delta for delta in read(said, []) if isinstance(delta, Usage)][-1]
    reported = [chunk["usage"] for chunk in map(json.loads, said[:-1] if case.streamed else said) if chunk.get("usage")]
    if case.engine == "transformers" and case.streamed:
        reported = [json.loads(said[-1])["usage"]]  # it sends no [DONE]
    if reported:
        details = reported[-1].get("prompt_tokens_details") or {}
        cached = (details.get("cached_tokens") or 0) + (details.get("created_cache_tokens") or 0)
        prompt, output = reported[-1]["prompt_tokens"], reported[-1]["completion_tokens"]
        assert ((usage.input_tokens or 0) + cached, usage.output_tokens) == (prompt, output)
    else:
        assert usage.output_tokens is not None
