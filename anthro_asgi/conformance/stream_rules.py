"""The rules of a Messages stream that every client depends on, and the message that a stream holds.

`grammar.py` judges the streams of this package exactly. These rules are for any server: other keys, other types of
blocks and deltas, other forms of ids are allowed, and several `message_delta` at the end, as in Anthropic's
documentation of streams.
"""

import json
from collections.abc import Iterable
from typing import Final

from .check import STOP_REASONS, check_block, check_usage, fail, is_text, must
from .exchange import Json
from .grammar import FOLLOWS, Event

_DELTA_OF: Final = {
    "text": {"text_delta": "text", "citations_delta": "citation"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
    "server_tool_use": {"input_json_delta": "partial_json"},
}
"""The deltas that a block may have, and the key of each that holds the piece."""


def folded(events: Iterable[Event]) -> Json:
    """The message of a whole stream that ends well. Raises Failure at the first rule that it breaks."""
    state, message, inputs = "before message_start", {}, [""]
    content: list[Json] = []
    for number, event in enumerate(events):
        where = f"event {number} ({event.type})"
        if event.type == "error":
            fail(f"{where}: the stream ends with an error: {event.data.get('error')}")
        is_further_delta = event.type == "message_delta" and state == "after message_delta"
        if event.type not in FOLLOWS[state] and not is_further_delta:
            fail(f"{where}: not allowed {state}")
        state = state if is_further_delta else FOLLOWS[state][event.type]
        data = event.data
        if event.type == "message_start":
            message = _started(data, where)
        elif event.type == "content_block_start":
            content.append(_block_started(data, len(content), where))
            inputs.append("")
        elif event.type == "content_block_delta":
            inputs[-1] += _add(content[-1], data, len(content) - 1, where)
        elif event.type == "content_block_stop":
            must(data.get("index") == len(content) - 1, f"{where}: index is {data.get('index')!r}")
            if content[-1].get("type") == "tool_use":
                content[-1]["input"] = _input(inputs[-1], content[-1], where)
        elif event.type == "message_delta":
            usage = message["usage"]
            message |= _ended(data, where)
            message["usage"] = usage | message["usage"]
    must(state == "after the end", f"the stream ends {state}")
    must(message["stop_reason"] is not None, "the stream has no stop_reason")
    for index, block in enumerate(content):
        check_block(block, f"content[{index}]")
    return message | {"content": content}


def _started(data: Json, where: str) -> Json:
    message = data.get("message")
    if not isinstance(message, dict):
        fail(f"{where}: message is not an object")
    must(message.get("type") == "message", f"{where}: message.type is {message.get('type')!r}")
    must(message.get("role") == "assistant", f"{where}: message.role is {message.get('role')!r}")
    must(is_text(message.get("id")), f"{where}: message.id is not a text")
    must(is_text(message.get("model")), f"{where}: message.model is not a text")
    must(message.get("content") == [], f"{where}: message.content is {message.get('content')!r}, not []")
    must(message.get("stop_reason", "") is None, f"{where}: message.stop_reason is not null")
    check_usage(message.get("usage"), f"{where}: message.usage")
    return dict(message)


def _block_started(data: Json, index: int, where: str) -> Json:
    must(data.get("index") == index, f"{where}: index is {data.get('index')!r}, not {index}")
    block = data.get("content_block")
    if not isinstance(block, dict):
        fail(f"{where}: content_block is not an object")
    kind = block.get("type")
    must(is_text(kind), f"{where}: content_block.type is not a text")
    if kind == "text":
        must(isinstance(block.get("text"), str), f"{where}: content_block.text is not a text")
    if kind == "thinking":
        must(isinstance(block.get("thinking"), str), f"{where}: content_block.thinking is not a text")
    if kind == "tool_use":
        must(is_text(block.get("id")) and is_text(block.get("name")), f"{where}: content_block has no id or no name")
        must(isinstance(block.get("input"), dict), f"{where}: content_block.input is not an object")
    return dict(block) | ({"signature": block.get("signature", "")} if kind == "thinking" else {})


def _add(block: Json, data: Json, index: int, where: str) -> str:
    """Add a delta to its block. Returns the piece of a tool's input, or ""."""
    must(data.get("index") == index, f"{where}: index is {data.get('index')!r}, not {index}")
    delta = data.get("delta")
    if not isinstance(delta, dict):
        fail(f"{where}: delta is not an object")
    kind, allowed = delta.get("type"), _DELTA_OF.get(block["type"])
    if allowed is None:
        return ""  # a block of a type that these rules do not know
    if kind not in allowed:
        fail(f"{where}: {kind!r} in a block of type {block['type']!r}")
    piece = delta.get(allowed[kind])
    if kind == "citations_delta":
        must(isinstance(piece, dict), f"{where}: delta.citation is not an object")
        return ""
    if not isinstance(piece, str):
        fail(f"{where}: delta.{allowed[kind]} is not a text")
    if kind == "input_json_delta":
        return piece
    block[allowed[kind]] += piece
    return ""


def _input(text: str, block: Json, where: str) -> object:
    try:
        value = json.loads(text) if text else block["input"]
    except ValueError as exc:
        fail(f"{where}: the joined partial_json is not JSON: {exc}")
    must(isinstance(value, dict), f"{where}: the joined partial_json is not an object")
    return value


def _ended(data: Json, where: str) -> Json:
    delta = data.get("delta")
    if not isinstance(delta, dict):
        fail(f"{where}: delta is not an object")
    reason = delta.get("stop_reason")
    must(reason is None or reason in STOP_REASONS, f"{where}: stop_reason is {reason!r}")
    usage = data.get("usage")
    if not isinstance(usage, dict):
        fail(f"{where}: usage is not an object")
    must(type(usage.get("output_tokens")) is int, f"{where}: usage.output_tokens is not a count")
    given = {name: value for name, value in usage.items() if value is not None}
    ended: Json = {} if reason is None else {"stop_reason": reason, "stop_sequence": delta.get("stop_sequence")}
    return {**ended, "usage": given}
