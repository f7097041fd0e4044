"""The valid requests that are mutated: recorded ones, and requests with every field and block."""

import json
from functools import cache
from typing import Any

import orjson

from anthro_asgi.wire.blocks import SERVER_RESULTS
from anthro_asgi.wire.client_tools import CLIENT_TOOLS
from tests.replay import cases
from tests.replay.asking import messages_request

Json = dict[str, Any]
LONGEST = 3000  # bytes of a recorded request
PIXEL = "iVBORw0KGgo="


def user(*content: Any) -> Json:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(*content: Any) -> Json:
    return {"role": "assistant", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def image(kind: str = "image/png") -> Json:
    source = {"type": "base64", "media_type": kind, "data": PIXEL}
    return {"type": "video" if kind.startswith("video") else "image", "source": source}


def call(identity: str, name: str = "get_weather", **given: Any) -> Json:
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


def result(identity: str, content: Any = "12 °C", **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


def request(*messages: Json, **more: Any) -> Json:
    return {"model": "m", "max_tokens": 32, "messages": list(messages) or [user("Hello")], **more}


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Tells the weather.", "input_schema": SCHEMA}
LONG_NAME = {"name": "n" * 128, "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
DOCUMENT = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}
FOUND = {"type": "search_result", "title": "T", "source": "https://x.test", "content": [text("found")]}
SERVER_SIDE = {
    "web_search_tool_result": [{"type": "web_search_result", "title": "T", "url": "https://x.test"}],
    "code_execution_tool_result": {"type": "code_execution_result", "stdout": "1\n", "stderr": "", "return_code": 0},
    "web_fetch_tool_result": {"type": "web_fetch_result", "url": "https://x.test", "content": DOCUMENT},
}

RICH: tuple[Json, ...] = (
    request(),
    request(user("Hello"), assistant("Hi"), user("How are you?"), system="Be brief.", stream=True),
    request(user(text("a", cache_control={"type": "ephemeral"}), text("")), system=[text("one"), text("two")]),
    request(
        temperature=0.7, top_p=0.9, top_k=40, stop_sequences=["END", "\n\n"], metadata={"user_id": "u"}, stream=False
    ),
    request(tools=[TOOL, LONG_NAME], tool_choice={"type": "any", "disable_parallel_tool_use": True}, stream=True),
    request(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}),
    request(
        user("Weather?"),
        assistant(text("Let me see."), call("t1", city="Paris"), call("t2", "get_time")),
        user(result("t2", [text("noon"), image()]), result("t1", "12 °C", is_error=True), text("Well?")),
        tools=[TOOL],
    ),
    request(
        user("Weather?"),
        assistant(call("t1")),
        {"role": "system", "content": "Later instructions."},
        user(result("t1", [DOCUMENT, FOUND, {"type": "tool_reference", "tool_name": "x"}])),
        assistant("It is"),
    ),
    request(user(image(), image("video/mp4"), DOCUMENT, FOUND, {"type": "container_upload", "file_id": "f"})),
    request(user({**DOCUMENT, "source": {"type": "content", "content": [text("a"), image()]}, "context": "c"})),
    request(user({"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}})),
    request(
        user("Think"),
        assistant({"type": "thinking", "thinking": "hm", "signature": "c2ln"}, text("So.")),
        assistant({"type": "redacted_thinking", "data": "c2Vj"}),
        user("Go on"),
        thinking={"type": "enabled", "budget_tokens": 1024},
    ),
    request(thinking={"type": "disabled"}, output_config={"effort": "high"}, service_tier="auto"),
    request(thinking={"type": "adaptive", "display": "omitted"}, mcp_servers=[], container=None, speed="fast"),
    request(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}, stream=True),
    request(system=[text("x-anthropic-billing-header: cc_version=1.2.3; cch=0ab1;"), text("You are Claude Code.")]),
    request(
        user("Look"),
        assistant(
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
            *({"type": kind, "tool_use_id": "s1", "content": SERVER_SIDE.get(kind, [])} for kind in SERVER_RESULTS),
        ),
        user("And?"),
    ),
    request(tools=[{"type": "web_search_20250305", "name": "web_search"}, TOOL]),
    request(tools=[{"type": kind, "name": tool.name} for kind, tool in list(CLIENT_TOOLS.items())[:2]]),
    request(thread={"type": "create"}),
    request(thread={"type": "continue", "id": "t"}),
    request(*(message for n in range(12) for message in (user(f"{n} " * 9), assistant("Yes."))), user("End")),
)


@cache
def valid() -> tuple[bytes, ...]:
    """All requests that are short enough, as compact JSON."""
    asked = [messages_request(case) for case in cases(request="POST /v1/chat/completions")]
    bodies = [*map(_bytes, asked), *(orjson.dumps(body) for body in RICH for _ in range(3))]
    return tuple(body for body in bodies if len(body) < LONGEST)


def _bytes(body: Json) -> bytes:
    return json.dumps(body).encode()
