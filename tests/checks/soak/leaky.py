"""An engine that leaks memory and sockets and repeats texts: the soak must detect it under the real command."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from anthro_asgi.engines.base import ModelInfo
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Batch
from anthro_asgi.wire.request import MessagesRequest

UPSTREAM = "LEAKY_UPSTREAM"  # environment variable with the URL of the engine behind it


class Leaky:
    """With each answer it leaks 256 KiB and a socket, drops a failed future, and repeats one text."""

    def __init__(self) -> None:
        self._engine = OpenAIEngine(Origin.parse(os.environ[UPSTREAM]))
        self._kept: list[Any] = []

    async def start(self) -> None:
        await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def models(self) -> list[ModelInfo]:
        return await self._engine.models()

    def connections(self) -> dict[str, int]:
        return {"idle": 0, "leased": len(self._kept), "connecting": 0, "draining": 0, "waiting": 0}

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self._kept += [b"kept" * 65536, socket.socket()]
        asyncio.get_running_loop().create_future().set_exception(RuntimeError("forgotten"))
        async with aclosing(self._engine.stream(request)) as batches:  # type: ignore[type-var]  # it is an async generator
            async for batch in batches:
                yield batch
                if isinstance(batch, str) and batch.endswith("7"):
                    yield batch
