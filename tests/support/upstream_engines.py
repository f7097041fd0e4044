"""The two engines with an upstream, each over an upstream that sends the same answer in its API."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import pytest

from anthro_asgi.engines.messages.engine import MessagesEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Delta, deltas_of
from anthro_asgi.wire.request import MessagesRequest
from tests.support.chat_requests import request
from tests.support.upstream import Answer, ScriptedUpstream, Wire, framed, json_answer

Engine = OpenAIEngine | MessagesEngine
Json = dict[str, Any]

_REASONS: Final = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
_STREAM: Final = [("content-type", "text/event-stream")]


class Chat:
    """Answers of an OpenAI-compatible engine."""

    path = "/v1/chat/completions"
    models = json_answer(200, {"data": [{"id": "m", "owned_by": "nobody"}]})

    def engine(self, origin: Origin, **options: Any) -> Engine:
        return OpenAIEngine(origin, dialect=options.pop("dialect", "openai"), **options)

    def begin(self) -> bytes:
        return _event(_chunk(role="assistant"))

    def text(self, words: str) -> bytes:
        return _event(_chunk(content=words))

    def call(self, index: int, name: str = "look") -> bytes:
        return self.input(index, "", id=f"c{index}", name=name)

    def input(self, index: int, arguments: str, *, name: str | None = None, **more: Any) -> bytes:
        function = {"arguments": arguments} | ({} if name is None else {"name": name})
        return _event(_chunk(tool_calls=[{"index": index, "function": function, **more}]))

    def end(self, reason: str = "end_turn", *, usage: Json | None = None) -> bytes:
        told = {"prompt_tokens": 3, "completion_tokens": 5} if usage is None else usage
        choice = {"index": 0, "delta": {}, "finish_reason": _REASONS.get(reason, reason)}
        return _event({"choices": [choice], "usage": told}) + b"data: [DONE]\n\n"

    def whole(self, words: str) -> bytes:
        message = {"role": "assistant", "content": words}
        return json_answer(200, {"choices": [{"message": message, "finish_reason": "stop"}]})


class Messages:
    """Answers of a Messages server."""

    path = "/v1/messages"
    models = json_answer(200, {"data": [{"id": "m", "type": "model"}]})

    def engine(self, origin: Origin, **options: Any) -> Engine:
        return MessagesEngine(origin, **options)

    def begin(self) -> bytes:
        message = {"id": "msg_1", "content": [], "usage": {"input_tokens": 3, "output_tokens": 0}}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return _event({"type": "message_start", "message": message}) + _event(block)

    def text(self, words: str) -> bytes:
        return self.delta(0, type="text_delta", text=words)

    def delta(self, index: int, **content: Any) -> bytes:
        return _event({"type": "content_block_delta", "index": index, "delta": content})

    def call(self, index: int, name: str = "look") -> bytes:
        block = {"type": "tool_use", "id": f"c{index}", "name": name, "input": {}}
        return _event({"type": "content_block_start", "index": index + 1, "content_block": block})

    def input(self, index: int, arguments: str) -> bytes:
        return self.delta(index + 1, type="input_json_delta", partial_json=arguments)

    def end(self, reason: str = "end_turn", *, usage: Json | None = None) -> bytes:
        told = {"output_tokens": 5} if usage is None else usage
        ending = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": told}
        return _event(ending) + _event({"type": "message_stop"})

    def whole(self, words: str) -> bytes:
        content = [{"type": "text", "text": words}]
        return json_answer(200, {"type": "message", "content": content, "stop_reason": "end_turn"})


Speech = Chat | Messages
SPEECHES: Final[dict[str, Speech]] = {"chat": Chat(), "messages": Messages()}
both_engines = pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)


def _chunk(**delta: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _event(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def stream(*events: bytes, framing: str = "chunked") -> bytes:
    return framed(200, _STREAM, events, framing)


def endless(first: Iterable[bytes], again: bytes | Callable[[int], bytes], left: list[bool] | None = None) -> Answer:
    """A stream that repeats `again` (or `again(number)`) until the client leaves."""

    async def answer(wire: Wire) -> None:
        await wire.send(stream(*first).removesuffix(b"0\r\n\r\n"))
        number = 0
        try:
            while True:
                event = again if isinstance(again, bytes) else again(number)
                await wire.send(b"%x\r\n%b\r\n" % (len(event), event))
                number += 1
        finally:
            if left is not None:
                left.append(True)

    return answer


@asynccontextmanager
async def over(speech: Speech, *answers: Answer, **options: Any) -> AsyncIterator[tuple[ScriptedUpstream, Engine]]:
    """Each POST takes the next of `answers`; the last one repeats."""
    left = list(answers)

    async def by_path(wire: Wire) -> None:
        if wire.method == "GET":
            return await wire.send(speech.models)
        chosen = left.pop(0) if len(left) > 1 else left[0]
        return await (wire.send(chosen) if isinstance(chosen, bytes) else chosen(wire))

    async with ScriptedUpstream(by_path) as upstream:
        engine = speech.engine(Origin.parse(upstream.url), **options)
        try:
            yield upstream, engine
        finally:
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"
            await engine.stop()


async def said(engine: Engine, asked: MessagesRequest | None = None) -> list[Delta]:
    async with aclosing(engine.stream(asked or request())) as batches:  # type: ignore[type-var]
        return [delta async for batch in batches for delta in deltas_of(batch)]
