"""An engine in the service's process whose exceptions quote everything it knows. `model` selects how it fails.

anthro-asgi serve --engine tests.checks.security.leaky:engine
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from anthro_asgi import Finish
from anthro_asgi.engines.base import ModelInfo
from anthro_asgi.wire.request import MessagesRequest

BEFORE = ("value", "runtime", "os", "group", "timeout", "stop", "cancelled", "base", "nonsense", "recursion")
AFTER = tuple(f"{way}-later" for way in BEFORE)
ENDING = ("cleanup", "orphan", "nothing")


class Gone(BaseException):
    """Not caught by `except Exception`."""


def _fail(way: str, words: str) -> Any:
    match way:
        case "value":
            raise ValueError(words)
        case "runtime":
            try:
                raise LookupError(words)
            except LookupError as exc:
                raise RuntimeError(words) from exc
        case "os":
            raise ConnectionRefusedError(111, words, words)
        case "group":
            raise ExceptionGroup(words, [ValueError(words)])
        case "timeout":
            raise TimeoutError(words)
        case "stop":
            raise StopAsyncIteration(words)
        case "cancelled":
            raise asyncio.CancelledError(words)
        case "base":
            raise Gone(words)
        case "recursion":
            raise RecursionError(words)
        case _:
            return {words: object()}


async def _orphan(words: str) -> None:
    raise ValueError(words)


class Leaky:
    """Every exception contains `words` of the request."""

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Any]:
        words = str(request.raw)
        way, _, later = request.model.partition("-")
        if later:
            yield "One. "
        try:
            if way in BEFORE:
                yield _fail(way, words)
            if way == "orphan":
                asyncio.get_running_loop().create_task(_orphan(words))
                await asyncio.sleep(0)
            if way != "nothing":
                yield Finish("end_turn")
        finally:
            if way == "cleanup":
                raise ValueError(words)

    async def count_tokens(self, request: MessagesRequest) -> int:
        result: int = _fail(request.model, str(request.raw))
        return result

    async def models(self) -> list[ModelInfo]:
        raise ValueError("sk-canary-in-a-list")

    async def ready(self) -> bool:
        raise ValueError("sk-canary-in-ready")


engine = Leaky()
