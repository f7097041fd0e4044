"""Bugs that fuzzing has found, each with its smallest input."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.shared.model_list import parse_models
from anthro_asgi.http import models
from anthro_asgi.wire.answer_limits import AnswerLimits
from tests.checks.fuzz import answers
from tests.checks.fuzz.answers import Wish, judge
from tests.checks.fuzz.streams import Trial, said

Json = dict[str, Any]


def chunk(content: Any = None, **delta: Any) -> Json:
    return {"choices": [{"delta": {"content": content, **delta}}]}


def calls(arguments: Any, **call: Any) -> Json:
    return chunk(
        tool_calls=[{"index": 0, **call, "function": {"name": call.pop("name", None), "arguments": arguments}}]
    )


def finish(**choice: Any) -> Json:
    return {"choices": [{"delta": {}, "finish_reason": "stop", **choice}]}


def event(said: Json | bytes) -> bytes:
    return b"data: %b\n\n" % (said if isinstance(said, bytes) else json.dumps(said).encode())


def trial(api: Any = "chat") -> Trial:
    return Trial(b"", 200, api, True, Wish(), None, (), True, AnswerLimits(), served=False, slowly=False, at_random=0)


def outcome(*reads: bytes, api: Any = "chat") -> str:
    """The outcome, as a stream in these reads and as a whole Message; both must agree."""
    one = trial(api)
    stream = answers.streamed(said(one, list(reads)), one.wish)
    return judge(stream, answers.whole(said(one, [b"".join(reads)]), one.wish), counts=True)


def message(*reads: bytes, api: Any = "chat") -> Json:
    assert outcome(*reads, api=api) == "complete"
    one = trial(api)
    told: Json = json.loads(answers.whole(said(one, list(reads)), one.wish).body)
    return told


def texts(*reads: bytes) -> list[str]:
    return [block["text"] for block in message(*reads)["content"]]


# chat streams


def test_a_call_without_a_name_is_an_error() -> None:
    for name in (None, ""):
        said = event(chunk("Hm")), event(calls("{}", name=name, id="c1")), event(finish())
        assert outcome(*said) == outcome(b"".join(said)) == "broken off: api_error"


def test_text_after_the_finish_is_ignored_however_it_is_cut() -> None:
    """The fast path used to pass it on after it had learned the template."""
    before, behind = [event(chunk(word)) for word in "abc"], event(chunk("d"))
    for reads in (
        [*before, event(finish()), behind],
        [*before, event(finish()) + behind],
        [*before[:2], before[2] + event(finish()), behind],
    ):
        assert texts(*reads) == ["abc"]


def test_anything_after_done_is_ignored_however_it_is_cut() -> None:
    done, behind = event(b"[DONE]"), event(b"}")
    assert (
        outcome(event(chunk("a")), done, behind) == outcome(event(chunk("a")), done + behind) == "broken off: api_error"
    )
    assert texts(event(chunk("a")), event(chunk("b")), event(finish()), done, event(chunk("c"))) == ["ab"]


def test_text_read_together_with_a_bad_event_is_sent_before_the_error() -> None:
    before = [event(calls("{", name="f", id="c1")), event(calls('"x"')), event(calls(":"))]
    broken = event({"choices": [{**calls(" 1")["choices"][0], "finish_reason": "error"}]})
    ways = ([broken + b"data: {"], [broken[:-5], broken[-5:] + b"data: {"])
    written = [answers.streamed(said(trial(), [*before, *reads]), Wish()).body for reads in ways]
    assert written[0] == written[1]
    assert b'"partial_json":" 1"' in written[0]
    assert b"event: error" in written[0]


@pytest.mark.parametrize("identity", [{}, [], {"name": None}, 7, True])
def test_an_invalid_call_id_is_ignored(identity: Any) -> None:
    reads = [
        event(calls("{", name="f", id="c1")),
        *(event(calls(piece, index=[0], id=identity)) for piece in (" ", " ", "}")),
    ]
    (call,) = message(*reads, event(finish()))["content"]
    assert (call["id"], call["input"]) == ("c1", {})


def test_an_integer_beyond_64_bit_is_the_same_streamed_and_whole() -> None:
    reads = [event(calls('{"n":123456789012345678901}', name="f", id="c1")), event(finish())]
    assert message(*reads)["content"][0]["input"] == {"n": 123456789012345678901}


# Messages streams


def block(**content: Any) -> bytes:
    return event({"type": "content_block_start", "index": 0, "content_block": content})


def ending(reason: str = "end_turn", **delta: Any) -> bytes:
    return event({"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": {"output_tokens": 7}})


TEXT = block(type="text", text="a")
STOPPED = event({"type": "message_stop"})


def test_anything_after_message_stop_is_ignored_however_it_is_cut() -> None:
    for reads in ([TEXT, ending(), STOPPED, event(b"}")], [TEXT, ending(), STOPPED + event(b"}")]):
        assert [one["text"] for one in message(*reads, api="messages")["content"]] == ["a"]


@pytest.mark.parametrize("kind", [None, "", 7, [""], {}])
def test_a_block_with_an_invalid_type_is_an_error(kind: Any) -> None:
    reads = [TEXT, block(type=kind, id="x"), event({"type": "content_block_stop", "index": 0}), ending(), STOPPED]
    assert outcome(*reads, api="messages") == "broken off: api_error"


@pytest.mark.parametrize("matched", [9, [], {}, True, ""])
def test_an_invalid_stop_sequence_is_not_reported(matched: Any) -> None:
    told = message(TEXT, ending("stop_sequence", stop_sequence=matched), STOPPED, api="messages")
    assert (told["stop_reason"], told["stop_sequence"]) == ("end_turn", None)


def test_negative_counts_are_not_reported() -> None:
    start = event({"type": "message_start", "message": {"usage": {"input_tokens": -1, "output_tokens": -1}}})
    assert message(start, TEXT, ending(), STOPPED, api="messages")["usage"] == {"input_tokens": 7, "output_tokens": 7}


# lists of models


@pytest.mark.parametrize("created", [10**18, -1, 10**12, 1.5, "now", None])
def test_a_model_with_an_invalid_creation_time_is_listed(created: Any) -> None:
    (model,) = models.models_page(parse_models({"data": [{"id": "m", "created": created}]}), b"")["data"]
    assert (model["id"], model["created"]) == ("m", 0)
