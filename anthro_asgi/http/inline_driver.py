"""Runs a coroutine from the callback that delivers what it waits for, without a turn of the event loop in between.

A task that waits for a future continues in the next iteration of the event loop: the future gets its result, a callback
is scheduled, the task wakes, and every coroutine down to the waiting one is entered again. For a token that is most of
the work. An `InlineDriver`, awaited in a task, avoids it. It steps a coroutine itself, and parks it when it awaits a
future that has an attribute `resume`:

    task ──awaits──► InlineDriver ──steps──► coroutine ──awaits──► a future with `resume`
                          ▲                                             │
                          └────────── resume(), when the data arrives ──┘

When the coroutine awaits anything else, the task takes over until that is done. The coroutine cannot notice the
difference: while it is stepped, its task is the current task (`asyncio._enter_task`, which asyncio documents under
"Extending"), its context variables are those with which the driver began, and cancellation, exceptions and results
take their usual way.

A future supports this by the attribute alone: the code that would set its result calls `resume` instead when that is
not None, from a callback of the event loop. A call from within a task is safe: the driven task then continues in the
next iteration of the loop.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_enter, _leave = asyncio._enter_task, asyncio._leave_task


class InlineDriver(Generic[T]):
    """Await it once. It returns what `coroutine` returns, and raises what it raises."""

    __slots__ = (
        "_context",
        "_coroutine",
        "_ended",
        "_error",
        "_handover",
        "_loop",
        "_result",
        "_send",
        "_task",
        "_waits",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._task = task
        self._coroutine = coroutine
        self._send = coroutine.send
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._ended = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._waits: Any = None  # what the coroutine awaits
        self._handover: asyncio.Future[None] | None = None  # what the task awaits while the coroutine is parked

    def __await__(self) -> Generator[Any, None, T]:
        error: BaseException | None = None
        while not self._ended:
            self._advance(error)
            error = None
            try:
                while not self._ended and hasattr(self._waits, "resume"):
                    parked = self._waits
                    yield from self._park(parked)
                    if self._waits is parked and not self._ended:
                        break
                else:
                    if not self._ended:
                        yield self._waits
            except BaseException as exc:  # thrown into the coroutine; usually a cancellation
                error = exc
        if error is not None:  # raised after the coroutine had ended
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        return self._result  # type: ignore[no-any-return]

    def _advance(self, error: BaseException | None) -> None:
        """Run the coroutine to its next await or to its end."""
        try:
            self._waits = self._send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self._ended, self._result = True, stop.value
        except BaseException as exc:
            self._ended, self._error = True, exc
        finally:
            del error  # the traceback refers to this frame

    def _park(self, future: Any) -> Generator[Any, None, None]:
        """Let `_resume` step the coroutine until a step is left to the task."""
        self._handover = self._loop.create_future()
        future.resume = self._resume
        try:
            yield from self._handover
        finally:
            self._handover = None
            future.resume = None

    def _resume(self) -> None:
        handover = self._handover
        if handover is None or handover.done():
            return
        try:
            _enter(self._loop, self._task)
        except RuntimeError:  # called from within another task
            handover.set_result(None)
            return
        parked = self._waits
        try:
            self._waits = self._context.run(self._send, None)
            if self._waits is parked:
                return
        except StopIteration as stop:
            self._ended, self._result = True, stop.value
        except BaseException as exc:
            self._ended, self._error = True, exc
        finally:
            _leave(self._loop, self._task)
        handover.set_result(None)
