"""One call of an application as a task, with a bound on every wait."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Misbehaviour(AssertionError):
    """The application broke a rule of ASGI."""


class Stuck(AssertionError):
    """The application did not continue. The message ends with its stack."""


def must(holds: bool, rule: str) -> None:
    """Raise Misbehaviour unless the rule holds."""
    if not holds:
        raise Misbehaviour(rule)


class Call:
    """One call of the application, as a task. Every wait is bounded."""

    _task: asyncio.Task[None]

    def __init__(self, app: App, scope: Message, patience: float) -> None:
        self.scope = scope
        self._app = app
        self._patience = patience
        self._news = asyncio.Event()
        self._broken: Misbehaviour | None = None
        self._raised = False

    def _go(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self._receive, self._checked)
            self._returned()
        finally:
            self._news.set()

    async def _receive(self) -> Message:
        raise NotImplementedError

    async def _send(self, message: Message) -> None:
        raise NotImplementedError

    def _returned(self) -> None:
        """Check that the application was allowed to return."""

    async def _checked(self, message: Message) -> None:
        try:
            await self._send(message)
        except Misbehaviour as broken:
            self._broken = self._broken or broken
            raise
        finally:
            self._news.set()

    async def _until(self, ready: Callable[[], bool]) -> bool:
        """True once it is `ready`; False when the application ended before. Raises what it raised, or Stuck."""
        try:
            async with asyncio.timeout(self._patience):
                while not (ready() or self._broken or self._task.done()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            await self._stuck()
        if not ready():
            self._raise()
        return ready()

    async def _end(self) -> None:
        """Until the application ends. Raises what it raised, or Stuck."""
        await asyncio.wait({self._task}, timeout=self._patience)
        if not self._task.done():
            await self._stuck()
        self._raise()

    def _raise(self) -> None:
        """The exception that left the application, or the rule that it broke; once."""
        error: BaseException | None = self._broken
        if self._task.cancelled():
            error = Misbehaviour("the application let a cancellation escape that nobody asked for")
        elif self._task.done():
            error = self._task.exception() or error
        if error is not None and not self._raised:
            self._raised = True
            raise error

    async def _stuck(self) -> None:
        """Cancel the application. The traceback of the cancellation is its stack, with generators."""
        self._raised = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=self._patience)
        try:
            self._task.result()
            stack = "(it swallowed its cancellation)"
        except (asyncio.CancelledError, Exception) as error:
            stack = "".join(traceback.format_tb(error.__traceback__))
        raise Stuck(f"the application did not get on within {self._patience} s\n{stack}") from None
