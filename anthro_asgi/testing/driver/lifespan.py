"""An application's startup and shutdown."""

import asyncio

from .call import App, AsgiViolation, Call, Message, require


class LifespanFailed(Exception):
    """The application reported that it could not start or stop. The message is the application's."""


class Lifespan(Call):
    """The lifespan call of an application. `timeout` as in Call."""

    def __init__(self, app: App, scope: Message, timeout: float | None) -> None:
        self._stages: asyncio.Queue[str] = asyncio.Queue()
        self._stage = "nothing"
        self._answer: Message | None = None
        super().__init__(app, scope, timeout)

    def start(self) -> None:
        """Call the application. It then waits for its first stage."""
        self._start_task()

    async def ask(self, stage: str) -> None:
        """Send `startup` or `shutdown`, and wait for the answer. Raises LifespanFailed, AsgiViolation or Stuck."""
        self._stage, self._answer = stage, None
        self._stages.put_nowait(stage)
        if not await self._until(lambda: self._answer is not None):
            raise AsgiViolation(f"the application ended without an answer to lifespan.{stage}")
        answer: Message = self._answer or {}
        if answer["type"].endswith("failed"):
            raise LifespanFailed(answer.get("message", ""))

    async def end(self) -> None:
        """Wait until the application returns. Raises its exception, or Stuck."""
        await self._end()

    async def _receive(self) -> Message:
        return {"type": f"lifespan.{await self._stages.get()}"}

    async def _send(self, message: Message) -> None:
        kind, stage = message["type"], self._stage
        require(kind in (f"lifespan.{stage}.complete", f"lifespan.{stage}.failed"), f"{kind} after lifespan.{stage}")
        require(self._answer is None, f"lifespan.{stage} was answered twice")
        self._answer = message
