"""A request's body → a validated request → the engine's request body, against `orjson.loads` of the body."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson

from anthro_asgi.engines.openai.chat_request import encode, to_chat
from anthro_asgi.engines.openai.dialects import VLLM
from anthro_asgi.wire.request import parse_request

from .. import bodies
from .case import Case, always, same

GROUP: Final = "request"
BAR: Final = 2.0  # for validating and converting a large body
_GREETINGS: Final = 500  # small bodies per round; one large body is a round


def converted(body: bytes) -> bytes:
    """What the service does before it sends a request to an engine."""
    return encode(to_chat(parse_request(body), VLLM))


def unwritten(body: bytes) -> dict[str, Any]:
    """The same without writing the result as JSON."""
    return to_chat(parse_request(body), VLLM)


def read_and_written(body: bytes) -> bytes:
    """The cost of reading and writing alone."""
    return orjson.dumps(orjson.loads(body))


def cases() -> list[Case]:
    hello = [bodies.hello()] * _GREETINGS
    agent = [bodies.agent()]
    return [
        _case("check, hello", parse_request, hello, _check_parsed),
        _case("check and convert, hello", converted, hello, _check_converted),
        _case("check, agent of 1 MB", parse_request, agent, _check_parsed),
        _case("check and convert, agent of 1 MB", converted, agent, _check_converted, BAR),
        _case("the same but for writing it, agent of 1 MB", unwritten, agent, _check_converted),
        _case("loads and dumps, agent of 1 MB", read_and_written, agent, _check_equal),
    ]


def _case(
    name: str,
    function: Callable[[bytes], Any],
    items: list[bytes],
    check: Callable[[Any, Any, str], None],
    bar: float | None = None,
) -> Case:
    def checked() -> None:
        check(function(items[0]), json.loads(items[0]), f"{GROUP}, {name}")

    floor = always(orjson.loads, items)
    return Case(GROUP, name, "orjson.loads of the body", floor, always(function, items), len(items), checked, bar)


def _check_parsed(request: Any, raw: dict[str, Any], what: str) -> None:
    same(request.messages, raw["messages"], what)
    same(request.system, [block["text"] for block in raw.get("system", ())], what)
    tools = [(tool.name, tool.description, tool.input_schema) for tool in request.tools]
    same(tools, [(tool["name"], tool["description"], tool["input_schema"]) for tool in raw.get("tools", ())], what)
    same((request.model, request.max_tokens, request.stream), (raw["model"], raw["max_tokens"], raw["stream"]), what)


def _check_equal(written: bytes, raw: dict[str, Any], what: str) -> None:
    same(json.loads(written), raw, what)


def _check_converted(chat: bytes | dict[str, Any], raw: dict[str, Any], what: str) -> None:
    """Every text, tool call, result and tool definition is in the chat request, in order and unchanged."""
    body = json.loads(chat) if isinstance(chat, bytes) else chat
    same((body["model"], body["max_tokens"], body["stream"]), (raw["model"], raw["max_tokens"], True), what)
    same(body["messages"], _chat_messages(raw), what)
    tools = [
        {"name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"]}
        for tool in raw.get("tools", ())
    ]
    same([tool["function"] for tool in body.get("tools", ())], tools, what)


def _chat_messages(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The chat messages for vLLM of a request with only the blocks that `bodies` makes."""
    found = (
        [{"role": "system", "content": "\n".join(block["text"] for block in raw["system"])}] if "system" in raw else []
    )
    for message in raw["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        of = partial(_blocks, blocks)
        texts = [block["text"] for block in of("text")]
        if message["role"] == "assistant":
            thoughts = "\n".join(block["thinking"] for block in of("thinking"))
            turn: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None, "reasoning": thoughts}
            turn["tool_calls"] = [_call(block) for block in of("tool_use")]
            found.append({key: value for key, value in turn.items() if value != ""})
        else:
            found += [_result(block) for block in of("tool_result")]
            found += [{"role": "user", "content": "\n".join(texts)}] if texts else []
    return found


def _blocks(blocks: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [block for block in blocks if block["type"] == kind]


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(block["input"], ensure_ascii=False, separators=(",", ":"))
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content = block["content"]
    text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    prefix = "[tool error] " if block.get("is_error") else ""
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": prefix + text}
