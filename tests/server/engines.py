"""Engines for `--engine`: large responses, a startup that fails, and a key that cannot be replaced."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from anthro_asgi import Finish, MessagesRequest

PIECE = 1000  # characters


async def large(request: MessagesRequest) -> AsyncIterator[str | Finish]:
    """`model` is the length of the response in characters."""
    left = int(request.model)
    while left > 0:
        yield "x" * min(PIECE, left)
        left -= PIECE
    yield Finish("end_turn")


class FailingStart:
    """Startup fails while the file named by the environment variable DOOM exists."""

    async def start(self) -> None:
        if "DOOM" in os.environ and os.access(os.environ["DOOM"], os.F_OK):
            raise RuntimeError("no GPU here")

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model


class IgnoresCancellation:
    """Its `stop` never ends, and neither does an answer."""

    async def stop(self) -> None:
        await self._wait()

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model
        await self._wait()

    async def _wait(self) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


class BlockedThread:
    """A thread of the default executor, which also resolves names, never ends."""

    async def start(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model


class BlocksLoop:
    """An answer holds the event loop for ever."""

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - this is the fault


class CountsGenerators:
    """A threaded engine whose generators reach their next `yield` late. `most`: how many have run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = self._most = 0

    def stream(self, request: MessagesRequest) -> Iterator[str | Finish]:
        if request.model == "most":
            yield str(self._most)
            yield Finish("end_turn")
            return
        with self._lock:
            self._running += 1
            self._most = max(self._most, self._running)
        try:
            yield "first"
            time.sleep(0.05)
            yield "second"
        finally:
            with self._lock:
                self._running -= 1


class FixedKey:
    """Raises when its key is replaced."""

    def replace_key(self, key: str | None) -> None:
        raise ZeroDivisionError(key)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model
