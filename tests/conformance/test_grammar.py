"""The grammar accepts a valid transcript of each feature, and names the error of each invalid one."""

import copy
from typing import Any

import orjson
import pytest

from anthro_asgi.conformance.grammar import (
    FOLLOWS,
    Event,
    Grammar,
    GrammarError,
    check_stream,
    message_from_events,
    parse_events,
)

Json = dict[str, Any]

MESSAGE: Json = {
    "id": "msg_0123456789abcdefghijKL",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 0},
}


def event(kind: str, **data: Any) -> Event:
    return Event(kind, {"type": kind, **data})


def opening(index: int, block: Json) -> Event:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **data: Any) -> Event:
    return event("content_block_delta", index=index, delta={"type": kind, **data})


def closing(index: int) -> Event:
    return event("content_block_stop", index=index)


def block(index: int, start: Json, *deltas: Event) -> list[Event]:
    return [opening(index, start), *deltas, closing(index)]


def text(index: int, *pieces: str) -> list[Event]:
    return block(index, {"type": "text", "text": ""}, *(delta(index, "text_delta", text=piece) for piece in pieces))


def thinking(index: int, *pieces: str) -> list[Event]:
    deltas = [delta(index, "thinking_delta", thinking=piece) for piece in pieces]
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, start, *deltas, delta(index, "signature_delta", signature="c2ln"))


def tool(index: int, *pieces: str, id: str = "toolu_1", name: str = "weather") -> list[Event]:  # noqa: A002
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return block(index, {"type": "tool_use", "id": id, "name": name, "input": {}}, *deltas)


def finish(reason: Any = "end_turn", sequence: Any = None) -> Event:
    usage = {"input_tokens": 3, "output_tokens": 7}
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": sequence}, usage=usage)


BEGIN = event("message_start", message=MESSAGE)
PING = event("ping")
STOP = event("message_stop")
ERROR = event("error", error={"type": "api_error", "message": "Internal error"}, request_id="req_1")
END = [finish(), STOP]
CALLED = [finish("tool_use"), STOP]


def transcript(events: list[Event]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e.type.encode(), orjson.dumps(e.data)) for e in events)


def changed(source: Event, *path: str, to: Any) -> Event:
    """The event with another value at `path` in its data; `...` removes the key."""
    data = copy.deepcopy(source.data)
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    if to is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = to
    return Event(source.type, data)


# ---- valid transcripts

SAID = {"type": "text", "text": "Hi é\u2028"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
RESULT = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
HI = text(0, "Hi", " é\u2028")

GOOD: dict[str, tuple[list[Event], list[Json], str]] = {
    "text": ([BEGIN, *HI, *END], [SAID], "end_turn"),
    "nothing": ([BEGIN, *END], [], "end_turn"),
    "pings": ([BEGIN, PING, *HI[:1], PING, PING, *HI[1:], PING, END[0], PING, STOP], [SAID], "end_turn"),
    "an empty text and no more": ([BEGIN, *text(0), *END], [{"type": "text", "text": ""}], "end_turn"),
    "a stop sequence": ([BEGIN, *HI, finish("stop_sequence", "\n"), STOP], [SAID], "stop_sequence"),
    "a refusal": ([BEGIN, *HI, finish("refusal"), STOP], [SAID], "refusal"),
    "thinking": ([BEGIN, *thinking(0, "h", "m"), *text(1, "Hi é\u2028"), *END], [THOUGHT, SAID], "end_turn"),
    "thinking that is not shown": ([BEGIN, *thinking(0), *END], [{**THOUGHT, "thinking": ""}], "end_turn"),
    "a call": ([BEGIN, *tool(0, '{"city":', ' "Paris"}'), *CALLED], [CALL], "tool_use"),
    "a call without input": ([BEGIN, *tool(0), *CALLED], [{**CALL, "input": {}}], "tool_use"),
    "two calls and text": (
        [BEGIN, *tool(0, '{"city":"Paris"}'), *tool(1, "{}", id="toolu_2"), *text(2, "Hi é\u2028"), *CALLED],
        [CALL, {**CALL, "id": "toolu_2", "input": {}}, SAID],
        "tool_use",
    ),
    "a call cut short": (
        [BEGIN, *tool(0, '{"city": "Pa'), finish("max_tokens"), STOP],
        [{**CALL, "input": '{"city": "Pa'}],
        "max_tokens",
    ),
    "a call with fields of another server": (
        [BEGIN, changed(tool(0)[0], "content_block", "caller", to={"type": "direct"}), *tool(0)[1:], *CALLED],
        [{**CALL, "input": {}, "caller": {"type": "direct"}}],
        "tool_use",
    ),
    "an estimate of hidden thinking": (
        [
            BEGIN,
            thinking(0)[0],
            delta(0, "thinking_delta", thinking="", estimated_tokens=50),
            *thinking(0)[1:],
            *END,
        ],
        [{**THOUGHT, "thinking": ""}],
        "end_turn",
    ),
    "a server tool": (
        [
            BEGIN,
            *block(
                0,
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                delta(0, "input_json_delta", partial_json='{"q":'),
                delta(0, "input_json_delta", partial_json='"a"}'),
            ),
            *END,
        ],
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "a"}}],
        "end_turn",
    ),
    "a compaction": (
        [
            BEGIN,
            *block(
                0,
                {"type": "compaction", "content": None},
                delta(0, "compaction_delta", content="a", encrypted_content="x"),
                delta(0, "compaction_delta", content="b", encrypted_content="y"),
            ),
            finish("compaction"),
            STOP,
        ],
        [{"type": "compaction", "content": "ab", "encrypted_content": "y"}],
        "compaction",
    ),
    "a whole block": ([BEGIN, *block(0, RESULT), *text(1, "Hi é\u2028"), *END], [RESULT, SAID], "end_turn"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_valid_transcript_passes_and_gives_its_message(name: str) -> None:
    events, content, reason = GOOD[name]
    assert parse_events(transcript(events)) == events
    check_stream(events)
    message = message_from_events(events)
    assert (message["content"], message["stop_reason"]) == (content, reason)


def test_a_message_has_the_final_usage_and_the_extra_fields_of_the_engine() -> None:
    last = changed(finish("stop_sequence", "\n"), "delta", "container", to={"id": "c"})
    last = changed(last, "usage", "cache_read_input_tokens", to=2)
    assert message_from_events([BEGIN, *HI, last, STOP]) == {
        **MESSAGE,
        "content": [SAID],
        "stop_reason": "stop_sequence",
        "stop_sequence": "\n",
        "usage": {"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 2},
        "container": {"id": "c"},
    }


def test_building_a_message_does_not_change_the_events() -> None:
    events = GOOD["two calls and text"][0]
    before = copy.deepcopy(events)
    message_from_events(events)
    assert events == before


@pytest.mark.parametrize("length", range(1 + len(HI) + 2))
def test_an_error_is_allowed_at_any_point_before_the_end(length: int) -> None:
    events = [*[BEGIN, *HI, *END][:length], ERROR]
    check_stream(events)
    with pytest.raises(GrammarError, match="holds no message") as caught:
        message_from_events(events)
    assert caught.value.index == length


def test_blocks_may_be_incomplete_in_a_stream_that_ends_with_an_error() -> None:
    check_stream([BEGIN, *tool(0, '{"city'), *text(1), ERROR])


# ---- invalid transcripts

OPEN_TEXT, OPEN_THINKING, OPEN_TOOL = HI[0], thinking(0)[0], tool(0)[0]
SIGNATURE = thinking(0)[1]

BAD: list[tuple[str, int, list[Event]]] = [
    # order
    ("ping is not allowed before message_start", 0, [PING, BEGIN, *END]),
    ("content_block_start is not allowed before message_start", 0, [*HI, *END]),
    ("message_start is not allowed between blocks", 1, [BEGIN, BEGIN, *END]),
    ("content_block_start is not allowed inside a block", 2, [BEGIN, OPEN_TEXT, opening(1, SAID), *END]),
    ("content_block_delta is not allowed between blocks", 1, [BEGIN, HI[1], *END]),
    ("content_block_stop is not allowed between blocks", 5, [BEGIN, *HI, closing(0), *END]),
    ("message_delta is not allowed inside a block", 2, [BEGIN, OPEN_TEXT, *END]),
    ("message_delta is not allowed after message_delta", 2, [BEGIN, finish(), finish(), STOP]),
    ("content_block_start is not allowed after message_delta", 2, [BEGIN, finish(), *HI, STOP]),
    ("message_stop is not allowed between blocks", 1, [BEGIN, STOP]),
    ("ping is not allowed after the end", 3, [BEGIN, *END, PING]),
    ("message_stop is not allowed after the end", 3, [BEGIN, *END, STOP]),
    ("error is not allowed after the end", 3, [BEGIN, *END, ERROR]),
    ("error is not allowed after the end", 2, [BEGIN, ERROR, ERROR]),
    ("message_stop is not allowed after the end", 2, [BEGIN, ERROR, STOP]),
    ("completion is not allowed between blocks", 1, [BEGIN, event("completion"), *END]),
    ("the stream ends before message_start", 0, []),
    ("the stream ends between blocks", 1, [BEGIN]),
    ("the stream ends inside a block", 2, [BEGIN, OPEN_TEXT]),
    ("the stream ends after message_delta", 2, [BEGIN, finish()]),
    # message_start
    ("message_start must have", 0, [changed(BEGIN, "index", to=0), *END]),
    ("message_start must have", 0, [changed(BEGIN, "message", to=...), *END]),
    ("message must be an object", 0, [changed(BEGIN, "message", to=None), *END]),
    ("message.type must be", 0, [changed(BEGIN, "message", "type", to="text"), *END]),
    ("message.role must be", 0, [changed(BEGIN, "message", "role", to=...), *END]),
    (r"message.content must be \[\]", 0, [changed(BEGIN, "message", "content", to=[SAID]), *END]),
    ("message.stop_reason must be None", 0, [changed(BEGIN, "message", "stop_reason", to=...), *END]),
    ("message.stop_reason must be None", 0, [changed(BEGIN, "message", "stop_reason", to="end_turn"), *END]),
    ("message.stop_sequence must be None", 0, [changed(BEGIN, "message", "stop_sequence", to=...), *END]),
    ("message.id must be msg_", 0, [changed(BEGIN, "message", "id", to="chatcmpl-0123456789abcdefghij"), *END]),
    ("message.id must be msg_", 0, [changed(BEGIN, "message", "id", to="msg_123"), *END]),
    ("message.id must be msg_", 0, [changed(BEGIN, "message", "id", to=None), *END]),
    ("message.model must be", 0, [changed(BEGIN, "message", "model", to=""), *END]),
    ("usage must have", 0, [changed(BEGIN, "message", "usage", to=None), *END]),
    ("usage must have", 0, [changed(BEGIN, "message", "usage", "input_tokens", to=...), *END]),
    ("usage must have", 0, [changed(BEGIN, "message", "usage", "output_tokens", to=None), *END]),
    ("usage must have", 0, [changed(BEGIN, "message", "usage", "output_tokens", to=True), *END]),
    ("usage must have", 0, [changed(BEGIN, "message", "usage", "input_tokens", to=-1), *END]),
    # ping, message_stop
    ("ping must have type", 1, [BEGIN, event("ping", data={}), *END]),
    ("message_stop must have type", 2, [BEGIN, finish(), event("message_stop", usage={})]),
    # indices
    ("the index must be 0", 1, [BEGIN, *text(1, "a"), *END]),
    ("the index must be 1", 4, [BEGIN, *text(0, "a"), *text(0, "b"), *END]),
    ("the index must be 1", 4, [BEGIN, *text(0, "a"), *text(2, "b"), *END]),
    ("the index must be 0", 2, [BEGIN, OPEN_TEXT, delta(1, "text_delta", text="a"), closing(0), *END]),
    ("the index must be 0", 2, [BEGIN, OPEN_TEXT, closing(1), *END]),
    ("the index must be 0", 1, [BEGIN, changed(OPEN_TEXT, "index", to=False), *END]),
    # content_block_start
    ("content_block_start must have", 1, [BEGIN, changed(OPEN_TEXT, "content_block", to=...), *END]),
    ("content_block must be an object", 1, [BEGIN, changed(OPEN_TEXT, "content_block", to="text"), *END]),
    ("content_block.type must be", 1, [BEGIN, changed(OPEN_TEXT, "content_block", "type", to=...), *END]),
    ("a text block must start with", 1, [BEGIN, changed(OPEN_TEXT, "content_block", "text", to="a"), *END]),
    ("a text block must start with", 1, [BEGIN, changed(OPEN_TEXT, "content_block", "text", to=...), *END]),
    ("a text block must start with", 1, [BEGIN, changed(OPEN_TEXT, "content_block", "citations", to=None), *END]),
    (
        "a thinking block must start with",
        1,
        [BEGIN, changed(OPEN_THINKING, "content_block", "signature", to=...), *END],
    ),
    ("a thinking block must start with", 1, [BEGIN, changed(OPEN_THINKING, "content_block", "thinking", to="a"), *END]),
    ("tool_use must have", 1, [BEGIN, changed(OPEN_TOOL, "content_block", "input", to=...), *END]),
    ("a tool_use block must have an id", 1, [BEGIN, changed(OPEN_TOOL, "content_block", "id", to=None), *END]),
    ("a tool_use block must have an id", 1, [BEGIN, changed(OPEN_TOOL, "content_block", "name", to=""), *END]),
    ("must start with an empty input", 1, [BEGIN, changed(OPEN_TOOL, "content_block", "input", to={"a": 1}), *END]),
    ("must start with an empty input", 1, [BEGIN, changed(OPEN_TOOL, "content_block", "input", to=""), *END]),
    # content_block_delta
    ("content_block_delta must have", 2, [BEGIN, OPEN_TEXT, changed(HI[1], "delta", to=...), *END]),
    ("delta must be an object", 2, [BEGIN, OPEN_TEXT, changed(HI[1], "delta", to="a"), *END]),
    ("None is not allowed in a text block", 2, [BEGIN, OPEN_TEXT, changed(HI[1], "delta", "type", to=...), *END]),
    (
        "thinking_delta is not allowed in a text block",
        2,
        [BEGIN, OPEN_TEXT, delta(0, "thinking_delta", thinking="a"), *END],
    ),
    ("signature_delta is not allowed in a text block", 2, [BEGIN, OPEN_TEXT, SIGNATURE, *END]),
    (
        "text_delta is not allowed in a thinking block",
        2,
        [BEGIN, OPEN_THINKING, delta(0, "text_delta", text="a"), *END],
    ),
    ("text_delta is not allowed in a tool_use block", 2, [BEGIN, OPEN_TOOL, delta(0, "text_delta", text="a"), *END]),
    ("text_delta is not allowed in a web_search_tool_result block", 2, [BEGIN, *block(0, RESULT, HI[1]), *END]),
    ("text_delta must have", 2, [BEGIN, OPEN_TEXT, changed(HI[1], "delta", "text", to=...), *END]),
    ("text_delta must have", 2, [BEGIN, OPEN_TEXT, changed(HI[1], "delta", "thinking", to="a"), *END]),
    ("text_delta.text must be a string that is not empty", 2, [BEGIN, *text(0, ""), *END]),
    (
        "text_delta.text must be a string that is not empty",
        2,
        [BEGIN, OPEN_TEXT, delta(0, "text_delta", text=None), *END],
    ),
    ("thinking_delta.thinking must be", 2, [BEGIN, *thinking(0, ""), *END]),
    ("signature_delta.signature must be", 2, [BEGIN, OPEN_THINKING, delta(0, "signature_delta", signature=""), *END]),
    ("input_json_delta.partial_json must be", 2, [BEGIN, *tool(0, ""), *CALLED]),
    # signatures
    ("a thinking block must end with its signature", 2, [BEGIN, OPEN_THINKING, closing(0), *END]),
    ("nothing may follow the signature", 3, [BEGIN, OPEN_THINKING, SIGNATURE, SIGNATURE, closing(0), *END]),
    (
        "nothing may follow the signature",
        3,
        [BEGIN, OPEN_THINKING, SIGNATURE, delta(0, "thinking_delta", thinking="a"), closing(0), *END],
    ),
    # content_block_stop
    ("content_block_stop must have", 2, [BEGIN, OPEN_TEXT, changed(closing(0), "usage", to={}), *END]),
    # rules that depend on the stop reason
    ("are not a JSON object", 3, [BEGIN, *tool(0, '{"city'), *CALLED]),
    ("are not a JSON object", 3, [BEGIN, *tool(0, "[]"), *CALLED]),
    ("are not a JSON object", 3, [BEGIN, *tool(0, '{"a":NaN}'), *CALLED]),
    ("are not a JSON object", 3, [BEGIN, *tool(0, "{}{}"), *CALLED]),
    ("are not a JSON object", 3, [BEGIN, *tool(0, "{"), *tool(1, "{}"), *CALLED]),
    ("a text block is empty", 2, [BEGIN, *text(0), *text(1, "a"), *END]),
    ("a text block is empty", 5, [BEGIN, *tool(0, "{}"), *text(1), *CALLED]),
    ("no tool was called", 5, [BEGIN, *HI, *CALLED]),
    ("stop_reason is end_turn, although a tool was called", 4, [BEGIN, *tool(0, "{}"), *END]),
    (
        "stop_reason is stop_sequence, although a tool was called",
        4,
        [BEGIN, *tool(0, "{}"), finish("stop_sequence", "a"), STOP],
    ),
    # message_delta
    ("message_delta must have", 1, [BEGIN, changed(finish(), "usage", to=...), STOP]),
    ("message_delta must have", 1, [BEGIN, changed(finish(), "delta", to=...), STOP]),
    ("must have stop_reason, stop_sequence", 1, [BEGIN, changed(finish(), "delta", "stop_sequence", to=...), STOP]),
    ("must have stop_reason, stop_sequence", 1, [BEGIN, changed(finish(), "delta", "stop_reason", to=...), STOP]),
    ("None is not a stop_reason", 1, [BEGIN, finish(None), STOP]),
    (r"\[\] is not a stop_reason", 1, [BEGIN, finish([]), STOP]),
    ("'stop' is not a stop_reason", 1, [BEGIN, finish("stop"), STOP]),
    ("'model_context_window_exceeded' is not a", 1, [BEGIN, finish("model_context_window_exceeded"), STOP]),
    ("stop_sequence must be the matched string", 1, [BEGIN, finish("stop_sequence"), STOP]),
    ("stop_sequence must be the matched string", 1, [BEGIN, finish("stop_sequence", ""), STOP]),
    ("stop_sequence must be null if stop_reason is end_turn", 1, [BEGIN, finish("end_turn", "\n"), STOP]),
    ("usage must have", 1, [BEGIN, changed(finish(), "usage", "input_tokens", to=...), STOP]),
    ("usage must have", 1, [BEGIN, changed(finish(), "usage", "output_tokens", to=1.5), STOP]),
    ("usage must have", 1, [BEGIN, changed(finish(), "usage", to=[]), STOP]),
    # error
    ("error must have", 1, [BEGIN, changed(ERROR, "request_id", to=...)]),
    ("error must have", 1, [BEGIN, changed(ERROR, "status", to=500)]),
    ("error must be an object", 1, [BEGIN, changed(ERROR, "error", to="boom")]),
    (r"error holds unknown keys: \['code'\]", 1, [BEGIN, changed(ERROR, "error", "code", to=500)]),
    ("'server_error' is not a type of error", 1, [BEGIN, changed(ERROR, "error", "type", to="server_error")]),
    (r"\[\] is not a type of error", 1, [BEGIN, changed(ERROR, "error", "type", to=[])]),
    ("error.message must not be empty", 1, [BEGIN, changed(ERROR, "error", "message", to=None)]),
    ("error.details must be an object", 1, [BEGIN, changed(ERROR, "error", "details", to=[])]),
    ("request_id must be req_", 1, [BEGIN, changed(ERROR, "request_id", to="msg_1")]),
    ("request_id must be req_", 1, [BEGIN, changed(ERROR, "request_id", to=None)]),
]


@pytest.mark.parametrize(("rule", "index", "events"), BAD)
def test_a_broken_rule_is_reported_with_the_index_of_its_event(rule: str, index: int, events: list[Event]) -> None:
    with pytest.raises(GrammarError, match=rule) as caught:
        check_stream(events)
    assert caught.value.index == index
    assert str(caught.value).startswith(f"event {index}: ")


@pytest.mark.parametrize("state", FOLLOWS)
@pytest.mark.parametrize("kind", sorted(Grammar._READ))
def test_each_event_in_each_state_changes_the_state_or_is_refused(state: str, kind: str) -> None:
    events = {e.type: e for e in [BEGIN, PING, *HI, *END, ERROR]}
    ways = {
        "before message_start": [],
        "between blocks": [BEGIN],
        "inside a block": [BEGIN, OPEN_TEXT],
        "after message_delta": [BEGIN, finish()],
        "after the end": [BEGIN, *END],
    }
    grammar = Grammar()
    for each in ways[state]:
        grammar.feed(each)
    assert grammar.state == state
    following = "after the end" if kind == "error" and state != "after the end" else FOLLOWS[state].get(kind)
    if following is None:
        with pytest.raises(GrammarError, match=f"{kind} is not allowed {state}"):
            grammar.feed(events[kind])
    else:
        grammar.feed(events[kind])
    assert grammar.state == (following or state)


# ---- bytes

LINE = b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.clause("5.4")
@pytest.mark.parametrize(
    ("rule", "index", "body"),
    [
        ("the body ends inside an event", 1, LINE + LINE[:-1]),
        ("the body ends inside an event", 1, LINE + b"data: [DONE]"),
        ("not one event line and one data line", 1, LINE + b"data: [DONE]\n\n"),
        ("not one event line and one data line", 0, LINE.replace(b"\n", b"\r\n") + b"\n\n"),
        ("not one event line and one data line", 0, b": comment\n\n"),
        ("not one event line and one data line", 0, b": comment\n" + LINE),
        ("not one event line and one data line", 0, b"\n" + LINE),
        ("not one event line and one data line", 0, b"\xef\xbb\xbf" + LINE),
        ("not one event line and one data line", 1, LINE + b"\n" + LINE),
        ("not one event line and one data line", 0, b'event: ping\nid: 1\ndata: {"type":"ping"}\n\n'),
        ("not one event line and one data line", 0, b'data: {"type":"ping"}\nevent: ping\n\n'),
        ("not one event line and one data line", 0, b'data: {"type":"ping"}\n\n'),
        ("not one event line and one data line", 0, b'event: ping\ndata: {"type":\ndata: "ping"}\n\n'),
        ("not one event line and one data line", 0, b'event:ping\ndata: {"type":"ping"}\n\n'),
        ("not one event line and one data line", 0, b'event: ping\ndata: ["ping"]\n\n'),
        ("data is not JSON", 0, b"event: ping\ndata: {type:ping}\n\n"),
        ("data is not JSON", 0, b'event: ping\ndata: {"type":"\xff"}\n\n'),
        (
            "the event is ping, but the type in its data is 'message_stop'",
            0,
            b'event: ping\ndata: {"type":"message_stop"}\n\n',
        ),
        ("the event is ping, but the type in its data is None", 0, b"event: ping\ndata: {}\n\n"),
    ],
)
def test_bytes_that_are_not_events_are_reported(rule: str, index: int, body: bytes) -> None:
    with pytest.raises(GrammarError, match=rule) as caught:
        parse_events(body)
    assert caught.value.index == index


def test_an_empty_body_has_no_events() -> None:
    assert parse_events(b"") == []
