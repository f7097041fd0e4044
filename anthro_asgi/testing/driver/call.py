"""One call of an ASGI application as a task, with a bound on every wait."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class AsgiViolation(AssertionError):
    """The application broke a rule of ASGI."""


class Stuck(AssertionError):
    """The application did not continue within the timeout. The message ends with its stack."""


def require(holds: bool, rule: str) -> None:
    """Raise AsgiViolation unless the rule holds."""
    if not holds:
        raise AsgiViolation(rule)


class Call:
    """One call of the application, as a task.

    Args:
        timeout: seconds that each wait takes at most; None is no limit.
    """

    _task: asyncio.Task[None]

    def __init__(self, app: App, scope: Message, timeout: float | None) -> None:
        self.scope = scope
        self._app = app
        self._timeout = timeout
        self._progress = asyncio.Event()
        self._violation: AsgiViolation | None = None
        self._raised = False

    def _start_task(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self._receive, self._checked_send)
            self._check_return()
        finally:
            self._progress.set()

    async def _receive(self) -> Message:
        raise NotImplementedError

    async def _send(self, message: Message) -> None:
        raise NotImplementedError

    def _check_return(self) -> None:
        """Check that the application was allowed to return. Raises AsgiViolation."""

    async def _checked_send(self, message: Message) -> None:
        try:
            await self._send(message)
        except AsgiViolation as violation:
            self._violation = self._violation or violation
            raise
        finally:
            self._progress.set()

    async def _until(self, ready: Callable[[], bool]) -> bool:
        """Wait for `ready()`. False if the application ended before that. Raises its exception, or Stuck."""
        try:
            async with asyncio.timeout(self._timeout):
                while not (ready() or self._violation or self._task.done()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            await self._raise_stuck()
        if not ready():
            self._raise_failure()
        return ready()

    async def _end(self) -> None:
        """Wait until the application ends. Raises its exception, or Stuck."""
        await asyncio.wait({self._task}, timeout=self._timeout)
        if not self._task.done():
            await self._raise_stuck()
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise the exception of the application, or the rule that it broke; once."""
        error: BaseException | None = self._violation
        if self._task.cancelled():
            error = AsgiViolation("the application raised CancelledError, but nothing cancelled it")
        elif self._task.done():
            error = self._task.exception() or error
        if error is not None and not self._raised:
            self._raised = True
            raise error

    async def _raise_stuck(self) -> None:
        """Cancel the application. The traceback of the cancellation is its stack, with generators."""
        self._raised = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=self._timeout)
        try:
            self._task.result()
            stack = "(it swallowed its cancellation)"
        except (asyncio.CancelledError, Exception) as error:
            stack = "".join(traceback.format_tb(error.__traceback__))
        raise Stuck(f"the application did not continue within {self._timeout} s\n{stack}") from None
