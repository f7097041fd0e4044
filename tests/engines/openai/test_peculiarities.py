"""The peculiarities of engines (contract section 6): what the engine sends, and what the client receives.

`ROWS` is the table. Each row runs four times through the whole service over a real socket: streaming and not, with the
engine's response in one write and byte by byte. The result is a Message, the same in all four runs, or an error: an
HTTP status, or an `error` event if output was sent before (which is certain only if the bytes arrive one by one).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.upstream.pool import Deadlines
from tests.support.upstream import ScriptedUpstream, Wire, fragmented, framed, json_answer, sse

Json = dict[str, Any]
MADE_UP = "toolu_…"  # stands for any id that the service makes


@dataclass
class Row:
    """`answer` is the engine's whole response; after it the engine does `then`.

    Expected is either `content` with `reason`, `matched` and `usage`, or `error` as (status, type). `begun`: output is
    sent before the error. `whole` is the content of the answer without `stream`, if it differs. `clause` is the clause
    of the wire contract that the row proves.
    """

    answer: bytes
    content: list[Json] = field(default_factory=list)
    reason: str = "end_turn"
    matched: str | None = None
    usage: Json | None = None
    whole: list[Json] | None = None
    error: tuple[int, str] | None = None
    begun: bool = False
    then: Callable[[Wire], None] | None = None
    request: Json = field(default_factory=dict)
    engine: Json = field(default_factory=dict)
    clause: str = field(kw_only=True)


# what the engine sends


def chunk(finish: str | None = None, *, more: Json | None = None, **delta: Any) -> Json:
    """A chunk of a chat stream; `more` stands beside the delta in the choice."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(more or {})}]}


def calls(*calls: Json) -> Json:
    return chunk(tool_calls=list(calls))


def call(index: int | None, identity: str | None, name: str | None, arguments: Any = None) -> Json:
    """A piece of a call, without what is None."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    beside = {key: value for key, value in (("index", index), ("id", identity)) if value is not None}
    return {**beside, "function": function}


def usage(prompt: int, output: int, **more: Any) -> Json:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": output, **more}}


A, B, STOP, CALLED = chunk(content="a"), chunk(content="b"), chunk("stop"), chunk("tool_calls")
LOOK, LEAP = call(0, "c0", "look", '{"q":1}'), call(1, "c1", "leap", '{"r":2}')
GHOST = call(0, "", "", "")
EVENT_STREAM = [("content-type", "text/event-stream")]


def written(*events: bytes) -> bytes:
    return framed(200, EVENT_STREAM, events, "chunked")


def lines(*chunks: Json, start: bytes = b"data: ", end: bytes = b"\n\n") -> list[bytes]:
    return [start + json.dumps(said).encode() + end for said in chunks]


def unfinished(answer: bytes) -> bytes:
    """The same response without the end of its body."""
    return answer.removesuffix(b"0\r\n\r\n")


# what the client receives


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def thinking(words: str) -> Json:
    return {"type": "thinking", "thinking": words}


def use(identity: str, name: str, value: Any) -> Json:
    return {"type": "tool_use", "id": identity, "name": name, "input": value}


AB = [text("ab")]
LOOKED = use("c0", "look", {"q": 1})
LEAPT = use("c1", "leap", {"r": 2})
API, OVERLOADED = "api_error", "overloaded_error"
STOPS = {"stop_sequences": ["END", "2"]}

TEXTS = {
    "a delta of nothing but a role": Row(sse(chunk(role="assistant"), A, B, STOP), AB, clause="6.1"),
    "empty and null content": Row(
        sse(chunk(content=None), chunk(content=""), A, chunk(content=None), B, STOP), AB, clause="6.1"
    ),
    "an empty content and no more": Row(sse(chunk(content=""), STOP), [text("")], clause="4.2"),
    "no content at all": Row(sse(chunk(role="assistant"), STOP), [], clause="6.1"),
    "reasoning": Row(
        sse(chunk(reasoning="Hm"), chunk(reasoning="m."), A, B, STOP), [thinking("Hmm."), *AB], clause="6.1"
    ),
    "reasoning_content": Row(
        sse(chunk(reasoning_content="Hm.", content=None), A, B, STOP), [thinking("Hm."), *AB], clause="6.1"
    ),
    "reasoning that is only blank": Row(
        sse(chunk(reasoning="\n\n"), A, B, STOP), [thinking("\n\n"), *AB], clause="6.1"
    ),
    "think tags with --think-tags": Row(
        sse(chunk(content="<th"), chunk(content="ink>Hm.</thi"), chunk(content="nk>a"), B, STOP),
        [thinking("Hm."), *AB],
        engine={"think_tags": "tags"},
        clause="6.17",
    ),
    "think tags without --think-tags": Row(
        sse(chunk(content="<think>Hm.</think>"), STOP), [text("<think>Hm.</think>")], clause="6.17"
    ),
    "a hundred identical chunks": Row(sse(*[chunk(content="ha")] * 100, STOP), [text("ha" * 100)], clause="6.10"),
    "a refusal": Row(
        sse(chunk(refusal="I "), chunk(refusal="won't."), STOP), [text("I won't.")], "refusal", clause="6.5"
    ),
    "deltas after the finish": Row(sse(A, B, STOP, chunk(content="x"), chunk("length")), AB, clause="6.8"),
}

CALLS = {
    "content and a call in one delta": Row(
        sse(chunk(content="ab", tool_calls=[LOOK]), CALLED), [*AB, LOOKED], "tool_use", clause="6.1"
    ),
    "text after a call": Row(sse(calls(LOOK), A, B, CALLED), [LOOKED, *AB], "tool_use", clause="5.12"),
    "tool_calls that are empty": Row(sse(chunk(content="a", tool_calls=[]), B, STOP), AB, clause="6.1"),
    "a call without an id": Row(
        sse(calls(call(0, None, "look", "{")), calls(call(0, None, None, '"q":1}')), CALLED),
        [use(MADE_UP, "look", {"q": 1})],
        "tool_use",
        clause="6.2",
    ),
    "calls without an index": Row(
        sse(calls(call(None, "c0", "look", '{"q":1}')), calls(call(None, "c1", "leap", '{"r":2}')), CALLED),
        [LOOKED, LEAPT],
        "tool_use",
        clause="6.2",
    ),
    "calls without an index or an id": Row(
        sse(calls(call(None, None, "look", '{"q":1}'), call(None, None, "leap", '{"r":2}')), CALLED),
        [use(MADE_UP, "look", {"q": 1}), use(MADE_UP, "leap", {"r": 2})],
        "tool_use",
        clause="6.2",
    ),
    "the same index with a new id": Row(
        sse(calls(LOOK), calls({**LEAP, "index": 0}), CALLED), [LOOKED, LEAPT], "tool_use", clause="6.2"
    ),
    "id and name repeated in every chunk": Row(
        sse(*(calls(call(0, "c0", "look", piece)) for piece in ('{"q"', ":", "1}")), CALLED),
        [LOOKED],
        "tool_use",
        clause="6.2",
    ),
    "a name split over chunks": Row(
        sse(calls(call(0, "c0", "lo")), calls(call(0, None, "ok")), calls(call(0, None, None, '{"q":1}')), CALLED),
        [LOOKED],
        "tool_use",
        clause="6.2",
    ),
    "arguments as an object": Row(
        sse(calls(call(0, "c0", "look", {"q": 1})), CALLED), [LOOKED], "tool_use", clause="6.2"
    ),
    "a call without arguments": Row(
        sse(calls(call(0, "c0", "look")), CALLED), [use("c0", "look", {})], "tool_use", clause="6.2"
    ),
    "calls that interleave": Row(
        sse(
            calls(call(0, "c0", "look", '{"q"')),
            calls(call(1, "c1", "leap", '{"r')),
            calls(call(0, None, None, ":1")),
            calls(call(1, None, None, '":2}'), call(0, None, None, "}")),
            CALLED,
        ),
        [LOOKED, LEAPT],
        "tool_use",
        clause="5.9",
    ),
    "a legacy function_call": Row(
        sse(
            chunk(function_call={"name": "look", "arguments": '{"q'}),
            chunk(function_call={"arguments": '":1}'}),
            chunk("function_call"),
        ),
        [use(MADE_UP, "look", {"q": 1})],
        "tool_use",
        clause="6.5",
    ),
    "max_tokens inside a call's arguments": Row(
        sse(A, B, calls(call(0, "c0", "look", '{"city":"Par')), chunk("length")),
        [*AB, use("c0", "look", '{"city":"Par')],
        "max_tokens",
        whole=[*AB, use("c0", "look", {"city": "Par"})],
        clause="6.16",
    ),
    "max_tokens inside arguments that cannot be repaired": Row(
        sse(A, B, calls(call(0, "c0", "look", "<|nonsense")), chunk("length")),
        AB,
        "max_tokens",
        clause="6.16",
    ),
    "arguments that are a string of JSON": Row(
        sse(calls(call(0, "c0", "look", '{"q":"\\u2028 \\" } é 🙂"}')), CALLED),
        [use("c0", "look", {"q": '\u2028 " } é 🙂'})],
        "tool_use",
        clause="6.2",
    ),
}

HELD = {
    "arguments that are encoded twice": Row(
        sse(calls(call(0, "c0", "look", json.dumps('{"q":1}'))), CALLED), [LOOKED], "tool_use", clause="5.10"
    ),
    "arguments that are null": Row(
        sse(calls(call(0, "c0", "look", "null")), CALLED),
        [use("c0", "look", {"value": None})],
        "tool_use",
        clause="5.10",
    ),
    "arguments that are white space": Row(
        sse(calls(call(0, "c0", "look", " \n")), CALLED), [use("c0", "look", {})], "tool_use", clause="5.18"
    ),
    "an empty object and then the real arguments": Row(
        sse(calls(call(0, "c0", "look", "{}")), calls(call(0, None, None, '{"q":1}')), CALLED),
        [LOOKED],
        "tool_use",
        clause="5.10",
    ),
    "an empty object and then the real arguments, both as objects": Row(
        sse(calls(call(0, "c0", "look", {})), calls(call(0, "c0", "look", {"q": 1})), CALLED),
        [LOOKED],
        "tool_use",
        clause="5.10",
    ),
    "a snapshot that grows": Row(
        sse(
            calls(call(0, "c0", "look", {})),
            calls(call(0, "c0", "look", {"q": "a"})),
            calls(call(0, "c0", "look", {"q": "ab", "r": 1})),
            CALLED,
        ),
        [use("c0", "look", {"q": "ab", "r": 1})],
        "tool_use",
        clause="5.10",
    ),
    "a summary that repeats the calls": Row(
        sse(
            calls(call(0, "c0", "look", '{"q"')),
            calls(call(0, None, None, ":1}")),
            calls(LEAP),
            calls(LOOK, LEAP),
            CALLED,
        ),
        [LOOKED, LEAPT],
        "tool_use",
        clause="5.10",
    ),
    "a ghost call beside a good one": Row(
        sse(calls(LOOK, {"index": 1, "id": "", "function": {"name": "", "arguments": ""}}), CALLED),
        [LOOKED],
        "tool_use",
        clause="6.13",
    ),
    "a ghost call before and after a good one of the same index": Row(
        sse(calls(GHOST), calls(LOOK), calls(GHOST), CALLED), [LOOKED], "tool_use", clause="6.13"
    ),
    "a ghost call with an id among the pieces of a good one": Row(
        sse(
            calls(call(0, "c0", "look", "")),
            calls(call(0, "x", "", "")),
            calls(call(0, None, None, '{"q"')),
            calls(call(0, "x", "", "")),
            calls(call(0, None, None, ":1}")),
            CALLED,
        ),
        [LOOKED],
        "tool_use",
        clause="6.13",
    ),
    "a call in another choice": Row(
        sse(
            A,
            {"choices": [{"index": 1, "delta": {"tool_calls": [LOOK]}, "finish_reason": "tool_calls"}]},
            B,
            STOP,
        ),
        [*AB, LOOKED],
        "tool_use",
        clause="6.13",
    ),
    "arguments with a single backslash": Row(
        sse(calls(call(0, "c0", "look", '{"p":"C:')), calls(call(0, None, None, '\\Users"}')), CALLED),
        [use("c0", "look", {"p": "C:\\Users"})],
        "tool_use",
        clause="4.6",
    ),
    "a missing brace": Row(
        sse(calls(call(0, "c0", "look", '{"q"')), calls(call(0, None, None, ":1")), CALLED),
        [LOOKED],
        "tool_use",
        clause="5.18",
    ),
    "thinking after the text": Row(sse(A, B, chunk(reasoning="Hm"), STOP), AB, clause="5.11"),
    "a lost call": Row(sse(calls(call(0, "c0", "look", "<tool>")), CALLED), error=(502, API), clause="4.6"),
    "an error word as the first event": Row(
        sse({"error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "slow down"}}),
        error=(429, "rate_limit_error"),
        clause="6.12",
    ),
    "another vendor's error with status 200": Row(
        json_answer(200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
        error=(429, "rate_limit_error"),
        clause="6.12",
    ),
}

FINISHES = {
    "finish stop though tools were called": Row(sse(calls(LOOK), STOP), [LOOKED], "tool_use", clause="6.3"),
    "finish tool_calls": Row(sse(A, calls(LOOK), CALLED), [text("a"), LOOKED], "tool_use", clause="6.3"),
    "finish tool_calls without a call": Row(sse(A, B, CALLED), AB, clause="6.3"),
    "finish function_call": Row(sse(calls(LOOK), chunk("function_call")), [LOOKED], "tool_use", clause="6.3"),
    "finish length": Row(sse(A, B, chunk("length")), AB, "max_tokens", clause="6.3"),
    "finish length with the last text": Row(sse(A, chunk("length", content="b")), AB, "max_tokens", clause="6.3"),
    "finish length after a complete call": Row(sse(calls(LOOK), chunk("length")), [LOOKED], "max_tokens", clause="6.3"),
    "finish content_filter": Row(sse(A, B, chunk("content_filter")), AB, "refusal", clause="6.3"),
    "finish eos_token": Row(sse(A, B, chunk("eos_token")), AB, clause="6.3"),
    "finish abort": Row(sse(A, chunk("abort")), error=(502, API), begun=True, clause="4.4"),
    "finish error": Row(sse(A, chunk("error")), error=(502, API), begun=True, clause="4.4"),
    "vLLM's stop_reason holds the stop sequence": Row(
        sse(A, B, chunk("stop", more={"stop_reason": "END"})), AB, "stop_sequence", "END", request=STOPS, clause="6.4"
    ),
    "vLLM's stop_reason holds a token id": Row(
        sse(A, B, chunk("stop", more={"stop_reason": 2})), AB, request=STOPS, clause="6.4"
    ),
    "SGLang's matched_stop holds the stop sequence": Row(
        sse(A, B, chunk("stop", more={"matched_stop": "END"})), AB, "stop_sequence", "END", request=STOPS, clause="6.4"
    ),
    "SGLang's matched_stop holds a token id": Row(
        sse(A, B, chunk("stop", more={"matched_stop": 2})), AB, request=STOPS, clause="6.4"
    ),
    "a stop sequence that the engine leaves in the text": Row(
        sse(A, chunk(content="bE"), chunk(content="ND"), chunk(content="x"), STOP),
        AB,
        "stop_sequence",
        "END",
        request=STOPS,
        clause="4.7",
    ),
    "no [DONE]": Row(sse(A, B, STOP, done=False), AB, clause="6.8"),
}

CACHED = usage(9, 2, prompt_tokens_details={"cached_tokens": 4})
COUNTED = {"input_tokens": 9, "output_tokens": 2}
USAGES = {
    "usage in every chunk": Row(
        sse({**A, **usage(9, 1)}, {**B, **usage(9, 2)}, {**STOP, **usage(9, 2)}), AB, usage=COUNTED, clause="6.6"
    ),
    "usage in the finish chunk": Row(sse(A, B, {**STOP, **usage(9, 2)}), AB, usage=COUNTED, clause="6.6"),
    "usage in a chunk with empty choices": Row(
        sse(A, B, STOP, {"choices": [], **usage(9, 2)}), AB, usage=COUNTED, clause="6.6"
    ),
    "no usage": Row(sse(chunk(role="assistant"), A, B, STOP), AB, usage={"output_tokens": 2}, clause="6.6"),
    "cached prompt tokens": Row(
        sse(A, B, STOP, {"choices": [], **CACHED}),
        AB,
        usage={"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 4},
        clause="6.6",
    ),
}

WHOLE = {"choices": [{"index": 0, "message": {"content": "ab", "tool_calls": [LOOK]}, "finish_reason": "tool_calls"}]}
ONE = json.dumps(chunk(content="b\u2028é🙂"), ensure_ascii=False).encode()
WRITINGS = {
    "lines that end in CRLF": Row(
        written(*lines(A, B, STOP, end=b"\r\n\r\n"), b"data: [DONE]\r\n\r\n"), AB, clause="6.9"
    ),
    "comments": Row(written(b": hello\n\n", *lines(A, B, STOP, start=b": ping\ndata: ")), AB, clause="6.9"),
    "U+2028 and UTF-8 split across reads": Row(
        written(*lines(A), b"data: " + ONE + b"\n\n", *lines(STOP)), [text("ab\u2028é🙂")], clause="6.9"
    ),
    "event, id and retry lines": Row(
        written(*lines(A, B, STOP, start=b"event: x\nid: 7\nretry: 9\ndata: ")), AB, clause="6.9"
    ),
    "no space after data:": Row(written(*lines(A, B, STOP, start=b"data:"), b"data:[DONE]\n\n"), AB, clause="6.9"),
    "several data lines": Row(
        written(
            *(
                b"data: " + json.dumps(said, indent=1).encode().replace(b"\n", b"\ndata: ") + b"\n\n"
                for said in (A, B, STOP)
            )
        ),
        AB,
        clause="6.9",
    ),
    "a byte order mark": Row(written(b"\xef\xbb\xbf", *lines(A, B, STOP)), AB, clause="6.9"),
    "a body in chunks": Row(sse(A, B, STOP, framing="chunked"), AB, clause="6.15"),
    "a body of a known length": Row(sse(A, B, STOP, framing="length"), AB, clause="6.15"),
    "a body that ends with the connection": Row(sse(A, B, STOP, framing="close"), AB, clause="6.15"),
    "a JSON answer to a streaming request": Row(
        json_answer(200, {**WHOLE, **usage(9, 2)}), [*AB, LOOKED], "tool_use", usage=COUNTED, clause="6.15"
    ),
}

FAILED = {"error": {"message": "CUDA error at /opt/engine/x.cu", "code": 500}}
HTML = framed(200, [("content-type", "text/html")], [b"<!doctype html><title>Sign in</title>"], "length")
FAILURES = {
    "an error object first": Row(sse(FAILED), error=(500, API), clause="6.11"),
    "an error object that says busy first": Row(
        sse({"error": {"message": "busy", "code": 503}}), error=(529, OVERLOADED), clause="6.11"
    ),
    "an error object in mid-stream": Row(sse(A, FAILED), error=(500, API), begun=True, clause="6.11"),
    "an invalid JSON chunk": Row(sse(A, b"data: {oops\n\n", B, STOP), error=(502, API), begun=True, clause="6.14"),
    "an invalid JSON chunk first": Row(sse(b"data: {oops\n\n", A, STOP), error=(502, API), clause="6.14"),
    "HTML with status 200": Row(HTML, error=(502, API), clause="6.14"),
    "a connection reset": Row(
        unfinished(sse(A, B, done=False)), error=(502, API), begun=True, then=Wire.reset, clause="6.14"
    ),
    "a clean EOF in a chunked body": Row(
        unfinished(sse(A, B, done=False)), error=(502, API), begun=True, then=Wire.close, clause="6.14"
    ),
    "a clean EOF of a close-delimited body": Row(
        sse(A, B, done=False, framing="close"), error=(502, API), begun=True, then=Wire.close, clause="6.14"
    ),
    "an end without a finish reason": Row(sse(A, B), error=(502, API), begun=True, clause="5.16"),
    "nothing but [DONE]": Row(sse(), error=(502, API), clause="6.14"),
    "an empty body": Row(framed(200, EVENT_STREAM, [], "length"), error=(502, API), clause="6.14"),
    "a stall": Row(
        unfinished(sse(A, B, done=False)),
        error=(504, "timeout_error"),
        begun=True,
        then=lambda _: None,
        engine={"deadlines": Deadlines(silence=0.05)},
        clause="6.14",
    ),
}

MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
BOTH = {"index": 0, "message": {"content": "ab", "tool_calls": [LOOK]}, "finish_reason": "tool_calls"}
NEIGHBOURS = {
    "reasoning_text": Row(sse(chunk(reasoning_text="Hm."), A, B, STOP), [thinking("Hm."), *AB], clause="6.1"),
    "thinking": Row(sse(chunk(thinking="Hm."), A, B, STOP), [thinking("Hm."), *AB], clause="6.1"),
    "reasoning_details": Row(
        sse(chunk(reasoning_details=[{"type": "reasoning.text", "text": "Hm."}]), A, B, STOP),
        [thinking("Hm."), *AB],
        clause="6.1",
    ),
    "reasoning in two forms": Row(
        sse(chunk(reasoning="Hm.", reasoning_details=[{"text": "Hm."}]), A, B, STOP),
        [thinking("Hm."), *AB],
        clause="6.1",
    ),
    "a last chunk that repeats the text": Row(sse(A, B, {"choices": [MESSAGE]}), AB, clause="5.10"),
    "a last chunk that repeats the text and a call": Row(
        sse(A, B, calls(LOOK), {"choices": [BOTH]}), [*AB, LOOKED], "tool_use", clause="5.10"
    ),
    "a last chunk that repeats the text and has the call": Row(
        sse(A, B, {"choices": [BOTH]}), [*AB, LOOKED], "tool_use", clause="5.10"
    ),
    "a snapshot that grows inside a string": Row(
        sse(*(calls(call(0, "c0", "look", text)) for text in ('{"q"', '{"q":"x', '{"q":"xy"}')), CALLED),
        [use("c0", "look", {"q": "xy"})],
        "tool_use",
        clause="5.10",
    ),
    "a placeholder and a snapshot that grows": Row(
        sse(
            calls(call(0, "c0", "look", "{}")),
            *(calls(call(0, None, None, text)) for text in ('{"q":"x', '{"q":"xy"}')),
            CALLED,
        ),
        [use("c0", "look", {"q": "xy"})],
        "tool_use",
        clause="5.10",
    ),
    "an object in an object of the same key": Row(
        sse(calls(call(0, "c0", "look", '{"q":')), calls(call(0, None, None, '{"q":1}}')), CALLED),
        [use("c0", "look", {"q": {"q": 1}})],
        "tool_use",
        clause="5.10",
    ),
    "arguments encoded three times": Row(
        sse(calls(call(0, "c0", "look", json.dumps(json.dumps('{"q":1}')))), CALLED),
        [LOOKED],
        "tool_use",
        clause="5.10",
    ),
    "an empty object without id and name beside text": Row(
        sse(A, B, calls(call(0, "", "", "{}")), STOP), AB, clause="6.13"
    ),
    "usage in the words of another API": Row(
        sse(A, B, STOP | {"usage": {"input_tokens": 9, "output_tokens": 3}}),
        AB,
        usage={"input_tokens": 9, "output_tokens": 3},
        clause="6.7",
    ),
    "usage of nothing but zeros": Row(
        sse(usage(9, 0) | {"choices": []}, A, B, STOP | usage(0, 0)),
        AB,
        usage={"input_tokens": 9, "output_tokens": 2},
        clause="4.11",
    ),
    "an error in a list": Row(
        sse([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}]),  # type: ignore[arg-type]  # Gemini sends one
        error=(429, "rate_limit_error"),
        clause="6.12",
    ),
    "a call that the engine could not read": Row(
        sse(A, chunk("MALFORMED_FUNCTION_CALL")), error=(502, API), begun=True, clause="4.6"
    ),
}

ROWS: dict[str, Row] = NEIGHBOURS | TEXTS | CALLS | HELD | FINISHES | USAGES | WRITINGS | FAILURES


def marked(*, error: bool) -> list[ParameterSet]:
    """The rows that end in an error, or those that end in a message; each marked with its clause."""
    return [
        pytest.param(row, id=name, marks=pytest.mark.clause(row.clause))
        for name, row in ROWS.items()
        if (row.error is not None) is error
    ]


# the four runs


FRAGMENTS = [pytest.param(False, id="at once"), pytest.param(True, id="byte by byte", marks=pytest.mark.slow)]


async def asked(row: Row, *, stream: bool, by_bytes: bool) -> Response:
    async def answer(wire: Wire) -> None:
        await fragmented(row.answer, range(len(row.answer)) if by_bytes else ())(wire)
        if row.then is not None:
            row.then(wire)
            await wire.gone()

    async with ScriptedUpstream(answer) as upstream:
        engine = OpenAIEngine(Origin.parse(upstream.url), dialect="openai", **row.engine)
        try:
            body = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
            sent = json.dumps({**body, **row.request}).encode()
            return await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=sent)
        finally:
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"
            await engine.stop()


def shown(block: Json) -> Json:
    """A block without its signature; an id that the service made is replaced by MADE_UP."""
    shown = {key: value for key, value in block.items() if key != "signature"}
    if shown.get("id", "").startswith("toolu_"):
        shown["id"] = MADE_UP
    return shown


@pytest.mark.parametrize("by_bytes", FRAGMENTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("row", marked(error=False))
async def test_each_peculiarity_gives_the_expected_message(row: Row, stream: bool, by_bytes: bool) -> None:
    response = await asked(row, stream=stream, by_bytes=by_bytes)
    assert response.status == 200, response.body
    message = message_from_events(parse_events(response.body)) if stream else response.json()
    content = row.content if stream or row.whole is None else row.whole
    assert [shown(block) for block in message["content"]] == content
    assert (message["stop_reason"], message["stop_sequence"]) == (row.reason, row.matched)
    assert (row.usage or {}).items() <= message["usage"].items()
    assert all(block["signature"] for block in message["content"] if block["type"] == "thinking")


@pytest.mark.parametrize("by_bytes", FRAGMENTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("row", marked(error=True))
async def test_each_failure_is_an_error_and_never_end_turn(row: Row, stream: bool, by_bytes: bool) -> None:
    response = await asked(row, stream=stream, by_bytes=by_bytes)
    if stream and row.begun and (by_bytes or response.status == 200):
        *before, last = parse_events(response.body)
        assert (response.status, last.type) == (200, "error")
        assert "message_delta" not in [event.type for event in before]
        envelope, expected = last.data, row.error[1] if row.error else None
        assert envelope["error"]["type"] == expected
    else:
        envelope = response.json()
        assert (response.status, envelope["error"]["type"]) == row.error
    assert envelope["request_id"] == response.header("request-id")
    assert b"/opt/" not in response.body
