"""Reads large responses of an engine in turns of the event loop, so that no answer holds it for long.

    a read ──► pieces of whole events (`event_pieces`) ──► deltas, a turn of the loop between them
                  └─ an event of more than `LARGE` bytes ──► read in a thread

What a piece costs depends on its bytes: a text costs microseconds, broken tool arguments a few milliseconds. An event
cannot be divided: its JSON is parsed at once, and arguments that arrive whole are repaired as a whole. So a large event
is read in one of a few threads, while the loop goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final, Protocol, TypeVar

from ...wire.deltas import Delta
from ...wire.errors import no_thread

T = TypeVar("T")
_TURN: Final = 0.001  # seconds
_THREADS: Final = 2
# Not the default executor of the loop, which also resolves names.
_pool: Final = ThreadPoolExecutor(_THREADS, "anthro-asgi large answers")


class PacedReader(Protocol):
    """A reader that leaves a part of a large read unread."""

    @property
    def unread(self) -> bool:
        """Whether a part of what it has received is not read yet."""

    @property
    def is_heavy(self) -> bool:
        """Whether the next step may take long, so that it belongs in a thread."""

    def read_on(self) -> list[Delta]:
        """The deltas of the next part. Raises ApiError."""


async def read_on(reader: PacedReader) -> AsyncGenerator[list[Delta], None]:
    """The batches of what `reader` has not read yet. Raises ApiError."""
    until = 0.0
    while reader.unread:
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + _TURN
        batch = await in_thread(reader.read_on) if reader.is_heavy else reader.read_on()
        if batch:
            yield batch


async def in_thread(function: Callable[[], T]) -> T:
    """The result of `function`, which is called in a thread. Raises Overloaded if the system has no thread left."""
    try:
        result = asyncio.get_running_loop().run_in_executor(_pool, function)
    except RuntimeError as exc:
        raise no_thread() from exc
    return await result
