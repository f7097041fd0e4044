"""The rules of a stream of any server."""

from typing import Any

import pytest

from anthro_asgi.conformance.check import Failure
from anthro_asgi.conformance.grammar import Event
from anthro_asgi.conformance.stream_rules import folded

MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 0},
}
START = Event("message_start", {"message": MESSAGE})
STOP = Event("message_stop", {})


def delta(usage: dict[str, int], **fields: Any) -> Event:
    return Event("message_delta", {"delta": fields, "usage": usage})


def test_a_stream_may_end_with_several_message_deltas() -> None:
    ended = delta({"output_tokens": 0}, stop_reason="end_turn", stop_sequence=None)
    message = folded([START, ended, delta({"input_tokens": 11, "output_tokens": 7}), STOP])
    assert message["stop_reason"] == "end_turn"
    assert message["usage"] == {"input_tokens": 11, "output_tokens": 7}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([START, delta({"output_tokens": 1}), STOP], "the stream has no stop_reason"),
        ([START, delta({"output_tokens": 1}, stop_reason="done"), STOP], "stop_reason is 'done'"),
        ([START, STOP], "not allowed between blocks"),
        ([START, delta({"output_tokens": 1}, stop_reason="end_turn")], "the stream ends after message_delta"),
    ],
)
def test_a_stream_that_breaks_a_rule_fails_with_it(events: list[Event], reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        folded(events)
