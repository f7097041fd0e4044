"""The engine that plays a script."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final

from ..engines.base import BaseEngine, ModelInfo
from ..simulator import SimulatedEngine
from ..wire.deltas import Batch
from ..wire.errors import InvalidRequest, SimulatedDisconnect
from ..wire.request import MessagesRequest
from .replies import Cut, Played, Stall, steps_of
from .requests import SeenRequest
from .script import Script

CURRENT_REQUEST: Final[ContextVar[SeenRequest | None]] = ContextVar("anthro_asgi.testing.request", default=None)
"""The request that ScriptedApp is answering in this task."""


class ScriptedEngine(BaseEngine):
    """Answers each request as its script says. While nothing is scripted, the simulator answers.

    It can be used without ScriptedApp, for example in an application of your own: `MessagesApp(ScriptedEngine())`. The
    requests of its script then have no HTTP fields, such as headers.

    Args:
        models: the names of the models that it lists.

    Attributes:
        script: the replies.
    """

    returning_ends_turn = True

    def __init__(self, models: Sequence[str] = ("scripted",)) -> None:
        self.script = Script()
        self._models = [ModelInfo(name, display_name=name) for name in models]
        self._simulator: SimulatedEngine | None = None
        self._default_simulator = SimulatedEngine(ttft=0, itl=0)

    def __repr__(self) -> str:
        return f"<ScriptedEngine unused={len(self.script.unused)}>"

    def simulate(self, **profile: Any) -> None:
        """Let the simulator answer the requests for which there is no reply.

        Args:
            profile: fields of `anthro_asgi.simulator.Profile`. `ttft` and `itl` (seconds) are 0 unless given.

        Raises TypeError for an unknown field, ValueError for an invalid value.
        """
        self._simulator = SimulatedEngine(**{"ttft": 0, "itl": 0, **profile})

    def clear(self) -> None:
        """Forget the script and the profile of `simulate`."""
        self.script.clear()
        self._simulator = None

    async def stop(self) -> None:
        for simulator in (self._simulator, self._default_simulator):
            if simulator is not None:
                await simulator.stop()

    async def models(self) -> list[ModelInfo]:
        return self._models

    def call_repair(self) -> None:
        """None: a reply goes out as it is scripted."""

    async def stream(self, request: MessagesRequest) -> AsyncGenerator[Batch, None]:
        """The reply to this request.

        Raises the exceptions of the script. InvalidRequest if there is no reply, or if a function of the script fails:
        its status is 400, because SDKs would repeat the request after a 500.
        """
        seen = CURRENT_REQUEST.get() or SeenRequest()
        seen.parsed = request
        seen.body = seen.body or request.raw
        steps = self._steps(seen)
        if steps is not None:
            async for step in _play(steps, seen):
                yield step
            return
        simulator = self._default_simulator if self.script.is_empty else self._simulator
        if simulator is None:
            self.script.unexpected.append(seen)
            raise InvalidRequest("anthro_asgi.testing: the script has no reply left for this request")
        async with aclosing(simulator.stream(request)) as batches:
            async for batch in batches:
                yield batch

    def _steps(self, seen: SeenRequest) -> list[Played] | None:
        """The steps of the reply to this request; None if there is no reply. Raises InvalidRequest."""
        try:
            reply = self.script.next_reply(seen)
            return None if reply is None else list(steps_of(reply, seen))
        except Exception as exc:
            self.script.failures.append(exc)
            raise InvalidRequest(f"anthro_asgi.testing: the script failed: {exc!r}") from exc


async def _play(steps: list[Played], seen: SeenRequest) -> AsyncGenerator[Batch, None]:
    for step in steps:
        match step:
            case Stall(seconds):
                await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))
            case Cut():
                seen.cut = True
                raise SimulatedDisconnect
            case Exception():
                raise step.with_traceback(None)
            case _:
                yield step
