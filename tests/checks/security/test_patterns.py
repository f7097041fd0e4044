"""No input of a client or an engine takes more than linear time to process.

A regular expression that backtracks blocks the whole service, and its work grows with the square of the text or worse
(regular-expression denial of service). With the texts here, such an expression would take seconds to minutes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import orjson
import pytest

from anthro_asgi.engines.openai import chunk_template, refusals, retry
from anthro_asgi.engines.openai.dialects import VLLM
from anthro_asgi.engines.openai.sent_messages import look_in_steps
from anthro_asgi.engines.openai.think_tags import ThinkTagFilter
from anthro_asgi.engines.shared.answer_length import shorter_answer
from anthro_asgi.engines.shared.context_overflow import find_bound
from anthro_asgi.engines.shared.upstream_errors import error_from_chunk, error_from_response
from anthro_asgi.http.models import ModelAliases
from anthro_asgi.observability.logs import clean
from anthro_asgi.observability.trace_context import parse_trace_headers
from anthro_asgi.server.request_framing import RequestFraming
from anthro_asgi.simulator.schema_example import tool_input as made_up
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.json_codec import loads
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.request import parse_request
from anthro_asgi.wire.stop_sequences import StopSequenceMatcher
from anthro_asgi.wire.tool_input import parse_tool_input

AT_ONCE = 0.25  # seconds of CPU time of this thread; linear work takes milliseconds


def timed(work: Callable[[], object]) -> float:
    """CPU time in seconds. An error that is handled elsewhere is not a failure here."""
    begun = time.thread_time()
    with suppress(ApiError, orjson.JSONDecodeError):
        work()
    return time.thread_time() - begun


# --- error texts of engines, which may quote clients ---

SAID = 64_000
WORDS = {
    "line ends": "\n" * SAID,
    "indentation": "\n \t" * (SAID // 3),
    "digits": "1" * SAID,
    "a number without end": f"request ({'9' * 5000} tokens) exceeds the available context size (1 tokens)",
    "frames of a stack": '\n  File "' * (SAID // 9),
    "paths": "/app/" * (SAID // 5),
    "slashes": "/" * SAID,
    "tags": "<html" * (SAID // 5),
    "models": "model " * (SAID // 6),
    "a model": "model " + "x" * SAID,
    "inputs": "image input is " * (SAID // 15),
    "names of fields": "'user" * (SAID // 5),
    "arguments": "argument supplied " * (SAID // 18),
    **{
        f"{words!r} again and again": (words * SAID)[:SAID]
        for words in (
            *("maximum context length of 1 tokens", "maximum context length is 1 tokens", "request (1 tokens"),
            *("Input length 1 exceeds maximum context length", "exceed the configured limit of 1 tokens"),
            *("prompt length (1)", "max_seq_len (1) - ", "provided prompt is 1 tokens long", "The input (1 tokens)"),
            *("Prompt contains 1 tokens", "max_tokens use ", "messages resulted in ", "should not exceed "),
            *(
                "prompt contains at least 1 input tokens",
                "passed 1 input tokens and requested",
                "max_tokens should be ",
            ),
            *(
                "reasoning_content ",
                "reasoning unknown ",
                "tool_choice thinking ",
                "tool_choice only ",
                "content null ",
            ),
            *("tool call id ", "expected last role ", "missing ", "unexpected role 'user' "),
            *("1 ", "1)", "max 1 ", "maximum ", "maximum a ", "context length is only 1 tokens", "max_tokens: 1 > "),
            *("context length of 1 tokens", "prompt is 1 tokens long", "max_tokens=1 cannot be greater than "),
        )
    },
    **{
        f"{words!r} and digits": words + "1" * SAID
        for words in ("maximum context length of 1 tokens", "maximum context length is 1 tokens", "prompt length (")
    },
}


# A chat request with every field that a refusal may name.
LOOP: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "r",
            "tool_calls": [{"id": "c", "function": {"name": "f"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "It"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "strict": True}}],
    "tool_choice": "required",
    "top_k": 5,
}
SENT = run_to_end(look_in_steps(LOOP["messages"]))


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_an_error_text_of_an_engine_is_read_in_linear_time(words: str) -> None:
    asked = {"max_tokens": 5, "user": "a", "verbose": True, "stream_options": {}, "reasoning_effort": "low"}
    retry_after = [(b"retry-after", words[:99].encode())]
    for status in (400, 404, 422, 500):
        body = orjson.dumps({"error": {"message": words, "code": words}})
        assert timed(partial(error_from_response, status, body, retry_after)) < AT_ONCE
        assert timed(partial(error_from_response, status, words.encode())) < AT_ONCE
    assert timed(lambda: error_from_chunk({"error": {"message": words * 16, "code": 400}})) < AT_ONCE
    assert timed(lambda: shorter_answer(4096, words[:600])) < AT_ONCE
    assert timed(lambda: find_bound(words[:600])) < AT_ONCE
    assert timed(lambda: retry.rejected_field(asked, words[:600])) < AT_ONCE
    assert timed(lambda: refusals.amended_dialect(VLLM, LOOP, SENT, words[:6000])) < AT_ONCE


# --- the head of a request, before authentication ---

HEAD = 60_000
FIELDS = {
    "spaces within a value": b"expect: a" + b" " * HEAD + b"b",
    "tabs within a value": b"host: a" + b"\t" * HEAD + b"b",
    "spaces before a value": b"upgrade:" + b" " * HEAD + b"a",
    "spaces behind a value": b"expect: a" + b" " * HEAD,
    "spaces in between": b"expect:" + b" a" * (HEAD // 2),
    "commas": b"transfer-encoding:" + b" ," * (HEAD // 2),
    "empty fields": b"\r\n".join([b"a:"] * (HEAD // 4)),
    "expectations": b"\r\n".join([b"expect: a"] * (HEAD // 11)),
    "upgrades": b"\r\n".join([b"upgrade: a"] * (HEAD // 12)),
    "a long name": b"a" * HEAD + b": b",
    "a long name without a colon": b"a" * HEAD,
    "a NUL at the end": b"a: b\r\n" * (HEAD // 6) + b"\x00",
    "a host": b"host: " + b"a" * HEAD + b"/",
    "zeros": b"content-length: " + b"0" * HEAD + b"x",
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_request_head_is_read_in_linear_time_whole_or_in_pieces(fields: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n"
    assert timed(lambda: RequestFraming(65_536).feed(head)) < AT_ONCE

    def in_pieces() -> None:
        framing = RequestFraming(65_536)
        for start in range(0, len(head), 16):
            framing.feed(head[start : start + 16])

    assert timed(in_pieces) < AT_ONCE


@pytest.mark.parametrize(
    "line", [b"A" * HEAD, b"GET " + b"/" * HEAD, b"GET http://" + b"a" * HEAD, b"\r\n" * HEAD, b"GET" + b" " * HEAD]
)
def test_a_request_line_is_read_in_linear_time(line: bytes) -> None:
    for end in (b"", b" HTTP/1.1\r\nhost: a\r\n\r\n"):
        assert timed(partial(RequestFraming(65_536).feed, line + end)) < AT_ONCE


@pytest.mark.parametrize(
    "state", [b"a=" + b" " * HEAD, b"a=b," * (HEAD // 4), b"," * HEAD, b"a@" * (HEAD // 2), b"a=" + b"b " * (HEAD // 2)]
)
def test_trace_headers_are_read_in_linear_time(state: bytes) -> None:
    parent = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    assert timed(lambda: parse_trace_headers([(b"traceparent", parent), (b"tracestate", state)])) < AT_ONCE
    assert timed(lambda: parse_trace_headers([(b"traceparent", parent + b"-" * HEAD)])) < AT_ONCE
    assert timed(lambda: parse_trace_headers([(b"traceparent", b"0" * HEAD)])) < AT_ONCE


# --- the body of a request ---

LENGTH = 250_000
SPOKEN = {
    "a billing header of names": "x-anthropic-billing-header:" + " a.-=" * (LENGTH // 5),
    "a billing header of values": "x-anthropic-billing-header:" + "a=b;" * (LENGTH // 4) + "c",
    "a billing header of spaces": "x-anthropic-billing-header:" + " \t" * (LENGTH // 2),
    "billing headers": "x-anthropic-billing-header:" * (LENGTH // 27),
    "an address": "http://" * (LENGTH // 7),
    "data": "data:" + "x" * LENGTH,
    "stars": "*" * LENGTH,
    "nearly an alias": "a-" * (LENGTH // 2),
    "tags": "<think>" * (LENGTH // 7),
    "beginnings of tags": "<" * LENGTH,
    "ends of tags": "</think" * (LENGTH // 7),
    "control characters": "\x00" * LENGTH,
}


@pytest.mark.parametrize("words", SPOKEN.values(), ids=SPOKEN)
def test_text_of_a_client_is_read_in_linear_time(words: str) -> None:
    image = {"type": "image", "source": {"type": "url", "url": words}}
    content: list[Any] = [{"type": "text", "text": words}, image]
    asked = {"model": words, "max_tokens": 4, "system": words, "messages": [{"role": "user", "content": content}]}
    asked |= {"tools": [{"name": words, "input_schema": {}}], "metadata": {"user_id": words}}
    assert timed(lambda: parse_request(orjson.dumps(asked))) < AT_ONCE
    assert timed(lambda: parse_request(orjson.dumps({**asked, "messages": [], "tools": []}))) < AT_ONCE
    aliases = ModelAliases({"*-*-*-*x": "m", "a*a*a*a*b": "m", "*" * 20 + "y": "m"})
    assert timed(lambda: aliases.resolve(words)) < AT_ONCE
    assert timed(lambda: ThinkTagFilter(opened=True).feed(words)) < AT_ONCE
    assert timed(lambda: clean(words)) < AT_ONCE


@pytest.mark.parametrize(
    "body",
    [
        b"\\u" * LENGTH,
        b'"' + b"\\" * (LENGTH - 1) + b'ud800"',
        b'"' + (b"\\\\" * 50 + b"\\ud800") * (LENGTH // 106) + b'"',
        b'"' + b"\\ud83d" * (LENGTH // 6) + b'"',
        b"[" * LENGTH,
        b'{"":' * (LENGTH // 4),
        b"9" * LENGTH,
        b"-" * LENGTH,
        b"1e" + b"9" * LENGTH,
        b'{"a":1,' * (LENGTH // 7),
    ],
    ids=lambda body: f"{body[:12]!r}",
)
def test_almost_valid_json_is_read_in_linear_time(body: bytes) -> None:
    assert timed(lambda: loads(body)) < AT_ONCE
    assert timed(lambda: parse_request(body)) < AT_ONCE
    assert timed(lambda: parse_tool_input(body.decode())) < 2 * AT_ONCE


def test_stop_sequences_that_almost_match_everywhere_take_linear_time() -> None:
    for stops in (["a" * LENGTH + "b"], ["a" * size + "b" for size in range(1, 257)], ["ab" * 1000 + "c"] * 64):
        matcher = StopSequenceMatcher(stops)

        def read(matcher: StopSequenceMatcher = matcher) -> None:
            for _ in range(30):
                matcher.feed("aaaaaaaaab" * 4)

        assert timed(read) < 4 * AT_ONCE


# --- an engine's stream ---


@pytest.mark.parametrize(
    "words",
    [
        b'"content"' * 50_000,
        b'"content":"' * 50_000,
        b'"content"' + b" " * 500_000,
        b'"content":"' + b"\\" * 500_000,
        b'"usage" :' * 50_000,
    ],
    ids=lambda words: f"{words[:12]!r}",
)
def test_the_template_of_a_stream_is_learned_in_linear_time(words: bytes) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": words.decode()}}]}
    assert timed(lambda: chunk_template.learn_template(orjson.dumps(chunk), chunk)) < AT_ONCE
    assert timed(lambda: chunk_template.learn_template(words, chunk)) < 2 * AT_ONCE


# --- schemas for which the simulated engine makes examples ---

SCHEMAS = {
    "a pattern of repetitions": {"type": "string", "pattern": "(((((a{9}){9}){9}){9}){9}){9}"},
    "a pattern that repeats nothing": {"type": "string", "pattern": "((((|a){4000}){4000}){4000}){4000}"},
    "a pattern without end": {"type": "string", "pattern": "(a*)*(b|c*)*$", "minLength": 4_000_000_000},
    "a pattern of branches": {"type": "string", "pattern": "(a|b|c|d){4000}" * 60},
    "a long string": {"type": "string", "minLength": 10**12},
    "a long array": {"type": "array", "minItems": 10**12, "items": {"type": "string", "minLength": 10**12}},
    "arrays in arrays": {"$ref": "#", "type": "array", "minItems": 10**6, "uniqueItems": True},
    "many properties": {"type": "object", "minProperties": 10**9},
    "itself": {"allOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}] * 50}]},
    "one of many": {"oneOf": [{"allOf": [{"not": {"$ref": "#"}}] * 50}] * 50},
    "a step": {"type": "number", "multipleOf": 1e-300, "minimum": 1e300, "maximum": 1e300},
    "a deep one": orjson.loads(b'{"properties":{"a":' * 90 + b"{}" + b"}}" * 90),
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_example_for_a_schema_takes_bounded_time_and_space(schema: dict[str, Any]) -> None:
    whole = {"type": "object", "required": ["a"], "properties": {"a": schema}}
    made: list[Any] = []
    assert timed(lambda: made.append(made_up(whole, Random(1)))) < 16 * AT_ONCE
    assert len(orjson.dumps(made[0])) < 10_000_000
