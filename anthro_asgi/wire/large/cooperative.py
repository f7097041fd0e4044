"""Work that would hold an event loop for too long, done in steps, with turns for everybody else between them. Pure.

A function that works in steps is a generator: it yields where it may pause and returns what it has made. Who needs that
at once calls `finished`; who runs on a loop awaits `in_turns`, which gives the loop a turn when a millisecond is over.
So no step should take much longer than that.
"""

from collections.abc import Callable, Generator
from types import coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

LARGE: Final = 256 * 1024
"""Bytes of a request from which on it is worth it."""
_TURN: Final = 0.001  # seconds


def finished(steps: Steps[T]) -> T:
    """What the steps make, without a pause."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        made: T = stop.value
        return made


def drop(held: list[Any]) -> Steps[None]:
    """Lets go of all that is in the list, one by one: it takes its time to give much memory back."""
    while held:
        held.pop()
        yield


@coroutine
def in_turns(steps: Steps[T], clock: Callable[[], float]) -> Steps[T]:
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
