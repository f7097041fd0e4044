"""Exceptions of an engine in this process that are no `Exception`: they must neither end the service nor its task.

`SystemExit` in a task ends the event loop, a `CancelledError` passes for a client that left, and other classes pass by
every `except Exception`.
"""

import asyncio


def is_own(exc: BaseException) -> bool:
    """Whether `exc` is meant for the service: its task is being cancelled, or its coroutine is being closed."""
    if not isinstance(exc, asyncio.CancelledError | GeneratorExit):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return True
    return task is None or task.cancelling() > 0


def as_exception(exc: BaseException) -> Exception:
    """`exc`; or, if it is no `Exception`, an exception that names it and has its place."""
    if isinstance(exc, Exception):
        return exc
    return RuntimeError(f"the engine raised {type(exc).__name__}").with_traceback(exc.__traceback__)
