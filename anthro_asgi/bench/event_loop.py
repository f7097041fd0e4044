"""The event loop of the load generator: uvloop's where it is installed, else asyncio's."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, run on a loop of its own."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], Any] | None:
    """uvloop's if it is installed; None means asyncio's own. uvloop has no type stubs, so the loop is Any."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
