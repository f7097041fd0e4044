"""What is said of a peer's stream before it is timed."""

import pytest

from bench.peers.probe import stream_faults
from bench.peers.raw_asgi import ENDING, OPENING, delta

WHOLE = OPENING + delta(" 1") + delta(" 2") + ENDING


def test_a_stream_that_keeps_the_contract_has_no_faults() -> None:
    assert stream_faults(WHOLE) == []


def test_each_broken_rule_is_said_once_with_the_first_event_that_breaks_it() -> None:
    body = WHOLE.replace(b"msg_" + b"a" * 24, b"msg_1").replace(b',"stop_sequence":null},"usage"', b'},"usage"')
    body = body.replace(b'"text":" 1"', b'"text":""').replace(b'"text":" 2"', b'"text":""')
    first, second, third, *more = stream_faults(body)
    assert first == "event 0: message.id is msg_ and 20 or more url-safe characters"
    assert second == "event 2: text_delta.text is a string that is not empty"
    assert third.startswith("event 5: the object has the keys stop_reason, stop_sequence")
    assert more == []


def test_a_stream_that_stops_early_is_said_to() -> None:
    cut = WHOLE[: WHOLE.index(b"event: message_delta")]
    assert stream_faults(cut) == ["event 5: the stream ends between blocks, without message_stop or error"]


@pytest.mark.parametrize("body", [b'data: {"choices": []}\n\n', b"<html>", b"event: ping\ndata: {\n\n"])
def test_what_is_no_stream_of_events_is_one_fault(body: bytes) -> None:
    assert len(stream_faults(body)) == 1
