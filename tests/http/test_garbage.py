"""A request leaves no reference cycle behind, however it ends.

What forms a cycle stays in memory until the garbage collector visits it. With thousands of open streams such a
collection stops all of them for hundreds of milliseconds.
"""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from anthro_asgi import Finish, MessagesApp, Overloaded, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.http.base_app import BaseApp
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.simulator.chat_app import CompletionsApp
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.wire.request_policy import Rules
from tests.support.upstream import Answer as UpstreamAnswer
from tests.support.upstream import ScriptedUpstream, Wire, json_answer, sse

pytestmark = pytest.mark.slow

ROUNDS = 12
Message = MutableMapping[str, Any]


class Client:
    """The least that a server does for one request. It leaves after `sends` messages, if that is set."""

    def __init__(self, path: str, body: bytes, sends: int | None = None, key: bytes = b"") -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"x-api-key", key)] if key else [],
            "client": ("127.0.0.1", 5),
            "state": {},
        }
        self.status = 0
        self.body = b""
        self._pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._sends = sends
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        if self._pending:
            return self._pending.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        if self._sends is not None:
            self._sends -= 1
            if self._sends <= 0:
                self._left.set()


async def request(app: BaseApp, path: str = "/v1/messages", sends: int | None = None, **changes: Any) -> Client:
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], **changes}
    client = Client(path, json.dumps(body).encode(), sends)
    await app(client.scope, client.receive, client.send)
    return client


def is_ours(thing: Any) -> bool:
    """Whether an object is of a class of the package, or runs its code."""
    code = getattr(thing, "gi_code", None) or getattr(thing, "cr_code", None) or getattr(thing, "ag_code", None)
    file = code.co_filename if code is not None else getattr(getattr(thing, "f_code", None), "co_filename", "")
    return type(thing).__module__.startswith("anthro_asgi") or "anthro_asgi" in file


async def leftovers(ask: Callable[[], Awaitable[Any]], *, everything_counts: bool = True) -> Counter[str]:
    """The types of the objects that `ROUNDS` calls of `ask` leave to the garbage collector, with their numbers."""
    for _ in range(3):
        await ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            await ask()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(thing).__qualname__ for thing in gc.garbage if everything_counts or is_ours(thing))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def everything(_: Any) -> AsyncIterator[Any]:
    yield Usage(input_tokens=3)
    yield Thinking("hm")
    yield "one"
    await asyncio.sleep(0)
    yield ["two", ToolStart("toolu_1", "look"), ToolJson("{}")]
    yield Finish("tool_use")


async def failing(_: Any) -> AsyncIterator[Any]:
    yield "one"
    raise Overloaded("too many")


async def endless(_: Any) -> AsyncIterator[Any]:
    while True:
        yield "more "
        await asyncio.sleep(0)


LARGE = {"junk": "x" * 300_000}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
REFERENCE = {"type": "mcp_tool_reference", "server_name": "s", "name": "g"}
ADDITION = [
    {"role": "user", "content": "Hi"},
    {"role": "system", "content": [{"type": "tool_addition", "tool": REFERENCE}]},
]
CASES: dict[str, tuple[Callable[[], BaseApp], dict[str, Any]]] = {
    "a stream": (lambda: MessagesApp(everything), {"stream": True}),
    "a whole answer": (lambda: MessagesApp(everything), {}),
    "a stream with stop sequences": (lambda: MessagesApp(everything), {"stream": True, "stop_sequences": ["tw"]}),
    "a stream of the simulator": (lambda: MessagesApp(SimulatedEngine(ttft=0, itl=0)), {"stream": True}),
    "a refused body": (lambda: MessagesApp(everything), {"max_tokens": -1}),
    "a large body with an invalid field": (lambda: MessagesApp(everything), {"max_tokens": -1, **LARGE}),
    "a large body with an invalid message": (
        lambda: MessagesApp(everything),
        {"messages": [{"role": "user", "content": 5}], **LARGE},
    ),
    "a large body with a key that is too long": (lambda: MessagesApp(everything), {"x" * 600_000: 0}),
    "a tool of an unknown server": (lambda: MessagesApp(everything), {"tools": [TOOL], "messages": ADDITION}),
    "a large body that is relayed although it cannot be read": (
        lambda: MessagesApp(everything, rules=Rules(pass_server_tools=True)),
        {"messages": [{"role": "user", "content": [{"type": "mcp_tool_use"}]}], **LARGE},
    ),
    "a body that is relayed although it cannot be read": (
        lambda: MessagesApp(everything, rules=Rules(pass_server_tools=True)),
        {"messages": [{"role": "user", "content": [{"type": "mcp_tool_use"}]}]},
    ),
    "a refused key": (lambda: MessagesApp(everything, keys=["sk-1"]), {}),
    "an error in the stream": (lambda: MessagesApp(failing), {"stream": True}),
    "an error of a whole answer": (lambda: MessagesApp(failing), {}),
    "a client that leaves a stream": (lambda: MessagesApp(endless), {"stream": True, "sends": 3}),
    "a count": (lambda: MessagesApp(everything), {"path": "/v1/messages/count_tokens"}),
    "an unknown path": (lambda: MessagesApp(everything), {"path": "/nowhere"}),
    "a chat stream": (lambda: CompletionsApp(everything), {"path": "/v1/chat/completions", "stream": True}),
    "a whole chat completion": (lambda: CompletionsApp(everything), {"path": "/v1/chat/completions"}),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_request_leaves_nothing_to_the_garbage_collector(case: str) -> None:
    make, changes = CASES[case]
    app = make()
    assert not await leftovers(lambda: request(app, **changes))


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


FINISHED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
TEXT = sse(chunk(content="one"), chunk(content=" two"), chunk(content=" three"), FINISHED)
BEGINNING = TEXT.partition(b" two")[0].rpartition(b"data:")[0].rpartition(b"\r\n")[0] + b"\r\n"
ERROR = sse(chunk(content="one"), {"error": {"message": "no", "code": 503}})


async def reset(wire: Wire) -> None:
    wire.reset()


async def cut(wire: Wire) -> None:
    await wire.send(BEGINNING)
    wire.close()


async def reset_later(wire: Wire) -> None:
    await wire.send(BEGINNING)
    wire.reset()


async def break_a_chunk(wire: Wire) -> None:
    await wire.send(BEGINNING + b"zz\r\n")


async def stall(wire: Wire) -> None:
    await wire.send(BEGINNING)
    await wire.gone()


async def say_nothing(wire: Wire) -> None:
    await wire.gone()


UPSTREAM: dict[str, tuple[UpstreamAnswer, dict[str, Any]]] = {
    "a connection that is reset": (reset, {"stream": True}),
    "a response that is not HTTP": (b"SSH-2.0-x\r\n\r\n", {}),
    "an engine that says nothing": (say_nothing, {}),
    "an engine that stalls": (stall, {"stream": True}),
    "a connection that ends in an answer": (cut, {"stream": True}),
    "a connection that is reset in an answer": (reset_later, {}),
    "an invalid chunk": (break_a_chunk, {"stream": True}),
    "an error in a stream": (ERROR, {"stream": True}),
    "an error in the stream of a whole answer": (ERROR, {}),
    "a stream": (TEXT, {"stream": True}),
    "a whole answer": (TEXT, {}),
    "a refusal": (json_answer(400, {"error": {"message": "no"}}), {"stream": True}),
    "a failure": (json_answer(503, {"error": {"message": "no"}}), {}),
    "an answer that breaks off": (sse(chunk(content="one"), done=False), {"stream": True}),
    "a client that leaves": (TEXT, {"stream": True, "sends": 2}),
}


@pytest.mark.parametrize("case", UPSTREAM)
async def test_a_request_to_an_upstream_leaves_nothing_either(case: str) -> None:
    answer, changes = UPSTREAM[case]
    async with ScriptedUpstream(answer) as upstream:
        engine = OpenAIEngine(
            Origin.parse(f"{upstream.url}/v1"), dialect="openai", deadlines=Deadlines(first_byte=0.05, silence=0.05)
        )
        app = MessagesApp(engine)
        try:
            assert not await leftovers(lambda: request(app, **changes), everything_counts=False)
        finally:
            await engine.stop()
