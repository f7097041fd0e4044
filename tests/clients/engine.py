"""A scripted OpenAI-compatible engine in a thread: real sockets, and a function that plays each chat request.

with ScriptedEngine(play) as engine:      # play(body, number) -> bytes of an HTTP response
    engine.url, engine.chats
"""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from tests.support.upstream import ScriptedUpstream, Wire, json_answer, sse

Json = dict[str, Any]
Play = Callable[[Json, int], bytes]
"""The body of a chat request and its number (0 is the first) → the response."""


class ScriptedEngine:
    """`models` is the answer to GET /v1/models, `others` the answers to other paths."""

    def __init__(
        self, play: Play, models: Json | None = None, others: Mapping[str, Callable[[Json], bytes]] = {}
    ) -> None:
        self.chats: list[Json] = []
        self.heads: list[tuple[str, dict[str, str]]] = []  # of all requests: the path, and the headers
        self.url = ""
        self._play = play
        self._models = models or {"object": "list", "data": [{"id": "local", "object": "model", "owned_by": "tests"}]}
        self._others = others or {}
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        if self._failure is not None and exc is None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with ScriptedUpstream(self._answer) as upstream:
            self.url = upstream.url
            self._ready.set()
            await self._end.wait()

    async def _answer(self, wire: Wire) -> None:
        path = wire.target.partition("?")[0]
        self.heads.append((path, wire.headers))
        if path == "/v1/chat/completions":
            body = json.loads(wire.body)
            number = len(self.chats)
            self.chats.append(body)
            await wire.send(self._play(body, number))
        elif path == "/v1/models":
            await wire.send(json_answer(200, self._models))
        elif path in self._others:
            await wire.send(self._others[path](json.loads(wire.body or b"{}")))
        else:
            await wire.send(json_answer(404, {"detail": "Not Found"}))


# answers


def chunk(delta: Json, reason: str | None) -> Json:
    """A chunk with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def delta(**fields: Any) -> Json:
    return chunk(fields, None)


def finish(reason: str) -> Json:
    return chunk({}, reason)


def usage(prompt: int) -> Json:
    """The last chunk of a stream, for a prompt of so many tokens."""
    counts = {"prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9}
    return {"id": "c", "choices": [], "usage": counts}


USAGE: Json = usage(900)


def text(words: str, reason: str = "stop", prompt: int = 900) -> bytes:
    """A streamed text answer to a prompt of so many tokens."""
    return sse(delta(role="assistant", content=""), delta(content=words), finish(reason), usage(prompt))


def call(name: str, arguments: str, identity: str = "call_1", prompt: int = 900, **more: Any) -> bytes:
    """A streamed tool call whose arguments come in one chunk; `more` are further fields of its first delta."""
    function = {"name": name, "arguments": arguments}
    calls = [{"index": 0, "id": identity, "type": "function", "function": function}]
    first = delta(role="assistant", content=None, **more)
    return sse(first, delta(tool_calls=calls), finish("tool_calls"), usage(prompt))


def refusal(status: int, message: str, **more: Any) -> bytes:
    return json_answer(status, {"error": {"message": message, "type": "BadRequestError", "code": status, **more}})


def last_role(body: Json) -> str:
    return str(body["messages"][-1]["role"])


def tool_results(body: Json) -> list[str]:
    """The contents of the tool messages behind the last assistant message."""
    out: list[str] = []
    for message in reversed(body["messages"]):
        if message["role"] == "assistant":
            break
        if message["role"] == "tool":
            out.insert(0, str(message["content"]))
    return out
