"""Engines for `--engine`: large responses, a startup that fails, and a key that cannot be replaced."""

import os
from collections.abc import AsyncIterator

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


class FixedKey:
    """Raises when its key is replaced."""

    def replace_key(self, key: str | None) -> None:
        raise ZeroDivisionError(key)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model
