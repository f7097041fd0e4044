"""The response of a healthy engine, in either API, cut where a fault is to occur.

Text that must never appear in a log or an error contains the word CANARY.
"""

import json
from typing import Any, Final, Literal, NamedTuple

Api = Literal["chat", "messages"]
Json = dict[str, Any]

CANARY: Final = "canary"
PHASES: Final = ("before headers", "after headers", "after first token", "in a tool call", "after finish")
TOKENS: Final = (f"{CANARY}-", "answer", " one", " two", " three")
SENT_TOKENS: Final = 2  # tokens that were sent before a fault "after first token"
TEXT: Final = "".join(TOKENS)
TOOL: Final = {"name": "look", "input_schema": {"type": "object"}}
INPUT: Final = {"place": f"{CANARY}-place", "near": "the mine"}
_HALVES: Final = (json.dumps(INPUT)[:15], json.dumps(INPUT)[15:])


class Events(NamedTuple):
    """The events of one answer, before and after the fault."""

    before: list[bytes]
    after: list[bytes]


class _Parts(NamedTuple):
    """The events by purpose: text, first half of a tool call, second half, finish, end of the stream."""

    text: list[bytes]
    half: list[bytes]
    rest: list[bytes]
    finish: list[bytes]
    end: list[bytes]


def healthy_events(api: Api, phase: str) -> Events:
    """An answer cut at `phase`, one of PHASES. It contains a tool call only for the phase "in a tool call"."""
    parts = (_chat if api == "chat" else _messages)(phase == "in a tool call")
    events = [event for part in parts for event in part]
    cut = {
        "after first token": len(parts.text) - len(TOKENS) + SENT_TOKENS,
        "in a tool call": len(parts.text) + len(parts.half),
        "after finish": len(events) - len(parts.end),
    }.get(phase, 0)
    return Events(events[:cut], events[cut:])


def content(phase: str) -> list[Json]:
    """The content of the Message that the whole answer means, without ids."""
    text: Json = {"type": "text", "text": TEXT}
    return [text, {"type": "tool_use", "name": "look", "input": INPUT}] if phase == "in a tool call" else [text]


def _chat(calls: bool) -> _Parts:
    first, second = _HALVES
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": first}}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return _Parts(
        [chunk({"role": "assistant", "content": ""}), *(chunk({"content": token}) for token in TOKENS)],
        [chunk({"tool_calls": [call]})] if calls else [],
        [chunk({"tool_calls": [{"index": 0, "function": {"arguments": second}}]})] if calls else [],
        [chunk({}, "tool_calls" if calls else "stop", usage=usage)],
        [b"data: [DONE]\n\n"],
    )


def chunk(delta: Json, finish: str | None = None, **more: Any) -> bytes:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event({**head, "choices": [choice], **more})


def _messages(calls: bool) -> _Parts:
    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 0}}
    block = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    first, second = (_delta(1, "input_json_delta", partial_json=half) for half in _HALVES)
    closed = _said("content_block_stop", index=0)
    reason = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    return _Parts(
        [
            _said("message_start", message=message),
            _said("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *(_delta(0, "text_delta", text=token) for token in TOKENS),
        ],
        [closed, _said("content_block_start", index=1, content_block=block), first] if calls else [],
        [second, _said("content_block_stop", index=1)] if calls else [closed],
        [_said("message_delta", delta=reason, usage={"output_tokens": 5})],
        [_said("message_stop")],
    )


def _delta(index: int, kind: str, **more: str) -> bytes:
    return _said("content_block_delta", index=index, delta={"type": kind, **more})


def _said(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\n".encode() + event({"type": kind, **more})


def event(value: object) -> bytes:
    """A `data:` event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"
