"""The encoder: each cell of its state table, the bytes of each event, each rule of the grammar."""

import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.conformance.grammar import FOLLOWS, check_stream, message_from_events, parse_events
from anthro_asgi.wire.deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    DeltaOrderError,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    Thinking,
    ThinkingEstimate,
    ToolJson,
    ToolStart,
    Usage,
)
from anthro_asgi.wire.encoder import TRANSITIONS, State, StreamEncoder
from anthro_asgi.wire.errors import Overloaded
from anthro_asgi.wire.message import PLACEHOLDER_SIGNATURE
from tests.wire.strategies import batches, examples, scripts

ID = "msg_0123456789abcdefghij"
REQUEST_ID = "req_1"

VERBS: dict[str, Callable[[StreamEncoder], bytes]] = {
    "start": lambda encoder: encoder.start(),
    "text": lambda encoder: encoder.feed("t"),
    "thinking": lambda encoder: encoder.feed(Thinking("t")),
    "signature": lambda encoder: encoder.feed(Signature("s")),
    "tool_start": lambda encoder: encoder.feed(ToolStart("toolu_1", "w")),
    "tool_json": lambda encoder: encoder.feed(ToolJson("{}")),
    "citation": lambda encoder: encoder.feed(Citation({"type": "page_location"})),
    "block_stop": lambda encoder: encoder.feed(BlockStop()),
    "block": lambda encoder: encoder.feed(Block({"type": "redacted_thinking", "data": "x"})),
    "estimate": lambda encoder: encoder.feed(ThinkingEstimate(50)),
    "other_text": lambda encoder: encoder.feed(OtherDelta("text", {"type": "other_delta"})),
    "other_thinking": lambda encoder: encoder.feed(OtherDelta("thinking", {"type": "other_delta"})),
    "finish": lambda encoder: encoder.end(7),
    "ping": lambda encoder: encoder.ping(),
    "error": lambda encoder: encoder.error(Overloaded(), REQUEST_ID),
}
WAY_TO: dict[State, tuple[str, ...]] = {
    State.READY: (),
    State.IDLE: ("start",),
    State.TEXT: ("start", "text"),
    State.THINKING: ("start", "thinking"),
    State.SIGNED: ("start", "thinking", "signature"),
    State.TOOL: ("start", "tool_start"),
    State.DONE: ("start", "finish"),
}
CELLS = [(state, verb) for state in State for verb in VERBS]


def new_encoder(estimate: Callable[[], int] = lambda: 5) -> StreamEncoder:
    return StreamEncoder(ID, "some-model", estimate)


def encoder_in(state: State) -> StreamEncoder:
    """An encoder in this state that has a Finish, so that every verb can be called."""
    encoder = new_encoder()
    encoder.feed(Finish("end_turn"))
    for verb in WAY_TO[state]:
        VERBS[verb](encoder)
    assert encoder.state is state
    return encoder


def kinds(data: bytes) -> tuple[str, ...]:
    """The types of the events in `data`; for a content_block_delta, the type of its delta."""
    return tuple(
        event.data["delta"]["type"] if "block_delta" in event.type else event.type for event in parse_events(data)
    )


def snapshot(encoder: StreamEncoder) -> dict[str, Any]:
    return {name: copy.deepcopy(getattr(encoder, name)) for name in StreamEncoder.__slots__ if name != "_estimate"}


def stream(*batches: Batch, counted: int = 0, estimate: Callable[[], int] = lambda: 5) -> bytes:
    """A whole stream. Usage before any output is fed before the start, as the service does it."""
    encoder = new_encoder(estimate)
    waiting = list(batches)
    while isinstance(waiting[0], Usage | MessageFields) or waiting[0] == "":
        assert encoder.feed(waiting.pop(0)) == b""
    return encoder.start() + b"".join(map(encoder.feed, waiting)) + encoder.end(counted)


def body_of(*batches: Batch) -> bytes:
    """The bytes between message_start and message_delta of a stream that ends with end_turn."""
    data = stream(*batches, Finish("end_turn"))
    start, end = data.index(b"event: content_block_start"), data.index(b"event: message_delta")
    return data[start:end]


def last_delta(*batches: Batch, **options: Any) -> dict[str, Any]:
    *_, delta, _ = parse_events(stream(*batches, **options))
    assert delta.type == "message_delta"
    return delta.data


# the table


def test_these_tests_know_every_verb_and_state_of_the_table() -> None:
    assert {verb for _, verb in TRANSITIONS} == set(VERBS)
    assert set(WAY_TO) == set(State)


@pytest.mark.clause("5.2")
@pytest.mark.parametrize(("state", "verb"), [cell for cell in CELLS if cell in TRANSITIONS], ids=str)
def test_a_cell_of_the_table_writes_its_events_and_leads_to_its_state(state: State, verb: str) -> None:
    events, after = TRANSITIONS[state, verb]
    encoder = encoder_in(state)
    assert kinds(VERBS[verb](encoder)) == events
    assert encoder.state is after


@pytest.mark.parametrize(("state", "verb"), [cell for cell in CELLS if cell not in TRANSITIONS], ids=str)
def test_a_pair_missing_from_the_table_is_an_order_error_and_changes_nothing(state: State, verb: str) -> None:
    encoder = encoder_in(state)
    before = snapshot(encoder)
    with pytest.raises(DeltaOrderError, match=f"^{verb} in state {state.name}$"):
        VERBS[verb](encoder)
    assert snapshot(encoder) == before


GRAMMAR_STATES = {State.READY: "before message_start", State.IDLE: "between blocks", State.DONE: "after the end"}


@pytest.mark.clause("5.2")
@pytest.mark.parametrize("cell", TRANSITIONS, ids=str)
def test_every_cell_of_the_table_keeps_the_grammar(cell: tuple[State, str]) -> None:
    events, after = TRANSITIONS[cell]
    state = GRAMMAR_STATES.get(cell[0], "inside a block")
    for event in events:
        if event == "error":
            state = "after the end"
        else:
            state = FOLLOWS[state][
                "content_block_delta" if event.endswith("_delta") and "message" not in event else event
            ]
    assert state == GRAMMAR_STATES.get(after, "inside a block")


def test_nothing_is_allowed_after_the_stream_is_done() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.DONE}


# bytes


@pytest.mark.clause("5.5")
def test_the_bytes_of_message_start() -> None:
    assert new_encoder().start() == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"msg_0123456789abcdefghij","type":"message","role":"assistant",'
        b'"model":"some-model","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":5,"output_tokens":0}}}\n\n'
    )


@pytest.mark.clause("5.6", "5.7")
def test_the_bytes_of_a_text_block() -> None:
    assert body_of("Hé", "\n") == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"H\xc3\xa9"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"\\n"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    )


@pytest.mark.clause("5.6", "5.7")
def test_the_bytes_of_a_thinking_block() -> None:
    assert body_of(Thinking("hm"), Signature("c2ln")) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"thinking_delta","thinking":"hm"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"signature_delta","signature":"c2ln"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    )


@pytest.mark.clause("5.6", "5.7")
def test_the_bytes_of_a_tool_use_block() -> None:
    assert body_of(ToolStart('toolu_"', "w"), ToolJson('{"a":'), ToolJson("1}")) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"tool_use","id":"toolu_\\"","name":"w","input":{}}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"input_json_delta","partial_json":"1}"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    )


@pytest.mark.clause("5.19")
def test_the_bytes_of_a_whole_block() -> None:
    assert body_of(Block({"type": "redacted_thinking", "data": "eA=="})) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"redacted_thinking","data":"eA=="}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    )


@pytest.mark.clause("5.13")
def test_the_bytes_of_the_end() -> None:
    encoder = new_encoder()
    encoder.start()
    encoder.feed([Usage(3, 9), Finish("stop_sequence", "END")])
    assert encoder.end(1) == (
        b'event: message_delta\ndata: {"type":"message_delta",'
        b'"delta":{"stop_reason":"stop_sequence","stop_sequence":"END"},'
        b'"usage":{"input_tokens":3,"output_tokens":9}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_the_bytes_of_ping_and_error() -> None:
    encoder = encoder_in(State.IDLE)
    assert encoder.ping() == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert encoder.error(Overloaded("busy"), "req_7") == (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"},'
        b'"request_id":"req_7"}\n\n'
    )


# the grammar, rule by rule


def test_a_stream_is_message_start_then_blocks_then_message_delta_then_message_stop() -> None:
    assert kinds(stream("a", Finish("end_turn"))) == (
        "message_start",
        "content_block_start",
        "text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    )


def test_a_stream_may_have_no_block() -> None:
    assert kinds(stream(Finish("end_turn"))) == ("message_start", "message_delta", "message_stop")


@pytest.mark.clause("5.2")
def test_an_error_ends_a_stream_at_any_point_with_a_block_left_open() -> None:
    encoder = encoder_in(State.TEXT)
    assert kinds(encoder.error(Overloaded(), REQUEST_ID)) == ("error",)
    for verb in VERBS.values():
        with pytest.raises(DeltaOrderError):
            verb(encoder)


@pytest.mark.clause("5.2")
def test_a_ping_between_deltas_does_not_change_a_block() -> None:
    encoder = encoder_in(State.TEXT)
    data = encoder.ping() + encoder.feed("more")
    assert kinds(data) == ("ping", "text_delta")


@pytest.mark.clause("5.3")
def test_one_block_is_open_at_a_time_and_indices_count_up() -> None:
    data = stream("a", Thinking("b"), ToolStart("toolu_1", "w"), ToolStart("toolu_2", "w"), "c", Finish("end_turn"))
    events = parse_events(data)
    opened = [event.data["index"] for event in events if event.type == "content_block_start"]
    around = [
        (event.type, event.data["index"])
        for event in events
        if event.type.endswith(("start", "stop")) and "index" in event.data
    ]
    assert opened == [0, 1, 2, 3, 4]
    assert around == [(kind, index) for index in opened for kind in ("content_block_start", "content_block_stop")]


@pytest.mark.clause("5.8")
def test_thinking_is_followed_by_one_signature_before_its_stop() -> None:
    expected = ("content_block_start", "thinking_delta", "thinking_delta", "signature_delta", "content_block_stop")
    assert kinds(body_of(Thinking("a"), Thinking("b"))) == expected
    assert kinds(body_of(Thinking("a"), Thinking("b"), Signature("s"))) == expected


def test_the_engine_s_own_signature_is_passed_on() -> None:
    assert b'"signature":"bWluZQ=="' in body_of(Thinking("a"), Signature("bWluZQ=="), "b")
    assert PLACEHOLDER_SIGNATURE.encode() not in body_of(Thinking("a"), Signature("bWluZQ=="), "b")


@pytest.mark.clause("5.8")
@pytest.mark.parametrize("unsigned", [[], [Signature("")]], ids=["none", "empty"])
def test_thinking_without_a_signature_gets_one_that_is_not_empty(unsigned: list[Delta]) -> None:
    assert PLACEHOLDER_SIGNATURE
    assert body_of(Thinking("a"), unsigned, "b").count(PLACEHOLDER_SIGNATURE.encode()) == 1


def test_a_signature_alone_makes_a_block_without_thinking() -> None:
    assert kinds(body_of("a", Signature("s")))[3:] == ("content_block_start", "signature_delta", "content_block_stop")


def test_thinking_after_a_signature_opens_another_block() -> None:
    data = body_of(Thinking("a"), Signature("s"), Thinking("b"))
    assert kinds(data).count("content_block_start") == kinds(data).count("signature_delta") == 2


@pytest.mark.clause("5.7")
def test_the_pieces_of_an_input_join_to_its_json_and_no_piece_means_an_empty_object() -> None:
    told: list[Delta] = [
        ToolStart("toolu_1", "w"),
        ToolJson('{"a"'),
        ToolJson(""),
        ToolJson(": 1}"),
        ToolStart("toolu_2", "w"),
    ]
    content = message_from_events(parse_events(stream(told, Finish("tool_use"))))["content"]
    assert [block["input"] for block in content] == [{"a": 1}, {}]


@pytest.mark.clause("5.12")
def test_text_after_a_tool_call_opens_a_new_text_block() -> None:
    content = message_from_events(parse_events(stream("a", ToolStart("toolu_1", "w"), "b", "c", Finish("end_turn"))))[
        "content"
    ]
    assert [block["type"] for block in content] == ["text", "tool_use", "text"]
    assert content[2]["text"] == "bc"


@pytest.mark.clause("5.12")
@pytest.mark.parametrize("state", [state for state in State if state not in (State.READY, State.DONE)])
@pytest.mark.parametrize("empty", ["", Thinking(""), Signature(""), Usage(), Usage(1, 2, 3, 4)], ids=repr)
def test_an_empty_delta_writes_nothing_and_closes_nothing(state: State, empty: Delta) -> None:
    encoder = encoder_in(state)
    assert encoder.feed(empty) == b""
    assert encoder.state is state


def test_an_empty_piece_of_tool_input_writes_nothing() -> None:
    assert encoder_in(State.TOOL).feed(ToolJson("")) == b""


@pytest.mark.clause("5.19")
def test_fields_of_a_whole_block_pass_unchanged() -> None:
    block = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"new": [1, None, "é"]}]}
    start, stop = parse_events(body_of(Block(block)))
    assert start.data["content_block"] == block
    assert stop.type == "content_block_stop"


def test_an_end_without_a_finish_is_an_order_error() -> None:
    encoder = new_encoder()
    encoder.start()
    encoder.feed("a")
    with pytest.raises(DeltaOrderError):
        encoder.end(1)
    assert encoder.state is State.TEXT


# empty text


def test_an_empty_text_is_the_content_when_the_engine_sent_nothing_else() -> None:
    data = stream("", Usage(1, 1), "", Finish("end_turn"))
    assert kinds(data)[1:3] == ("content_block_start", "content_block_stop")
    assert message_from_events(parse_events(data))["content"] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize(
    "other", ["a", Thinking("a"), Signature("a"), ToolStart("toolu_1", "w"), Block({"type": "x"})], ids=repr
)
def test_an_empty_text_is_not_a_block_beside_other_content(other: Delta) -> None:
    assert kinds(stream("", other, "", Finish("end_turn"))).count("content_block_start") == 1


def test_content_stays_empty_when_the_engine_sent_no_text_at_all() -> None:
    assert message_from_events(parse_events(stream(Thinking(""), Finish("end_turn"))))["content"] == []


# usage


def estimates() -> tuple[list[int], Callable[[], int]]:
    """An estimate function, and a list with an item for each call of it."""
    calls: list[int] = []
    return calls, lambda: calls.append(1) or 42  # type: ignore[func-returns-value]


def test_the_prompt_is_estimated_once_if_the_engine_does_not_report_its_length() -> None:
    calls, estimate = estimates()
    events = parse_events(stream("a", Finish("end_turn"), counted=3, estimate=estimate))
    assert events[0].data["message"]["usage"] == {"input_tokens": 42, "output_tokens": 0}
    assert events[-2].data["usage"] == {"input_tokens": 42, "output_tokens": 3}
    assert len(calls) == 1


def test_the_prompt_is_not_estimated_when_its_length_came_first() -> None:
    calls, estimate = estimates()
    events = parse_events(stream(Usage(9, 1, 4), "a", Finish("end_turn"), estimate=estimate))
    assert events[0].data["message"]["usage"] == {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4}
    assert calls == []


@pytest.mark.clause("5.5")
def test_an_estimate_is_corrected_in_message_delta() -> None:
    events = parse_events(stream("a", Usage(9, 2), Finish("end_turn"), counted=3))
    assert events[0].data["message"]["usage"]["input_tokens"] == 5
    assert events[-2].data["usage"] == {"input_tokens": 9, "output_tokens": 2}


@pytest.mark.clause("5.13")
def test_cache_counts_are_passed_on_also_when_they_are_zero() -> None:
    usage = last_delta("a", Usage(9, 2, 0, 7), Finish("end_turn"))["usage"]
    assert usage == {
        "input_tokens": 9,
        "output_tokens": 2,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 7,
    }


def test_a_newer_usage_replaces_only_the_counts_it_has() -> None:
    usage = last_delta(Usage(9, 1, 3), "a", Usage(None, 2), Usage(8, None), Finish("end_turn"))["usage"]
    assert usage == {"input_tokens": 8, "output_tokens": 2, "cache_read_input_tokens": 3}


def test_a_reported_output_of_zero_tokens_is_kept() -> None:
    assert last_delta("a", Usage(output_tokens=0), Finish("end_turn"), counted=3)["usage"]["output_tokens"] == 0


# stop reasons

CALL = ToolStart("toolu_1", "w")


@pytest.mark.clause("4.3")
@pytest.mark.parametrize(
    ("deltas", "told"),
    [
        (["a", Finish("end_turn")], ("end_turn", None)),
        (["a", Finish("end_turn", "ignored")], ("end_turn", None)),
        (["a", Finish("max_tokens")], ("max_tokens", None)),
        (["a", Finish("stop_sequence", "END")], ("stop_sequence", "END")),
        (["a", Finish("stop_sequence")], ("end_turn", None)),
        (["a", Finish("refusal")], ("refusal", None)),
        (["a", Finish("pause_turn")], ("pause_turn", None)),
        (["a", Finish("tool_use")], ("end_turn", None)),
        ([CALL, Finish("tool_use")], ("tool_use", None)),
        ([CALL, Finish("end_turn")], ("tool_use", None)),
        ([CALL, "a", Finish("stop_sequence", "END")], ("tool_use", None)),
        ([CALL, Finish("max_tokens")], ("max_tokens", None)),
        ([CALL, Finish("refusal")], ("refusal", None)),
        (
            [Block({"type": "tool_use", "id": "toolu_1", "name": "w", "input": {}}), Finish("end_turn")],
            ("tool_use", None),
        ),
    ],
    ids=repr,
)
def test_the_stop_reason_fits_the_content(deltas: list[Delta], told: tuple[str, str | None]) -> None:
    delta = last_delta(deltas)["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == told


def test_the_final_finish_can_be_read_from_the_encoder() -> None:
    encoder = encoder_in(State.TOOL)
    encoder.end(0)
    assert encoder.finish == Finish("tool_use")


# characters


@pytest.mark.clause("5.4")
@pytest.mark.parametrize(
    "character", ["\u2028", "\u2029", "\u0085", "\n", "\r", "\r\n\r\n", "\x00", "\x0b", "\x1c"], ids=ascii
)
def test_no_character_of_a_text_breaks_the_event_line(character: str) -> None:
    text = f"a{character}b"
    told: list[Delta] = [
        text,
        Thinking(text),
        Signature(text),
        ToolStart(text, text),
        ToolJson(orjson.dumps({text: text}).decode()),
    ]
    data = stream(told, Block({"type": "x", "data": text}), Finish("stop_sequence", text))
    lines = data.split(b"\n")
    assert b"\r" not in data
    assert all(line.startswith((b"event: ", b"data: {")) or not line for line in lines)
    check_stream(parse_events(data))


@pytest.mark.parametrize("half", ["\ud83d", "a\ude00", "a\udfffb"], ids=ascii)
def test_a_lone_surrogate_is_written_as_a_replacement_in_every_place(half: str) -> None:
    told: list[Delta] = [
        half,
        half,
        Thinking(half),
        Signature(half),
        ToolStart(half, half),
        ToolJson(f'{{"a":"{half}"}}'),
    ]
    mended = half.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    data = StreamEncoder(ID, half, lambda: 1).start()
    assert parse_events(data)[0].data["message"]["model"] == mended
    message = message_from_events(parse_events(stream(told, Block({"type": half}), Finish("max_tokens"))))
    assert message["content"] == [
        {"type": "text", "text": mended * 2},
        {"type": "thinking", "thinking": mended, "signature": mended},
        {"type": "tool_use", "id": mended, "name": mended, "input": {"a": mended}},
        {"type": mended},
    ]


# any script


@pytest.mark.slow
@pytest.mark.clause("5.2")
@examples(100)
@given(scripts())
def test_any_script_gives_a_stream_that_keeps_the_grammar(script: list[Delta]) -> None:
    events = parse_events(data := stream(*script))
    check_stream(events)
    assert data == b"".join(
        b"event: %b\ndata: %b\n\n" % (event.type.encode(), orjson.dumps(event.data)) for event in events
    )


@pytest.mark.slow
@examples(50)
@given(st.data(), scripts())
def test_batching_never_changes_the_bytes(data: st.DataObject, script: list[Delta]) -> None:
    one_by_one = new_encoder()
    together = new_encoder()
    expected = one_by_one.start() + b"".join(map(one_by_one.feed, script)) + one_by_one.end(0)
    grouped = data.draw(batches(script))
    assert together.start() + b"".join(map(together.feed, grouped)) + together.end(0) == expected


@pytest.mark.slow
@examples(40)
@given(st.data(), scripts())
def test_pings_between_events_do_not_change_the_message(data: st.DataObject, script: list[Delta]) -> None:
    encoder = new_encoder()
    out = encoder.start()
    for delta in script:
        out += encoder.feed(delta) + encoder.ping() * data.draw(st.integers(0, 1))
    quiet = new_encoder()
    expected = quiet.start() + b"".join(map(quiet.feed, script)) + quiet.end(0)
    assert message_from_events(parse_events(out + encoder.end(0))) == message_from_events(parse_events(expected))


@pytest.mark.slow
@examples(40)
@given(st.data(), scripts())
def test_an_error_after_any_delta_ends_a_valid_stream(data: st.DataObject, script: list[Delta]) -> None:
    encoder = new_encoder()
    out = encoder.start()
    for delta in script[: data.draw(st.integers(0, len(script)))]:
        out += encoder.feed(delta)
    check_stream(parse_events(out + encoder.error(Overloaded(), REQUEST_ID)))
