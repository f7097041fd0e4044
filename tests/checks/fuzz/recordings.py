"""The answers that are mutated: recordings of engines, and streams and Messages of this API."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from anthro_asgi.conformance.grammar import message_from_events, parse_events
from tests.replay import cases
from tests.replay.golden import GOLDEN

Api = Literal["chat", "messages"]
LONGEST = 12_000  # bytes of a recorded answer


@dataclass(frozen=True, slots=True)
class Recorded:
    """The events of an answer, without the blank line after each; the body of an answer that is not a stream."""

    api: Api
    streamed: bool
    events: tuple[bytes, ...]


@cache
def recorded() -> tuple[Recorded, ...]:
    """All that are short enough."""
    chat = [
        *cases(request="POST /v1/chat/completions", status=200),
        *cases(request="POST /v1/chat/completions", status=400),
    ]
    found = [_of("chat", case.streamed, case.content) for case in chat if len(case.content) < LONGEST]
    for body in [*_golden(), *(case.content for case in cases(request="POST /v1/messages"))]:
        found += [_of("messages", streamed=True, body=body)] * 2
    found += [_of("messages", streamed=False, body=_whole(body)) for body in _golden() if b"event: error" not in body]
    return tuple(answer for answer in found if answer.events)


def _golden() -> list[bytes]:
    bodies = [path.read_bytes() for path in sorted(GOLDEN.glob("*.sse"))]
    streams = [body.replace(b"msg_ID", b"msg_" + b"x" * 24) for body in bodies if body.startswith(b"event")]
    return [body.replace(b"req_ID", b"req_1") for body in streams]


def _whole(body: bytes) -> bytes:
    return json.dumps(message_from_events(parse_events(body))).encode()


def _of(api: Api, streamed: bool, body: bytes) -> Recorded:
    events = tuple(event for event in body.split(b"\n\n") if event) if streamed else (body,)
    return Recorded(api, streamed, events)


def payload_of(event: bytes) -> tuple[bytes, bytes]:
    """For an event with one data line: the text before the data, and the data."""
    head, _, payload = event.partition(b"data: ")
    return head, payload


@cache
def chunks(api: Api) -> tuple[Any, ...]:
    """The JSON of all events, without duplicates."""
    bodies = {
        payload_of(event)[1] if answer.streamed else event
        for answer in recorded()
        if answer.api == api
        for event in answer.events
    }
    return tuple(json.loads(body) for body in sorted(bodies) if body[:1] == b"{")
