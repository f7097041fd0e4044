"""An application's start-up and shutdown."""

import asyncio

from tests.support.driver.call import App, Call, Message, Misbehaviour, must


class LifespanFailed(Exception):
    """The application reported that it could not start or stop; the message is its own."""


class Lifespan(Call):
    def __init__(self, app: App, scope: Message, patience: float) -> None:
        self._stages: asyncio.Queue[str] = asyncio.Queue()
        self._stage = "nothing"
        self._answer: Message | None = None
        super().__init__(app, scope, patience)

    def start(self) -> None:
        self._go()

    async def ask(self, stage: str) -> None:
        """Say `startup` or `shutdown` and wait for the answer. Raises LifespanFailed."""
        self._stage, self._answer = stage, None
        self._stages.put_nowait(stage)
        if not await self._until(lambda: self._answer is not None):
            raise Misbehaviour(f"the application ended without an answer to lifespan.{stage}")
        answer: Message = self._answer or {}
        if answer["type"].endswith("failed"):
            raise LifespanFailed(answer.get("message", ""))

    async def end(self) -> None:
        await self._end()

    async def _receive(self) -> Message:
        return {"type": f"lifespan.{await self._stages.get()}"}

    async def _send(self, message: Message) -> None:
        kind, stage = message["type"], self._stage
        must(kind in (f"lifespan.{stage}.complete", f"lifespan.{stage}.failed"), f"{kind} after lifespan.{stage}")
        must(self._answer is None, f"lifespan.{stage} was answered twice")
        self._answer = message
