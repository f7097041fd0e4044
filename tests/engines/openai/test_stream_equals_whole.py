"""The same engine output gives the same Message with and without `stream`, however odd the output is (contract 5.17).

Generated streams mix text, thinking and calls with hostile arguments, several choices, usage in every place, and every
kind of finish reason. Both paths of the reader are compared too.
"""

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.wire.deltas import Delta, deltas_of
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.message import MessageBuilder
from anthro_asgi.wire.request import parse_request

pytestmark = pytest.mark.slow

Json = dict[str, Any]

ARGUMENTS = st.lists(
    st.sampled_from(
        ['{"a":', '{"', '"', "1", "true", "None", "}", "]", "[", ",", ":", " ", "\n", "\\", "\\u00", "{}", "null", "é"]
    )
    | st.sampled_from(
        ['{"a":1}', '{"a":"C:\\Users"}', '"{\\"a\\":1}"', '{"a":1}{}', '```json\n{"a":1}\n```', '{"a":[1,2,],}']
    ),
    max_size=5,
)
TEXTS = st.sampled_from(["a", " b", "\n\n", " ", "", "é🙂"])
USAGES: list[Json] = [
    {},
    {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}},
    {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
    {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}}},
    {"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}},
    {"timings": {"prompt_n": 5, "cache_n": 4, "predicted_n": 3}},
]
FINISHES = ["stop", "length", "tool_calls", "content_filter", "SAFETY", "model_length", "odd", "abort", "network_error"]


@st.composite
def deltas(draw: st.DrawFn) -> list[Json]:
    """The deltas of one run: text, thinking, or a call in pieces."""
    kind = draw(st.sampled_from(["content", "reasoning", "reasoning_content", "call", "ghost"]))
    if kind == "ghost":
        ghost = {"name": "", "arguments": draw(st.sampled_from(["", "{}"]))}
        index = draw(st.sampled_from([0, 1, 7]))
        return [{"tool_calls": [{"index": index, "id": draw(st.sampled_from(["", "x"])), "function": ghost}]}]
    if kind != "call":
        return [{kind: text} for text in draw(st.lists(TEXTS, min_size=1, max_size=3))]
    index = draw(st.integers(0, 2))
    start: Json = {"index": index, "id": draw(st.sampled_from(["c0", "c1", None])), "function": {"name": "look"}}
    pieces = draw(ARGUMENTS)
    return [
        {"tool_calls": [start]},
        *({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces),
    ]


@st.composite
def streams(draw: st.DrawFn) -> list[Json]:
    chunks: list[Json] = []
    for run in draw(st.lists(deltas(), max_size=5)):
        index = draw(st.sampled_from([0, 0, 0, 0, 1]))
        chunks += [{"choices": [{"index": index, "delta": delta}], **draw(st.sampled_from(USAGES))} for delta in run]
    for index in sorted({choice["index"] for chunk in chunks for choice in chunk["choices"]} | {0}):
        last: Json = {"index": index, "delta": {}, "finish_reason": draw(st.sampled_from(FINISHES))}
        chunks.append({"choices": [last], **draw(st.sampled_from(USAGES))})
    return chunks


def read(chunks: list[Json]) -> tuple[list[Delta], str]:
    """The deltas, and the error that ended them."""
    numbers = count(1)
    reader = FastChunkReader(ChunkReader((), lambda: f"toolu_{next(numbers)}"))
    out: list[Delta] = []
    try:
        for chunk in chunks:
            out += deltas_of(reader.read(b"data: %b\n\n" % json.dumps(chunk).encode()))
        out += reader.rest()
        out += reader.end()
    except ApiError as exc:
        return out, str(exc)
    return out, ""


def streamed(batch: list[Delta]) -> Json:
    encoder = StreamEncoder("msg_" + "x" * 24, "m", lambda: 1)
    body = encoder.start() + b"".join(encoder.feed(delta) for delta in batch) + encoder.end(1)
    events = parse_events(body)
    check_stream(events)
    return message_from_events(events)


def whole(batch: list[Delta]) -> Json:
    builder = MessageBuilder("msg_" + "x" * 24, "m", lambda: 1)
    builder.feed(batch)
    return builder.message(1)


def is_cut(message: Json) -> bool:
    return bool(message["stop_reason"] == "max_tokens")


@pytest.mark.clause("5.17")
@pytest.mark.clause("5.18")
@settings(derandomize=True, deadline=None, max_examples=200)
@given(chunks=streams())
def test_a_stream_and_a_whole_answer_have_the_same_content(chunks: list[Json]) -> None:
    batch, error = read(chunks)
    if error:
        return
    left, right = streamed(batch), whole(batch)
    assert left["stop_reason"] == right["stop_reason"]
    assert left["usage"] == right["usage"]
    blocks = [block for block in left["content"] if block["type"] != "tool_use"] if is_cut(left) else left["content"]
    others = [block for block in right["content"] if block["type"] != "tool_use"] if is_cut(left) else right["content"]
    assert blocks == others
    assert right["usage"]["input_tokens"] > 0
    if any(block["type"] == "text" and block["text"] for block in right["content"]):
        assert right["content"][-1]["type"] != "thinking"
    if right["stop_reason"] == "end_turn" and any("tool_calls" in str(chunk) for chunk in chunks):
        assert right["content"] or not any('"name": "look"' in json.dumps(chunk) for chunk in chunks)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(chunks=streams())
def test_what_an_answer_holds_is_accepted_in_the_next_request(chunks: list[Json]) -> None:
    batch, error = read(chunks)
    if error:
        return
    content = whole(batch)["content"]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "r"}
        for block in content
        if block["type"] == "tool_use"
    ]
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": content or "b"},
        {"role": "user", "content": [*results, {"type": "text", "text": "c"}]},
    ]
    request = parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode())
    assert len(request.messages) == 3
