"""Limits how many answers run at one time; the others wait in order of arrival."""

from types import TracebackType

from ..http.slots import Slots
from ..wire.errors import Overloaded


class RequestQueue(Slots):
    """`async with` it to run. At most `most` run and `waiting` wait; None is no limit. Raises Overloaded."""

    __slots__ = ("_room",)

    def __init__(self, most: int | None = None, waiting: int | None = None) -> None:
        super().__init__(most)
        self._room = waiting

    async def __aenter__(self) -> None:
        if self.take():
            return
        if self._room is not None and self.waiting >= self._room:
            raise Overloaded("too many requests are waiting")
        await self.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
