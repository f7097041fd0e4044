"""Short ways to write Messages requests, and the chat requests that they become."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.openai.chat_request import to_chat
from anthro_asgi.engines.openai.dialects import DIALECTS, PLAIN, Dialect
from anthro_asgi.wire.request import MessagesRequest, parse_request

Json = dict[str, Any]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def request(*messages: Json, **fields: Any) -> MessagesRequest:
    turns = messages or ({"role": "user", "content": "Hi"},)
    return parse_request(json.dumps({"model": "m", "max_tokens": 16, "messages": turns, **fields}).encode())


def chat(*messages: Json, dialect: Dialect = PLAIN, **fields: Any) -> Json:
    return to_chat(request(*messages, **fields), dialect)


def sent(*messages: Json, dialect: Dialect = PLAIN, **fields: Any) -> list[Json]:
    body: list[Json] = chat(*messages, dialect=dialect, **fields)["messages"]
    return body


def user(*blocks: Json | str) -> Json:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks: Json | str) -> Json:
    return {**user(*blocks), "role": "assistant"}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def use(identity: str, name: str = "look", **arguments: Any) -> Json:
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def result(identity: str, content: Any = None, **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


def tool(identity: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": content}
