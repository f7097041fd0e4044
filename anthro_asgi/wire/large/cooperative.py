"""Long work in short steps, so that the event loop can serve others in between. Pure.

A function that works in steps is a generator: it yields where it may pause, and returns its result. A step should not
take much longer than a millisecond. `run_to_end` runs the steps without a pause. On an event loop, await
`run_with_yields`: it runs the steps in slices of a millisecond, and yields to the loop after each.

Calls that run at the same time take turns: an iteration of the event loop has one slice, however many calls there are.
A call is resumed once in each iteration. It runs its next slice if no other slice was run since it was resumed the last
time. After a slice it lets one iteration pass, so that the next call gets its turn.
"""

from collections.abc import Callable, Generator, Sequence
from sys import getrefcount
from types import coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

LARGE_BODY: Final = 256 * 1024
"""Bytes of a request body above which it is processed in steps."""
FREED_AT_ONCE: Final = 64 * 1024
"""Bytes of JSON up to which its values are freed in one step, which takes at most two milliseconds."""
_SMALL_BODY: Final = 16 * 1024  # bytes up to which it never is
_DENSE: Final = 16 * 1024  # what its values may weigh; this many numbers take two milliseconds
_TEXT: Final = 4  # bytes of text, at least, for each that the punctuation in it weighs
_OBJECT: Final = 10
_ARRAY: Final = 4
_MEMBER: Final = 2  # beside its value
_STRIDE: Final = (11, 13, 17, 19, 23)[hash("a stride") % 5]
"""Of so many bytes one is looked at first. It is prime, so that a short pattern is seen, and a client cannot know it:
Python hashes strings with a secret."""
_SURROGATE: Final = b"\\ud"  # its escape; lone ones are replaced one by one
_SURROGATE_WEIGHT: Final = 8
_BYTES_FOR_AN_ESCAPE: Final = 25  # in a text with fewer for each escape, surrogates are counted
_DROPPED_PER_STEP: Final = 256
_OWNED: Final = 2  # references to a value that only `drop_in_steps` holds: its variable and the argument of getrefcount
_CONTAINERS: Final = frozenset({dict, list})
_YIELD_AFTER: Final = 0.001  # seconds


def takes_long(pieces: Sequence[bytes]) -> bool:
    """Whether a request body is so large, or has so many JSON values, that it is processed in steps."""
    size = sum(map(len, pieces))
    if size <= _SMALL_BODY or size > LARGE_BODY:
        return size > LARGE_BODY
    body = b"".join(pieces)
    sample = body[::_STRIDE]
    has_escapes = sample.count(b"\\") > len(sample) // _BYTES_FOR_AN_ESCAPE
    if has_escapes and _SURROGATE_WEIGHT * body.count(_SURROGATE) > _DENSE:
        return True
    weight = _STRIDE * _weight(sample)
    if weight <= _DENSE:  # as nearly always, with what strings hold
        return False
    if weight > size // _TEXT or body.count(b'"') > _DENSE:  # hardly a conversation; an exact answer takes milliseconds
        return True
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return _weight(b"".join(body.split(b'"')[::2])) > _DENSE


def _weight(text: bytes) -> int:
    """How long it takes to process the values in `text`, in numbers that take as long."""
    return _OBJECT * text.count(b"{") + _ARRAY * text.count(b"[") + _MEMBER * text.count(b":") + text.count(b",")


def run_to_end(steps: Steps[T]) -> T:
    """The result of the steps, run without a pause."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result


def clear_in_steps(items: list[Any]) -> Steps[None]:
    """Empties the list item by item: freeing a lot of memory at once would block the loop."""
    while items:
        items.pop()
        yield


def drop_in_steps(held: list[Any]) -> Steps[None]:
    """Drops JSON values, item by item: freeing a lot of memory at once would block the loop. Empties `held`.

    A dict or list that something else refers to, too, keeps its content.
    """
    steps = 0
    while held:
        value = held.pop()
        kind = type(value)
        steps += 1
        if steps % _DROPPED_PER_STEP == 0:
            yield
        if kind is not dict and kind is not list:
            continue
        if getrefcount(value) > _OWNED:
            for inner in value.values() if kind is dict else value:
                if type(inner) in _CONTAINERS:
                    held.append(inner)
                steps += 1
                if steps % _DROPPED_PER_STEP == 0:
                    yield
            inner = None
        while getrefcount(value) <= _OWNED and value:
            inner = value.popitem()[1] if kind is dict else value.pop()
            if type(inner) in _CONTAINERS:
                held.append(inner)
            del inner
            steps += 1
            if steps % _DROPPED_PER_STEP == 0:
                yield


@coroutine
def run_with_yields(steps: Steps[T], clock: Callable[[], float]) -> Steps[T]:
    """Await the result of the steps. `clock` returns seconds and must advance while the loop is blocked.

    A bare yield gives control to the loop, exactly as `asyncio.sleep(0)` does. If the last slice is used up, there is
    one more yield after the last step, so that the caller starts with a fresh slice.
    """
    _turns.running += 1
    try:
        if _turns.running > 1:
            yield from _next_turn()
        until = clock() + _YIELD_AFTER
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: T = stop.value
                break
            if clock() >= until:
                _turns.slices += 1
                yield
                if _turns.running > 1:
                    yield from _next_turn()
                until = clock() + _YIELD_AFTER
        _turns.slices += 1
        if clock() >= until:
            yield
        return result
    finally:
        _turns.running -= 1
        steps.close()


class _Turns:
    """What the calls of `run_with_yields` in this process have in common."""

    __slots__ = ("running", "slices")

    def __init__(self) -> None:
        self.running = 0  # calls that have not ended
        self.slices = 0  # that were run so far


_turns: Final = _Turns()


def _next_turn() -> Steps[None]:
    """Yield to the loop until no slice was run for an iteration.

    Calls that come later could go first for ever. So a call waits no longer than two turns of each of the others.
    """
    patience = 2 * _turns.running
    before = -1
    while before != _turns.slices and patience:
        before = _turns.slices
        patience -= 1
        yield
