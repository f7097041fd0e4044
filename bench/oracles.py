"""What is timed, said the slow and obvious way: each of these can be read at a glance, and none is fast.

They share no code with the package, save the errors it raises, so that a mistake in the one is not in the other.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from anthro_asgi.upstream.sse import EventTooLarge

Json = dict[str, Any]
Said = tuple[str, Any]
"""A kind (`text`, `thinking`, `call`, `arguments`) and what it holds."""


def payloads(stream: bytes, *, max_event: int = 1 << 30) -> list[bytes]:
    """The payloads of all events of a whole stream, its unfinished last event included. Raises EventTooLarge."""
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
    """What of a whole text comes before the stop sequence that is complete first, and which that is."""
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if not ends:
        return text, None
    end, _, stop = min(ends)
    return text[: end - len(stop)], stop


# an engine's answer


def said(payload: bytes) -> list[Said]:
    """What one chunk of a chat stream adds to the answer, where a chunk has one choice."""
    if payload == b"[DONE]":
        return []
    out: list[Said] = []
    for choice in json.loads(payload)["choices"]:
        delta = choice["delta"]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            out.append(("thinking", thought))
        if delta.get("content"):
            out.append(("text", delta["content"]))
        for call in delta.get("tool_calls") or ():
            if call["function"].get("name"):
                out.append(("call", (call["id"], call["function"]["name"])))
            if call["function"].get("arguments"):
                out.append(("arguments", call["function"]["arguments"]))
    return out


def usage(stream: Iterable[bytes]) -> Json:
    """The newest counts of a chat stream, as a Message has them, where no chunk counts only some."""
    counts = Json()
    for payload in stream:
        told = {} if payload == b"[DONE]" else json.loads(payload).get("usage") or {}
        if told:
            cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens")
            counts = {
                "input_tokens": told["prompt_tokens"] - (cached or 0),
                "output_tokens": told["completion_tokens"],
            }
            if cached is not None:
                counts["cache_read_input_tokens"] = cached
    return counts


# a client's stream


def event(name: str, **fields: Any) -> bytes:
    """One event of a Messages stream."""
    data = json.dumps({"type": name, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


def delta(kind: str, value: str, index: int = 0) -> bytes:
    """A `content_block_delta` of block `index` that adds `value`."""
    body = {
        "text": {"type": "text_delta", "text": value},
        "thinking": {"type": "thinking_delta", "thinking": value},
        "arguments": {"type": "input_json_delta", "partial_json": value},
        "signature": {"type": "signature_delta", "signature": value},
    }[kind]
    return event("content_block_delta", index=index, delta=body)


def client_stream(pieces: Iterable[Said], signature: str) -> bytes:
    """All blocks of a Messages stream that says the pieces, from the first `content_block_start` on, all closed.

    `signature` is what signs thinking.
    """
    out: list[bytes] = []
    index, opened = -1, ""
    for kind, value in [*pieces, ("", None)]:
        block = {"arguments": "call"}.get(kind, kind)
        if opened and (block != opened or kind == "call"):
            if opened == "thinking":
                out.append(delta("signature", signature, index))
            out.append(event("content_block_stop", index=index))
            opened = ""
        if block and block != opened:
            index, opened = index + 1, block
            out.append(event("content_block_start", index=index, content_block=_empty(kind, value)))
        if kind not in ("", "call"):
            out.append(delta(kind, value, index))
    return b"".join(out)


def _empty(kind: str, value: Any) -> Json:
    if kind == "call":
        return {"type": "tool_use", "id": value[0], "name": value[1], "input": {}}
    if kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def client_text(stream: bytes) -> str:
    """The text in a Messages stream's deltas, joined."""
    events = [json.loads(payload) for payload in payloads(stream)]
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def client_end(stop_reason: str, stop_sequence: str | None, counts: Json) -> bytes:
    """The last two events of a Messages stream."""
    delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
    return event("message_delta", delta=delta, usage=counts) + event("message_stop")


def stop_sequence(stream: bytes) -> str | None:
    """The stop sequence that ended a Messages stream."""
    events = [json.loads(payload) for payload in payloads(stream)]
    found: str | None = next(event["delta"]["stop_sequence"] for event in events if event["type"] == "message_delta")
    return found


# a request


def chat_body(raw: Json) -> Json:
    """The chat-completions body for vLLM of a request as `bodies` makes them, with those blocks and no others."""
    body: Json = {
        "model": raw["model"],
        "messages": [],
        "max_tokens": raw["max_tokens"],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if "temperature" in raw:
        body["temperature"] = raw["temperature"]
    if "metadata" in raw:
        body["user"] = raw["metadata"]["user_id"]
    if "thinking" in raw:
        body["chat_template_kwargs"] = {"enable_thinking": True, "thinking": True}
        body["thinking_token_budget"] = raw["thinking"]["budget_tokens"]
    if "system" in raw:
        texts = [block["text"] for block in raw["system"]]
        body["messages"].append({"role": "system", "content": "\n".join(texts)})
    for message in raw["messages"]:
        body["messages"] += _chat_turn(message)
    if "tools" in raw:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in raw["tools"]]
    return body


def _function(tool: Json) -> Json:
    return {"name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"]}


def _chat_turn(message: Json) -> list[Json]:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    if message["role"] == "assistant":
        turn: Json = {"role": "assistant", "content": "".join(texts) or None}
        thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
        if thoughts:
            turn["reasoning"] = "\n".join(thoughts)
        turn["tool_calls"] = [_call(block) for block in blocks if block["type"] == "tool_use"]
        return [turn]
    turns = [_result(block) for block in blocks if block["type"] == "tool_result"]
    return turns + ([{"role": "user", "content": "\n".join(texts)}] if texts else [])


def _call(block: Json) -> Json:
    arguments = json.dumps(block["input"], ensure_ascii=False, separators=(",", ":"))
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _result(block: Json) -> Json:
    content = block["content"]
    text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    if block.get("is_error"):
        text = f"[tool error] {text}"
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}
