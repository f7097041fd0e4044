"""Each engine's way of saying things, chunk by chunk, as deltas."""

import json
from itertools import count
from typing import Any

import pytest

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import (
    AnswerTooLarge,
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    Overloaded,
)

Json = dict[str, Any]
DONE = b"[DONE]"
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def chunk(delta: Json | None = None, finish: Any = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **more}]}


def payload(said: Json | bytes) -> bytes:
    return said if isinstance(said, bytes) else json.dumps(said).encode()


def reader(stops: tuple[str, ...] = ()) -> ChunkReader:
    numbers = count(1)
    return ChunkReader(stops, lambda: f"toolu_{next(numbers)}")


def read(*chunks: Json | bytes, stops: tuple[str, ...] = ()) -> list[Delta]:
    """Everything an answer of these chunks gives, the same at once and one by one."""
    one_by_one, at_once = reader(stops), reader(stops)
    out = [delta for said in chunks for delta in one_by_one.feed([payload(said)])] + one_by_one.end()
    together = at_once.feed([payload(said) for said in chunks]) + at_once.end()
    assert joined(together) == joined(out)
    return out


def joined(deltas: list[Delta]) -> list[Any]:
    """The content: texts, thoughts and the JSON of a call each as one; no empty text, no usage."""
    out: list[Any] = []
    for delta in deltas:
        match delta:
            case str() if out and isinstance(out[-1], str):
                out[-1] += delta
            case Thinking(text) if out and isinstance(out[-1], Thinking):
                out[-1] = Thinking(out[-1].text + text)
            case ToolJson(fragment) if isinstance(out[-1], ToolJson):
                out[-1] = ToolJson(out[-1].fragment + fragment)
            case Usage() | "":
                pass
            case _:
                out.append(delta)
    return out


def content(*chunks: Json | bytes) -> list[Any]:
    """The content of these and a finish."""
    return joined(read(*chunks, STOP))[:-1]


def finish(*chunks: Json | bytes, stops: tuple[str, ...] = ()) -> Delta:
    return read(*chunks, stops=stops)[-1]


def usage(*chunks: Json | bytes) -> Usage:
    return [delta for delta in read(*chunks) if isinstance(delta, Usage)][-1]


def call(arguments: Any = None, **more: Any) -> Json:
    """A delta with one tool call; `name` goes inside."""
    function = {key: value for key, value in (("name", more.pop("name", None)), ("arguments", arguments)) if value}
    return {"tool_calls": [{"index": 0, "type": "function", "function": function, **more}]}


# text and thinking


def test_each_text_delta_is_returned_separately() -> None:
    assert read(chunk({"content": "a"}), chunk({"content": "b"}), STOP)[:2] == ["a", "b"]


@pytest.mark.parametrize(
    "nothing",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": None},
        {"content": "", "tool_calls": [], "function_call": None, "refusal": None},
        {},
    ],
)
def test_a_delta_without_content_is_ignored(nothing: Json) -> None:
    assert content(chunk(nothing), chunk({"content": "a"}), chunk(nothing)) == ["a"]
    assert usage(chunk(nothing), chunk({"content": "a"}), STOP).output_tokens == 1


def test_an_empty_text_is_returned_so_that_an_empty_answer_has_a_block() -> None:
    assert read(chunk({"role": "assistant", "content": ""}), STOP)[0] == ""


@pytest.mark.parametrize("nothing", [{"choices": []}, {"choices": None}, {}, chunk() | {"choices": [{"delta": None}]}])
def test_a_chunk_without_a_choice_is_ignored(nothing: Json) -> None:
    assert content(nothing, chunk({"content": "a"}), nothing) == ["a"]


def test_a_hundred_identical_chunks_give_a_hundred_texts() -> None:
    assert read(*[chunk({"content": "ha"})] * 100, STOP)[:100] == ["ha"] * 100


@pytest.mark.clause("6.13")
def test_other_choices_are_part_of_the_answer_and_follow_the_first() -> None:
    def other(index: int, delta: Json, finish: str | None = None) -> Json:
        return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    assert content(chunk({"content": "a"}), other(1, {"content": "x"}, "stop"), chunk({"content": "b"})) == ["abx"]
    calls = [other(0, {"content": "a"}), other(1, call("{}", id="c", name="look")), other(1, {}, "tool_calls")]
    assert content(*calls) == ["a", ToolStart("c", "look"), ToolJson("{}")]
    assert read(*calls, STOP)[-1] == Finish("tool_use")
    two = {"choices": [{"index": n, "delta": call('{"n":1}', id=f"c{n}", name="look")} for n in (0, 1)]}
    assert [delta.id for delta in content(two, other(1, {}, "stop")) if isinstance(delta, ToolStart)] == ["c0", "c1"]
    alone = [other(1, {"content": "a"}), other(1, {"content": "b"}, "stop")]
    assert read(*alone)[:2] == ["a", "b"], "the only choice is streamed, whatever its index"
    with pytest.raises(BadUpstream):
        read(chunk({"content": "a"}), other(1, {"content": "x"}), STOP)


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"reasoning": "Hm.", "reasoning_content": "Hm."},
        {"reasoning_content": None, "reasoning": {"content": "Hm."}},
        {"reasoning": {"text": "Hm.", "effort": "low"}},
        {"reasoning": [{"type": "summary", "summary": [{"text": "Hm."}]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
    ],
)
def test_reasoning_is_read_from_every_known_field_and_shape(thought: Json) -> None:
    assert content(chunk(thought), chunk({"content": "a"})) == [Thinking("Hm."), "a"]


def test_reasoning_precedes_the_text_of_the_same_delta() -> None:
    assert content(chunk({"content": "a", "reasoning_content": "Hm."})) == [Thinking("Hm."), "a"]


@pytest.mark.parametrize("parts", [[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ["a", "b"]])
def test_text_may_come_as_a_list_of_parts(parts: list[Any]) -> None:
    assert content(chunk({"content": parts})) == ["ab"]


def test_line_separators_and_lone_surrogates_are_text() -> None:
    assert content(b'{"choices":[{"delta":{"content":"a\xe2\x80\xa8b\\ud83d"}}]}') == ["a\u2028b\ufffd"]


# calls


def test_text_precedes_the_call_of_the_same_delta() -> None:
    assert content(chunk({"content": "a", **call("{}", id="c", name="look")})) == [
        "a",
        ToolStart("c", "look"),
        ToolJson("{}"),
    ]


def test_text_after_a_call_keeps_its_place() -> None:
    assert content(chunk(call("{}", id="c", name="look")), chunk({"content": "a"}))[1:] == [ToolJson("{}"), "a"]


@pytest.mark.parametrize("arguments", [{"n": 2**80 + 1, "q": "é"}, {}, [1]])
def test_arguments_may_be_an_object_instead_of_a_string(arguments: Any) -> None:
    first = call(id="c", name="look")
    first["tool_calls"][0]["function"]["arguments"] = arguments
    expected = arguments if isinstance(arguments, dict) else {"value": arguments}
    found = content(chunk(first))[1]
    assert json.loads(found.fragment) == expected
    legacy = content(chunk({"function_call": {"name": "look", "arguments": arguments}}))[1]
    assert json.loads(legacy.fragment) == expected


def test_integers_beyond_64_bits_in_arguments_are_unchanged() -> None:
    assert content(chunk(call('{"n":123456789012345678901234567890}', name="look")))[1] == ToolJson(
        '{"n":123456789012345678901234567890}'
    )


def test_calls_of_one_delta_without_index_and_id_are_told_apart() -> None:
    calls = [{"function": {"name": name, "arguments": ""}} for name in ("look", "leap")]
    assert content(chunk({"tool_calls": calls})) == [ToolStart("toolu_1", "look"), ToolStart("toolu_2", "leap")]


def test_name_and_arguments_may_be_outside_the_function_object() -> None:
    flat = {"tool_calls": [{"id": "c", "name": "look", "arguments": "{}", "function": None}]}
    assert content(chunk(flat)) == [ToolStart("c", "look"), ToolJson("{}")]


def test_a_legacy_function_call_is_a_call() -> None:
    pieces = [{"name": "look", "arguments": ""}, {"arguments": '{"q"'}, {"name": None, "arguments": ":1}"}]
    answer = [chunk({"function_call": piece}) for piece in pieces]
    assert content(*answer) == [ToolStart("toolu_1", "look"), ToolJson('{"q":1}')]
    assert finish(*answer, chunk(finish="function_call")) == Finish("tool_use")


def test_a_function_call_beside_tool_calls_is_a_duplicate() -> None:
    twin = {"function_call": {"name": "look", "arguments": '{"q"'}, **call('{"q"', id="c", name="look")}
    late = {"function_call": {"name": "look", "arguments": ":1}"}, **call(":1}", id="c", name="look")}
    alone = {"function_call": {"name": "look", "arguments": ""}, "tool_calls": None}
    assert content(chunk(twin), chunk(late), chunk(alone)) == [ToolStart("c", "look"), ToolJson('{"q":1}')]


def test_a_call_cut_off_by_max_tokens_is_returned_incomplete() -> None:
    deltas = read(chunk(call('{"q":"Bo', id="c", name="look")), chunk(finish="length"))
    assert joined(deltas) == [ToolStart("c", "look"), ToolJson('{"q":"Bo'), Finish("max_tokens")]


# the finish


@pytest.mark.clause("4.3")
@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("stop", "end_turn"),
        ("eos_token", "end_turn"),
        ("eos", "end_turn"),
        ("length", "max_tokens"),
        ("max_tokens", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "refusal"),
        ({"type": "length", "length": 5}, "max_tokens"),
        ("model_length", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("MAX_TOKENS", "max_tokens"),
        ("sensitive", "refusal"),
        ("SAFETY", "refusal"),
        ("end_turn", "end_turn"),
    ],
)
def test_a_finish_reason_gives_a_stop_reason(reason: Any, meaning: Any) -> None:
    assert finish(chunk({"content": "a"}), chunk(finish=reason)) == Finish(meaning)


def test_text_beside_the_finish_is_not_lost() -> None:
    assert joined(read(chunk({"content": "a"}, "length"))) == ["a", Finish("max_tokens")]


@pytest.mark.clause("4.4")
@pytest.mark.parametrize(
    "reason",
    [
        "abort",
        "error",
        {"type": "abort", "message": "x"},
        "aborted",
        "network_error",
        "insufficient_system_resource",
        "upstream_timeout",
        "CANCELLED",
    ],
)
def test_a_finish_reason_of_an_aborted_answer_is_an_error(reason: Any) -> None:
    with pytest.raises(BadUpstream, match="aborted"):
        read(chunk({"content": "a"}), chunk(finish=reason))


@pytest.mark.parametrize(
    "last",
    [
        chunk(finish="stop", stop_reason="END"),
        chunk(finish="stop", matched_stop="END"),
        chunk(finish="stop") | {"__verbose": {"stopping_word": "END", "stop_type": "word"}},
    ],
    ids=["vllm", "sglang", "llamacpp"],
)
def test_a_matched_stop_sequence_is_read_from_three_fields(last: Json) -> None:
    assert finish(last, stops=("x", "END")) == Finish("stop_sequence", "END")
    assert finish(last, stops=("x",)) == Finish("end_turn"), "not one of the client's"


@pytest.mark.parametrize("more", [{"stop_reason": 151645}, {"matched_stop": 2}, {"matched_stop": None}, {}])
def test_the_id_of_an_end_token_is_not_a_stop_sequence(more: Json) -> None:
    assert finish(chunk(finish="stop", **more), stops=("END", "2", "151645")) == Finish("end_turn")


def test_length_and_tool_calls_take_precedence_over_a_matched_stop() -> None:
    assert finish(chunk(finish="length", stop_reason="END"), stops=("END",)) == Finish("max_tokens")
    called = chunk(call("{}", id="c", name="look"))
    assert finish(called, chunk(finish="tool_calls", stop_reason="END"), stops=("END",)) == Finish("tool_use")


@pytest.mark.clause("4.4")
def test_a_refusal_gives_text_and_the_stop_reason_refusal() -> None:
    assert joined(read(chunk({"refusal": "I "}), chunk({"refusal": "won't."}), STOP)) == ["I won't.", Finish("refusal")]
    parts = chunk({"content": [{"type": "refusal", "refusal": "No."}]})
    assert joined(read(parts, STOP)) == ["No.", Finish("refusal")]


@pytest.mark.parametrize(
    "late",
    [
        chunk({"content": "x"}),
        chunk(finish="length"),
        {"error": {"message": "x"}},
        b"{oops",
        b"null",
        chunk(call("{}")),
    ],
)
def test_chunks_after_the_finish_are_ignored(late: Json | bytes) -> None:
    assert joined(read(chunk({"content": "a"}), STOP, late)) == ["a", Finish("end_turn")]


def test_done_without_a_finish_reason_is_an_error() -> None:
    broken = reader()
    assert broken.feed([payload(chunk({"content": "a"})), DONE, payload(STOP)]) == ["a"]
    assert broken.done
    assert not broken.finished
    with pytest.raises(BadUpstream, match="before the answer was complete"):
        broken.end()


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(BadUpstream):
        reader().end()


# usage

LATE_USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


@pytest.mark.parametrize(
    "chunks",
    [
        [STOP, {"choices": [], "usage": LATE_USAGE}],
        [STOP | {"usage": LATE_USAGE}],
        [chunk({"content": "a"}) | {"usage": LATE_USAGE | {"completion_tokens": 1}}, STOP | {"usage": LATE_USAGE}],
        [chunk({"content": "a"}) | {"usage": None}, STOP, {"usage": LATE_USAGE}],
        [STOP | {"timings": {"prompt_n": 5, "cache_n": 4, "predicted_n": 3}}],
        [{"choices": [], "prompt_progress": {"total": 9, "cache": 4}}, STOP, {"usage": {"completion_tokens": 3}}],
    ],
    ids=["apart", "with the finish", "in every chunk", "null first", "timings", "progress"],
)
def test_usage_is_read_from_every_known_place(chunks: list[Json]) -> None:
    assert usage(*chunks) == Usage(5, 3, 4)


def test_the_prompt_length_is_returned_as_soon_as_it_is_known() -> None:
    early = chunk({"role": "assistant"}) | {"usage": {"prompt_tokens": 9, "completion_tokens": 0}}
    assert reader().feed([payload(early)]) == [Usage(9, None, None)]


def test_chunks_are_counted_if_there_is_no_usage() -> None:
    answer = [chunk({"role": "assistant"}), chunk({"content": "a"}), chunk({"content": "b"}), chunk({"content": ""})]
    assert usage(*answer, STOP) == Usage(None, 2, None)


def test_null_counts_do_not_replace_known_counts() -> None:
    nulls = {"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None}
    assert usage(STOP | {"usage": LATE_USAGE}, {"choices": [], "usage": nulls}) == Usage(5, 3, 4)


@pytest.mark.parametrize(
    "odd", [[], "9", 9, {"prompt_tokens": "9"}, {"prompt_tokens_details": []}, {"prompt_tokens": -1}]
)
def test_a_usage_of_an_unknown_shape_is_ignored(odd: Any) -> None:
    assert usage(chunk({"content": "a"}), STOP, {"choices": [], "usage": odd}) == Usage(None, 1, None)


# what is wrong


@pytest.mark.parametrize("position", [0, 1], ids=["first", "mid-stream"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"message": "CUDA", "code": 500}}, EngineFailed),
        ({"error": "out of memory"}, EngineFailed),
        ({"object": "error", "message": "bad", "code": 400}, InvalidRequest),
        ({"error": {"message": "busy", "code": "503"}}, Overloaded),
        ({"detail": "x"}, EngineFailed),
        ({"error": {"message": "m", "code": "context_length_exceeded"}}, ContextTooLong),
        ({"error": {"message": "x"}, **chunk()}, EngineFailed),
    ],
)
def test_an_error_as_a_chunk_is_an_error(position: int, error: Json, kind: type[ApiError]) -> None:
    with pytest.raises(ApiError) as caught:
        read(*[chunk({"content": "a"})] * position, error, STOP)
    assert type(caught.value) is kind


@pytest.mark.parametrize("nonsense", [b"{", b"oops", b"<html>", b"[]", b"null", b"1", b'"x"'])
def test_a_chunk_that_is_not_an_object_is_an_error(nonsense: bytes) -> None:
    with pytest.raises(BadUpstream, match="a chunk"):
        read(nonsense, STOP)


@pytest.mark.parametrize("odd", [{"choices": [1]}, {"choices": {"a": 1}}, chunk() | {"choices": [{"delta": "x"}]}])
def test_a_chunk_of_an_unknown_shape_is_an_error(odd: Json) -> None:
    with pytest.raises(BadUpstream, match="unknown shape"):
        read(odd, STOP)


def test_a_blank_payload_is_ignored() -> None:
    assert content(b" ", chunk({"content": "a"}), b"\t") == ["a"]


def test_a_whole_completion_is_read_as_one_chunk() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("look", "leap")]
    message = {"role": "assistant", "content": "a", "reasoning_content": "Hm.", "tool_calls": calls}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": LATE_USAGE}
    assert joined(read(whole)) == [
        Thinking("Hm."),
        "a",
        *(delta for name in ("look", "leap") for delta in (ToolStart(name, name), ToolJson("{}"))),
        Finish("tool_use"),
    ]
    assert usage(whole) == Usage(5, 3, 4)


# finish reasons, calls and thinking that would mislead a client


@pytest.mark.clause("4.5")
@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("output_limit_reached", "max_tokens"),
        ("content_policy", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"),
        ("odd", "end_turn"),
    ],
)
def test_an_unknown_finish_reason_is_decided_by_its_words_and_counted(reason: str, meaning: Any) -> None:
    answer = reader()
    answer.feed([payload(chunk({"content": "a"})), payload(chunk(finish=reason))])
    assert answer.end()[-1] == Finish(meaning)
    assert answer.repairs["finish_reason"] == 1
    assert answer.unknown_finish_reason == reason


def test_an_unknown_finish_reason_of_an_empty_answer_is_an_error() -> None:
    with pytest.raises(BadUpstream, match="unknown finish reason"):
        read(chunk({"role": "assistant"}), chunk(finish="odd"))


@pytest.mark.clause("4.6")
@pytest.mark.parametrize("thinking", [[], [chunk({"reasoning": "Hm."})]])
def test_a_lost_call_is_an_error_unless_there_is_other_content(thinking: list[Json]) -> None:
    lost = chunk(call("<nonsense>", id="c", name="look"))
    for finished in (STOP, chunk(finish="tool_calls")):
        with pytest.raises(BadUpstream, match="tool call"):
            read(*thinking, lost, finished)
    with pytest.raises(BadUpstream, match="tool call"):
        read(*thinking, chunk(finish="tool_calls"))
    assert joined(read(chunk({"content": "a"}), lost, STOP)) == ["a", Finish("end_turn")]


@pytest.mark.clause("5.11")
def test_thinking_after_text_waits_for_more_content_and_never_ends_an_answer() -> None:
    a, b, late = chunk({"content": "a"}), chunk({"content": "b"}), chunk({"reasoning": "Hm"})
    called = chunk(call("{}", id="c", name="look"))
    look = [ToolStart("c", "look"), ToolJson("{}")]
    assert content(a, late, late, b) == ["a", Thinking("HmHm"), "b"]
    assert content(a, late) == ["a"]
    assert content(a, late, called) == ["a", Thinking("Hm"), *look]
    assert content(a, called, late) == ["a", *look]
    assert content(called, late) == [*look, Thinking("Hm")]
    assert content(a, chunk({"reasoning": "\n"}), b) == ["ab"]
    assert content(a, chunk({"content": "b", "reasoning": "Hm"})) == ["a", Thinking("Hm"), "b"]


@pytest.mark.clause("5.11")
def test_white_space_alone_makes_no_block_between_others() -> None:
    thought, blank, called = (
        chunk({"reasoning": "Hm"}),
        chunk({"content": "\n\n"}),
        chunk(call("{}", id="c", name="look")),
    )
    look = [ToolStart("c", "look"), ToolJson("{}")]
    assert content(thought, blank, called) == [Thinking("Hm"), *look]
    assert content(called, blank, chunk({"content": "a"})) == [*look, "\n\na"]
    assert content(thought, blank) == [Thinking("Hm"), "\n\n"], "the only text of the answer"
    assert content(called, blank) == look


def test_late_thinking_without_end_is_bounded() -> None:
    answer = ChunkReader((), lambda: "toolu_1", limits=AnswerLimits(max_answer=1000))
    answer.feed([payload(chunk({"content": "a"}))])
    with pytest.raises(AnswerTooLarge):
        answer.feed([payload(chunk({"reasoning": "x" * 100}))] * 20)


@pytest.mark.clause("4.9")
def test_a_call_that_a_stop_sequence_cut_is_left_out() -> None:
    begun = chunk(call(None, id="c", name="look"))
    last = chunk(call('{"city": "', id=None), "tool_calls", stop_reason="Paris")
    assert joined(read(chunk({"content": "a"}), begun, last, stops=("Paris",))) == [
        "a",
        Finish("stop_sequence", "Paris"),
    ]
    apart = (begun, chunk(call('{"city": "', id=None)), chunk(finish="stop", stop_reason="Paris"))
    assert joined(read(chunk({"content": "a"}), *apart, stops=("Paris",))) == ["a", Finish("stop_sequence", "Paris")]
    whole = (begun, chunk(call('{"city": "Rome"}', id=None)), chunk(finish="tool_calls"))
    assert joined(read(*whole, stops=("Paris",))) == joined(read(*whole))


def test_only_an_answer_of_nothing_but_thinking_was_stopped_in_its_thinking() -> None:
    thought, stopped = chunk({"reasoning": "Hm"}), chunk(finish="stop", stop_reason="x")
    for chunks, expected in (
        ((thought, stopped), True),
        ((thought, chunk({"content": "a"}), stopped), False),
        ((thought, STOP), False),
        ((stopped,), False),
    ):
        answer = reader(("x",))
        answer.feed([payload(said) for said in chunks])
        assert answer.stopped_thinking is expected


@pytest.mark.clause("6.7")
@pytest.mark.parametrize(
    "last",
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": LATE_USAGE}]},
        STOP | {"x_groq": {"usage": LATE_USAGE}},
        STOP | {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 4}},
        STOP | {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 4}},
    ],
    ids=["choice", "x_groq", "cached_tokens", "prompt_cache_hit_tokens"],
)
def test_usage_is_read_from_the_places_of_other_vendors(last: Json) -> None:
    assert usage(last) == Usage(5, 3, 4)


@pytest.mark.clause("4.11")
def test_zeros_never_replace_counts_and_a_prompt_is_never_empty() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}
    assert usage(STOP | {"usage": LATE_USAGE}, {"choices": [], "usage": zeros}) == Usage(5, 3, 4)
    assert usage(STOP | {"usage": zeros | {"completion_tokens": 2}}) == Usage(None, 2, 0)
    cached = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}
    assert usage(STOP | {"usage": cached}) == Usage(1, 3, 8)


@pytest.mark.clause("4.10")
def test_tokens_written_to_the_cache_are_reported() -> None:
    details = {"cached_tokens": 4, "created_cache_tokens": 3}
    counts = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": details}
    assert usage(STOP | {"usage": counts}) == Usage(2, 3, 4, 3)
    everything = details | {"created_cache_tokens": 5}
    assert usage(STOP | {"usage": counts | {"prompt_tokens_details": everything}}) == Usage(1, 3, 4, 4)


@pytest.mark.clause("4.11")
@pytest.mark.parametrize("place", [{"completion_tokens_details": {"reasoning_tokens": 2}}, {"reasoning_tokens": 2}])
def test_reasoning_tokens_are_reported(place: Json) -> None:
    assert usage(STOP | {"usage": LATE_USAGE | place}) == Usage(5, 3, 4, thinking_tokens=2)
    assert usage(STOP | {"usage": LATE_USAGE}).thinking_tokens is None
