"""Slow, obvious ways to compute what the bench times. They share no code with the package except the errors it raises,
so that a mistake in one is not repeated in the other.
"""

import json
from collections.abc import Sequence
from typing import Any

from anthro_asgi.upstream.sse import EventTooLarge

Said = tuple[str, Any]
"""A kind (`text`, `thinking`, `call` or `arguments`) and its content."""


def payloads(stream: bytes, *, max_event: int = 1 << 30) -> list[bytes]:
    """The payloads of all events of a stream, including an unfinished last one. Raises EventTooLarge."""
    found: list[bytes] = []
    data: list[bytes] = []
    size = 0
    for number, ended in enumerate((stream + b"\n\n").split(b"\n")):
        line = ended[:-1] if ended.endswith(b"\r") else ended
        if number == 0 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        if line == b"":
            if data and b"\n".join(data) != b"":
                found.append(b"\n".join(data))
            data, size = [], 0
            continue
        size += len(line)
        if size > max_event:
            raise EventTooLarge
        if line == b"data":
            data.append(b"")
        elif line.startswith(b"data: "):
            data.append(line[6:])
        elif line.startswith(b"data:"):
            data.append(line[5:])
    return found


def before_a_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The part of a text before the stop sequence that is complete first, and that sequence."""
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if not ends:
        return text, None
    end, _, stop = min(ends)
    return text[: end - len(stop)], stop


def said(payload: bytes) -> list[Said]:
    """The content of one chunk of a chat stream."""
    out: list[Said] = []
    for choice in [] if payload == b"[DONE]" else json.loads(payload)["choices"]:
        delta = choice["delta"]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        out += [("thinking", thought)] if thought else []
        out += [("text", delta["content"])] if delta.get("content") else []
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            out += [("call", (call["id"], function["name"]))] if function.get("name") else []
            out += [("arguments", function["arguments"])] if function.get("arguments") else []
    return out


# a client's stream


def event(name: str, **fields: Any) -> bytes:
    """One event of a Messages stream."""
    data = json.dumps({"type": name, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


def delta(kind: str, value: str, index: int = 0) -> bytes:
    """A `content_block_delta` that adds `value` to block `index`."""
    body = {
        "text": {"type": "text_delta", "text": value},
        "thinking": {"type": "thinking_delta", "thinking": value},
        "arguments": {"type": "input_json_delta", "partial_json": value},
    }[kind]
    return event("content_block_delta", index=index, delta=body)


def client_text(stream: bytes) -> str:
    """The joined text of a Messages stream's deltas."""
    events = [json.loads(payload) for payload in payloads(stream)]
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def client_ending(stream: bytes) -> tuple[str, str | None]:
    """Stop reason and stop sequence of a complete Messages stream. Raises AssertionError when it is not complete."""
    *_, ending, last = [json.loads(payload) for payload in payloads(stream)]
    assert (ending["type"], last["type"]) == ("message_delta", "message_stop")
    return ending["delta"]["stop_reason"], ending["delta"]["stop_sequence"]
