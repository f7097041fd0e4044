"""Work that would hold an event loop for too long, done in steps, with turns for everybody else between them. Pure.

A function that works in steps is a generator: it yields where it may pause and returns what it has made. Who needs that
at once calls `run_to_end`; who runs on a loop awaits `run_with_yields`, which yields when a millisecond is over.
So no step should take much longer than that.
"""

from collections.abc import Callable, Generator
from types import coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

LARGE_BODY: Final = 256 * 1024
"""Bytes of a request from which on it is worth it."""
_TURN: Final = 0.001  # seconds


def run_to_end(steps: Steps[T]) -> T:
    """What the steps make, without a pause."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        made: T = stop.value
        return made


def clear_in_steps(held: list[Any]) -> Steps[None]:
    """Lets go of all that is in the list, one by one: it takes its time to give much memory back."""
    while held:
        held.pop()
        yield


@coroutine
def run_with_yields(steps: Steps[T], clock: Callable[[], float]) -> Steps[T]:
    """Await it for what the steps make. `clock` gives seconds, as they pass also within a turn of the loop.

    A bare yield is a turn for the loop: `asyncio.sleep(0)` is nothing else. The last is given when all is made, so that
    who goes on begins with a turn of its own.
    """
    try:
        until = clock() + _TURN
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                made: T = stop.value
                break
            if clock() >= until:
                yield
                until = clock() + _TURN
        if clock() >= until:
            yield
        return made
    finally:
        steps.close()
