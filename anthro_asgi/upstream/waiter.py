"""What the reader of a connection waits on."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any


class Waiter(asyncio.Future[None]):
    """A future that says "look again": once, as others do, or as often as need be.

    Who awaits it may set `resume`, which is then called instead of a result being set; so it stays of use. `waits` says
    whether anybody does.
    """

    __slots__ = ("resume", "waits")

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.resume: Callable[[], None] | None = None
        self.waits = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # the sign by which a task knows a future
        self.waits = True
        try:
            yield self
        finally:
            self.waits = False

    def wake(self) -> None:
        """Say it, if anybody waits."""
        if self.waits:
            if self.resume is not None:
                self.resume()
            elif not self.done():
                self.set_result(None)
