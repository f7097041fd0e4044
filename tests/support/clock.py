"""An event loop with a fake clock: time advances only when no callback is ready, so a long silence costs nothing.

Every timer on the loop is a fake clock with that, and no code under test needs to be handed one. Nothing real (sockets,
threads, child processes) can be waited for on it.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class _Selector(selectors.SelectSelector):
    """Instead of waiting for `timeout` seconds, adds them to the clock."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("the test waits for something that nothing will bring about")
        self.now += timeout
        return super().select(0)


class FakeClockLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def fake_clock(test: F) -> F:
    """Mark an `async def test_…` to run on a FakeClockLoop (see conftest)."""
    test.loop_factory = FakeClockLoop  # type: ignore[attr-defined]
    return test
