"""A generator function as an engine, run in a thread: it may block, and the event loop goes on.

    def engine(request):
        for token in model.generate(…):
            yield token

Each stream has a thread of its own, as it blocks for as long as it lasts. What the thread has yielded by the time the
loop gets to it leaves as one batch. A thread that is ahead by `AHEAD` batches waits until somebody has read.

A thread cannot be interrupted. When the client leaves, the generator is closed at its next `yield`, in its own thread;
until then it goes on with what it does, and nobody waits for it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from ..wire.deltas import Batch, Delta, each
from ..wire.request import MessagesRequest

AHEAD: Final = 64


class ThreadedEngine:
    """`function(request)` is a generator function that yields deltas or batches; to return is to end the turn."""

    returning_ends_turn = True

    def __init__(self, function: Callable[[MessagesRequest], Iterator[Batch]]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"<ThreadedEngine {self._function.__module__}.{self._function.__qualname__}>"

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        """What the generator yields. Raises what it raises."""
        hand = _Handover(asyncio.get_running_loop())
        thread = threading.Thread(target=hand.fill, args=(self._function, request), name="anthro-asgi engine")
        thread.daemon = True  # one that never returns must not keep the process
        del request
        thread.start()
        try:
            while (batch := await hand.take()) is not None:
                yield batch
        finally:
            hand.leave()


class _Handover:
    """Deltas from a thread to a coroutine of `loop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news = asyncio.Event()
        self._room = threading.Semaphore(AHEAD)
        self._lock = threading.Lock()
        self._deltas: list[Delta] = []
        self._batches = 0
        self._ended = False
        self._error: Exception | None = None
        self._left = False

    # the thread

    def fill(self, function: Callable[[MessagesRequest], Iterator[Batch]], request: MessagesRequest) -> None:
        """Run the generator to its end, or until nobody wants more."""
        try:
            generator: Any = function(request)
            del request
            for batch in generator:
                self._put(list(each(batch)))
                self._room.acquire()
                if self._left:
                    generator.close()
                    break
        except Exception as exc:
            self._error = exc
        except BaseException as exc:  # an exit of the thread is not one of the service
            self._error = RuntimeError(f"the engine ended its thread by {type(exc).__name__}")
        self._ended = True
        self._tell()

    def _put(self, deltas: list[Delta]) -> None:
        with self._lock:
            self._deltas += deltas
            self._batches += 1
            first = self._batches == 1
        if first:
            self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            self._left = True  # the loop is closed

    # the coroutine

    async def take(self) -> list[Delta] | None:
        """What has come since the last time, waited for; None at the end. Raises what the generator raised."""
        while True:
            await self._news.wait()
            self._news.clear()
            ended = self._ended
            with self._lock:
                deltas, self._deltas = self._deltas, []
                batches, self._batches = self._batches, 0
            if batches:
                self._room.release(batches)
                if ended:
                    self._news.set()  # for the end, which is told the next time
                return deltas
            if ended:
                if self._error is not None:
                    raise self._error
                return None

    def leave(self) -> None:
        """Nobody reads any more."""
        self._left = True
        self._room.release()
