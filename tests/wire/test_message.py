"""The Message built from deltas; it equals the one in their stream."""

import tracemalloc
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.wire.answer_limits import BLOCK_OVERHEAD, AnswerLimits
from anthro_asgi.wire.deltas import (
    Batch,
    Block,
    BlockStop,
    Citation,
    Delta,
    DeltaOrderError,
    Finish,
    Signature,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
)
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.errors import AnswerTooLarge
from anthro_asgi.wire.json_codec import dumps
from anthro_asgi.wire.message import PLACEHOLDER_SIGNATURE, MessageBuilder
from anthro_asgi.wire.tool_input import parse_tool_input
from tests.wire.strategies import Json, batches, examples, pieces, scripts

ID = "msg_0123456789abcdefghij"
CALL = ToolStart("toolu_1", "w")


def built(*batches: Batch, counted: int = 0, estimate: int = 5) -> Json:
    builder = MessageBuilder(ID, "some-model", lambda: estimate)
    for batch in batches:
        builder.feed(batch)
    return builder.message(counted)


def content(*batches: Batch) -> list[Json]:
    blocks: list[Json] = built(*batches, Finish("end_turn"))["content"]
    return blocks


def streamed(*batches: Batch, counted: int = 0) -> Json:
    """The Message in the stream of the same deltas."""
    encoder = StreamEncoder(ID, "some-model", lambda: 5)
    data = encoder.start() + b"".join(map(encoder.feed, batches)) + encoder.end(counted)
    return message_from_events(parse_events(data))


def as_sent(message: Json) -> Any:
    return orjson.loads(dumps(message))


# a whole Message


@pytest.mark.clause("4.1")
def test_a_message_has_all_its_keys_in_the_order_of_the_api() -> None:
    assert list(built("Hi", Usage(3, 2), Finish("end_turn")).items()) == [
        ("id", ID),
        ("type", "message"),
        ("role", "assistant"),
        ("model", "some-model"),
        ("content", [{"type": "text", "text": "Hi"}]),
        ("stop_reason", "end_turn"),
        ("stop_sequence", None),
        ("usage", {"input_tokens": 3, "output_tokens": 2}),
    ]


@pytest.mark.clause("4.10")
def test_tokens_are_counted_here_if_the_engine_reports_none() -> None:
    assert built("Hi", Finish("end_turn"), counted=4, estimate=7)["usage"] == {"input_tokens": 7, "output_tokens": 4}


def test_the_prompt_is_not_estimated_when_the_engine_reports_its_length() -> None:
    def never() -> int:
        raise AssertionError("asked for an estimate")

    builder = MessageBuilder(ID, "m", never)
    builder.feed([Usage(3, 2, 1), Finish("end_turn")])
    assert builder.message(0)["usage"] == {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1}


def test_a_message_before_the_finish_is_an_order_error() -> None:
    builder = MessageBuilder(ID, "m", lambda: 1)
    builder.feed("Hi")
    with pytest.raises(DeltaOrderError):
        builder.message(1)


def test_a_matched_stop_sequence_is_reported() -> None:
    message = built("Hi", Finish("stop_sequence", "END"))
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


# blocks


@pytest.mark.clause("4.2")
def test_texts_are_joined_and_empty_ones_are_ignored() -> None:
    assert content("a", "", ["b", ""], "c") == [{"type": "text", "text": "abc"}]


@pytest.mark.clause("4.2")
def test_an_empty_text_becomes_a_block_only_if_there_is_no_other() -> None:
    assert content("") == [{"type": "text", "text": ""}]
    assert content(Thinking("")) == []
    assert content("", Thinking("a")) == [{"type": "thinking", "thinking": "a", "signature": PLACEHOLDER_SIGNATURE}]


def test_thinking_is_signed_by_the_engine_or_with_the_placeholder() -> None:
    assert content(Thinking("a"), Thinking("b"), Signature("c2ln"), Thinking("c"), "d") == [
        {"type": "thinking", "thinking": "ab", "signature": "c2ln"},
        {"type": "thinking", "thinking": "c", "signature": PLACEHOLDER_SIGNATURE},
        {"type": "text", "text": "d"},
    ]


def test_calls_and_texts_keep_their_order() -> None:
    deltas: list[Delta] = [
        "a",
        CALL,
        ToolJson('{"x"'),
        ToolJson(":1}"),
        "b",
        ToolStart("toolu_2", "v"),
        ToolStart("toolu_3", "u"),
    ]
    assert content(deltas) == [
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "toolu_1", "name": "w", "input": {"x": 1}},
        {"type": "text", "text": "b"},
        {"type": "tool_use", "id": "toolu_2", "name": "v", "input": {}},
        {"type": "tool_use", "id": "toolu_3", "name": "u", "input": {}},
    ]


def test_a_whole_block_is_passed_on_unchanged() -> None:
    block = {"type": "redacted_thinking", "data": "eA==", "new": None}
    assert content("a", Block(block), "b")[1] == block


@pytest.mark.parametrize("before", [[], ["a"], [Thinking("a")], [CALL, "a"], [Block({"type": "x"})]], ids=repr)
def test_tool_input_outside_a_call_is_an_order_error_in_a_stream_and_in_a_message(before: list[Delta]) -> None:
    builder = MessageBuilder(ID, "m", lambda: 1)
    builder.feed(before)
    with pytest.raises(DeltaOrderError):
        builder.feed(ToolJson("{}"))
    encoder = StreamEncoder(ID, "m", lambda: 1)
    encoder.start()
    encoder.feed(before)
    with pytest.raises(DeltaOrderError):
        encoder.feed(ToolJson("{}"))


# calls that broke off


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Paris", "days', {"city": "Paris"}),
        ('{"city": "Paris", "days": [1, 2', {"city": "Paris", "days": [1, 2]}),
    ],
)
def test_input_cut_off_by_max_tokens_is_closed(arguments: str, value: Json) -> None:
    message = built("a", CALL, ToolJson(arguments), Finish("max_tokens"))
    assert message["content"][1]["input"] == value
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.clause("4.12")
def test_a_call_with_unreadable_input_is_dropped_and_the_text_is_kept() -> None:
    message = built("a", CALL, ToolJson("<tool_call>"), Finish("max_tokens"))
    assert message["content"] == [{"type": "text", "text": "a"}]
    assert message["stop_reason"] == "max_tokens"


def test_the_stop_reason_ignores_a_dropped_call() -> None:
    assert built("a", CALL, ToolJson("<tool_call>"), Finish("tool_use"))["stop_reason"] == "end_turn"


@pytest.mark.clause("4.12")
def test_endless_brackets_in_an_input_do_not_break_the_answer() -> None:
    """The output of a model in a loop, until its tokens run out."""
    message = built("a", CALL, ToolJson('{"a":' + "[" * 600), Finish("max_tokens"))
    assert as_sent(message)["content"] == [{"type": "text", "text": "a"}]


# repairs


@pytest.mark.parametrize(
    ("arguments", "repairs"),
    [
        ("", {}),
        (" {}", {}),
        ('{"a": 1}', {}),
        ('{"a": "\ud83d"}', {}),
        ('{"a": 1', {"call_input": 1}),
        ('{"a": 1}}', {"call_input": 1}),
        ('"{}"', {"call_input": 1}),
        ("[1]", {"call_input": 1}),
        ("<tool>", {"call_dropped": 1}),
        ("[" * 200 + "]" * 200, {"call_dropped": 1}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_repairs_of_an_input_are_counted(arguments: str, repairs: Json) -> None:
    builder = MessageBuilder(ID, "m", lambda: 1)
    builder.feed([CALL, ToolJson(arguments), Finish("tool_use")])
    builder.message(0)
    assert builder.repairs == repairs


# limits


def collected(limits: AnswerLimits, *deltas: Delta) -> Json:
    builder = MessageBuilder(ID, "m", lambda: 1, limits=limits)
    for delta in deltas:
        builder.feed(delta)
    builder.feed(Finish("end_turn"))
    return builder.message(0)


@pytest.mark.parametrize("letter", ["a", "é", "漢", "🙂", "\ud83d"], ids=ascii)
@pytest.mark.parametrize("kind", [str, Thinking, ToolJson])
def test_an_answer_may_be_as_large_as_the_limit_and_no_larger(kind: Any, letter: str) -> None:
    size = len(letter.encode("utf-8", "surrogatepass"))
    before: list[Delta] = [CALL, ToolJson('{"a":"')] if kind is ToolJson else []
    weight = BLOCK_OVERHEAD + (len("toolu_1" + "w" + '{"a":"') if before else 0) + 300 * size
    assert collected(AnswerLimits(max_answer=weight), *before, *[kind(letter * 100)] * 3)
    with pytest.raises(AnswerTooLarge, match=rf"larger than {weight - 1} bytes \(max-answer\)"):
        collected(AnswerLimits(max_answer=weight - 1), *before, *[kind(letter * 100)] * 3)


@pytest.mark.parametrize("letter", ["a", "é", "🙂"])
def test_the_input_of_a_call_may_be_as_large_as_the_limit_and_no_larger(letter: str) -> None:
    deltas: list[Delta] = ["text", CALL, ToolJson('{"a":"'), *[ToolJson(letter)] * 100, ToolJson('"}'), "more"]
    weight = 8 + 100 * len(letter.encode())
    assert collected(AnswerLimits(max_tool_input=weight), *deltas, *deltas)["content"][3]["input"] == {
        "a": letter * 100
    }
    with pytest.raises(
        AnswerTooLarge, match=rf"input of a tool call is larger than {weight - 1} bytes \(max-tool-input\)"
    ):
        collected(AnswerLimits(max_tool_input=weight - 1), *deltas)


def copy(delta: Delta) -> Delta:
    """New strings, as an engine makes them: each has its own memory."""
    return orjson.loads(orjson.dumps(delta)) if isinstance(delta, str) else replace(delta, **_copied(delta))


def _copied(delta: Any) -> Json:
    fields: Json = orjson.loads(orjson.dumps(delta))
    return fields


FLOODS: dict[str, list[Delta]] = {
    "text": ["ab"],
    "thinking": [Thinking("ab")],
    "input": [ToolJson('{"')],
    "calls": [ToolStart("toolu_2", "w")],
    "blocks": [Block({"type": "x"})],
    "empty blocks": [Block({})],
    "citations": [Citation({})],
    "short texts": [BlockStop(), "a"],
    "signatures": [Signature("abc")],
}


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_little_more_than_the_limit_is_collected(flood: list[Delta]) -> None:
    """Measures memory, not only bytes: many small strings take up much."""
    builder = MessageBuilder(ID, "m", lambda: 1, limits=AnswerLimits(max_answer=300_000))
    builder.feed(CALL)

    def fill() -> None:
        for _ in range(1_000_000):
            builder.feed([copy(delta) for delta in flood])

    tracemalloc.start()
    with pytest.raises(AnswerTooLarge):
        fill()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 2_500_000


def test_many_small_pieces_are_joined_to_one_text() -> None:
    halves = ["\ud83d", "\ude00"] * 20_000
    (block,) = content(*halves, *"abc" * 50_000)
    assert block["text"] == "\ufffd" * 40_000 + "abc" * 50_000


# a message and its stream


@pytest.mark.slow
@pytest.mark.clause("5.17")
@examples(100)
@given(st.data(), scripts())
def test_a_message_equals_the_one_in_its_stream(data: st.DataObject, script: list[Delta]) -> None:
    grouped = data.draw(batches(script))
    assert as_sent(built(*grouped, counted=3)) == streamed(*script, counted=3)


ARGUMENTS = '{"city": "Zürich\\n", "days": [1, {"x": null}], "no": {}}'


@examples(60)
@given(st.data(), st.integers(0, len(ARGUMENTS)))
def test_the_input_of_a_broken_off_call_is_the_repair_of_the_streamed_pieces(data: st.DataObject, cut: int) -> None:
    fragments = data.draw(pieces(ARGUMENTS[:cut]))
    deltas: list[Delta] = ["a", CALL, *map(ToolJson, fragments), Finish("max_tokens")]
    told, meant = built(deltas), streamed(deltas)
    pieced = meant["content"][1]["input"]
    assert told["content"][1]["input"] == (parse_tool_input(pieced) if isinstance(pieced, str) else pieced)
    assert told["content"][1]["input"] == parse_tool_input(ARGUMENTS[:cut])
    assert told["stop_reason"] == meant["stop_reason"] == "max_tokens"


def test_deltas_after_a_finish_in_its_batch_are_handled_alike_by_both() -> None:
    deltas: list[Delta] = ["a", Finish("end_turn"), "b", Usage(1, 2)]
    assert as_sent(built(deltas)) == streamed(deltas)


def test_a_relayed_call_counts_as_a_call_in_both() -> None:
    relayed = Block({"type": "tool_use", "id": "toolu_1", "name": "w", "input": {"a": 1}})
    encoder = StreamEncoder(ID, "m", lambda: 1)
    encoder.start()
    encoder.feed([relayed, Finish("end_turn")])
    encoder.end(0)
    assert encoder.finish == Finish("tool_use")
    assert built(relayed, Finish("end_turn"))["stop_reason"] == "tool_use"


def test_surrogate_halves_in_different_pieces_are_not_combined_in_either() -> None:
    halves: list[Delta] = [
        "\ud83d",
        "\ude00",
        CALL,
        ToolJson('{"a": "\ud83d'),
        ToolJson('\ude00"}'),
        Finish("tool_use"),
    ]
    message = as_sent(built(halves))
    assert message == streamed(halves)
    assert message["content"][0]["text"] == "\ufffd\ufffd"
    assert message["content"][1]["input"] == {"a": "\ufffd\ufffd"}
