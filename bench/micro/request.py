"""A request's body → a checked request → the body that an engine is asked with, against `orjson.loads` of the body."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson

from anthro_asgi.engines.openai.chat_request import encode, to_chat
from anthro_asgi.engines.openai.dialects import VLLM
from anthro_asgi.wire.request import parse_request

from .. import bodies, oracles
from ..timing import always
from .case import Case, same

GROUP: Final = "request"
FLOOR: Final = "orjson.loads of the body"
BAR: Final = 2.0  # to check a large one and convert it
_GREETINGS: Final = 500  # hellos in a round; one large body is a round by itself


def converted(body: bytes) -> bytes:
    """What the service does before it asks an engine."""
    return encode(to_chat(parse_request(body), VLLM))


def unwritten(body: bytes) -> dict[str, Any]:
    """The same, as far as the words of the chat request, which are not yet bytes."""
    return to_chat(parse_request(body), VLLM)


def both_ways(body: bytes) -> bytes:
    """What it costs to read and to write, with nothing done between."""
    return orjson.dumps(orjson.loads(body))


def cases() -> list[Case]:
    hello = [bodies.hello()] * _GREETINGS
    agent = [bodies.agent()]
    return [
        _case("check, hello", parse_request, hello, _check_parsed),
        _case("check and convert, hello", converted, hello, _check_converted),
        _case("check, agent of 1 MB", parse_request, agent, _check_parsed),
        _case("check and convert, agent of 1 MB", converted, agent, _check_converted, BAR),
        _case("the same but for writing it, agent of 1 MB", unwritten, agent, _check_unwritten),
        _case("loads and dumps, agent of 1 MB", both_ways, agent, _check_both_ways),
    ]


def _case(
    name: str,
    function: Callable[[bytes], Any],
    items: list[bytes],
    check: Callable[[bytes, str], None],
    bar: float | None = None,
) -> Case:
    checked = partial(check, items[0], f"{GROUP}, {name}")
    return Case(GROUP, name, FLOOR, always(orjson.loads, items), always(function, items), len(items), checked, bar)


def _check_parsed(body: bytes, what: str) -> None:
    request = parse_request(body)
    raw = json.loads(body)
    same(request.messages, raw["messages"], what)
    same(request.system, [block["text"] for block in raw.get("system", ())], what)
    tools = [(tool.name, tool.description, tool.input_schema) for tool in request.tools]
    same(tools, [(tool["name"], tool["description"], tool["input_schema"]) for tool in raw.get("tools", ())], what)
    same((request.model, request.max_tokens, request.stream), (raw["model"], raw["max_tokens"], raw["stream"]), what)


def _check_converted(body: bytes, what: str) -> None:
    same(json.loads(converted(body)), oracles.chat_body(json.loads(body)), what)


def _check_unwritten(body: bytes, what: str) -> None:
    same(unwritten(body), oracles.chat_body(json.loads(body)), what)


def _check_both_ways(body: bytes, what: str) -> None:
    same(json.loads(both_ways(body)), json.loads(body), what)
