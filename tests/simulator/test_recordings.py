"""RecordedAnswer answers, read and written."""

from typing import Any

import orjson
import pytest

from anthro_asgi.simulator import read_trace
from anthro_asgi.simulator.recordings import line


def lines(*answers: Any) -> list[bytes]:
    return [orjson.dumps(answer) + b"\n" for answer in answers]


def test_an_answer_is_its_deltas_and_the_time_before_each() -> None:
    said = [[0.5, "thinking", "Hm."], [0.75, "text", "Hel"], [0.75, "text", "lo"], [2, "text", "!"]]
    (recorded,) = read_trace(lines({"deltas": said, "model": "x", "request": {}}))
    assert recorded.gaps == (0.5, 0.25, 0.0, 1.25)
    assert recorded.parts == (("thinking", "Hm."), ("text", "Hel"), ("text", "lo"), ("text", "!"))
    assert recorded.stop_reason == "end_turn"


def test_a_call_ends_in_tool_use_unless_the_line_says_otherwise() -> None:
    call = [[0, "call", "search"], [0, "json", '{"q":'], [1, "json", "1}"]]
    whole, cut = read_trace(lines({"deltas": call}, {"deltas": call[:2], "stop_reason": "max_tokens"}))
    assert (whole.stop_reason, cut.stop_reason) == ("tool_use", "max_tokens")


def test_what_is_written_is_read_again() -> None:
    deltas = [(0.1234567, "text", "Grüße"), (0.2, "call", "t"), (0.25, "json", "{}")]
    written = line(deltas, "tool_use", model="m")
    (recorded,) = read_trace([written, b"\n"])
    assert recorded.gaps == pytest.approx((0.123457, 0.076543, 0.05))
    assert recorded.parts == tuple((kind, text) for _, kind, text in deltas)
    assert orjson.loads(written)["model"] == "m"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "KeyError"),
        ([], "TypeError"),
        ({"deltas": []}, "no deltas"),
        ({"deltas": [[0, "text"]]}, "TypeError"),
        ({"deltas": [[0, "text", ""]]}, "with ''"),
        ({"deltas": [[0, "sound", "la"]]}, "'sound'"),
        ({"deltas": [[-1, "text", "a"]]}, "the time must be a number of seconds from 0 on, not -1"),
        ({"deltas": [["0", "text", "a"]]}, "from 0 on, not '0'"),
        ({"deltas": [[1, "text", "a"], [0.5, "text", "b"]]}, "at least the one before"),
        ({"deltas": [[0, "json", "{}"]]}, "json delta without a call"),
        ({"deltas": [[0, "text", "a"]], "stop_reason": "bored"}, "'bored'"),
    ],
)
def test_what_is_no_answer_is_named_with_its_line(answer: Any, words: str) -> None:
    good = {"deltas": [[0, "text", "a"]]}
    with pytest.raises(ValueError, match="line 3") as caught:
        read_trace([*lines(good), b"\n", *lines(answer)])
    assert words in str(caught.value)


def test_a_trace_without_an_answer_is_none() -> None:
    with pytest.raises(ValueError, match="no recorded answer"):
        read_trace([b"\n", b"  \n"])
    with pytest.raises(ValueError, match="line 1"):
        read_trace([b"{"])
