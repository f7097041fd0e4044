"""Engines as an operator may name them: with answers as large as one likes, and with a start that may fail."""

import os
from collections.abc import AsyncIterator

from anthro_asgi import Finish, MessagesRequest

PIECE = 1000  # characters


async def large(request: MessagesRequest) -> AsyncIterator[str | Finish]:
    """`model` is the length of the answer in characters."""
    left = int(request.model)
    while left > 0:
        yield "x" * min(PIECE, left)
        left -= PIECE
    yield Finish("end_turn")


class Doomed:
    """Starts unless there is a file that the environment names."""

    async def start(self) -> None:
        if "DOOM" in os.environ and os.access(os.environ["DOOM"], os.F_OK):
            raise RuntimeError("no GPU here")

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model


class Stubborn:
    """Takes no other key."""

    def replace_key(self, key: str | None) -> None:
        raise ZeroDivisionError(key)

    async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
        yield request.model
