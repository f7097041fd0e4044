"""One of several engines behind the service: its name, whether it is ready, and its own limit of answers.

Readiness is sticky. An engine is ready until a request, or the start of the service, shows that it is not. From then on
it is probed every five seconds, and gets requests again after a probe succeeded. Meanwhile its fallback answers, so
that not every request has to wait for the failure.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..wire.errors import NO_SPARE_SLOT, ApiError, Overloaded
from .base import ModelInfo, UpstreamEngine, ignore_waiting

_PAUSE: Final = 5.0  # seconds between two probes of an engine that is not ready
_AWAY: Final = frozenset({"connect", "timeout_connect", "key_rejected"})
_PERHAPS_AWAY: Final = frozenset({"broken", "unavailable"})  # or busy, or broken for this request only
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineRules:
    """What the operator says about one engine.

    Args:
        fallback: the engine that answers while this one is not ready, and the model to ask it for; None for the model
            is the same name if the fallback lists it, else the first model that it lists.
        models: names that this engine serves, whether or not it lists them.
        max_concurrency: answers that run at the same time; None is no limit of its own.
        queue_timeout: seconds that a request waits at most for one of these to end.
    """

    fallback: tuple[str | None, str] | None = None
    models: Sequence[str] = ()
    max_concurrency: int | None = None
    queue_timeout: float = 30.0


class Member:
    """The engine called `name`.

    Attributes:
        not_ready: why it is not ready, in words for the operator; None while it is.
    """

    def __init__(self, name: str, engine: UpstreamEngine, rules: EngineRules) -> None:
        self.name = name
        self.engine = engine
        self.rules = rules
        self.not_ready: str | None = None
        self._slots = None if rules.max_concurrency is None else asyncio.Semaphore(rules.max_concurrency)
        self._recovery: asyncio.Task[None] | None = None
        self._probed = asyncio.Event()  # whether the first probe since it was lost has ended

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.not_ready or 'ready'} {self.engine!r}>"

    # models

    def known_models(self) -> list[ModelInfo] | None:
        """Its models as far as they are known without asking, and those that the operator names; None for neither."""
        listed = self.engine.known_models()
        if listed is None and not self.rules.models:
            return None
        models = list(listed or ())
        known = {model.id for model in models}
        return models + [ModelInfo(name, name) for name in self.rules.models if name not in known]

    async def refresh_models(self) -> None:
        """Ask for the model list, unless the engine is not ready. Raises ApiError if there is none.

        An engine that has just been lost, or is slow at the start of the service, is waited for until its first probe.
        """
        if self.not_ready is not None:
            await self._probed.wait()
        if self.not_ready is not None:
            return
        try:
            await self.engine.models()
        except ApiError as exc:
            await self.is_away(exc)
            raise

    def model_for(self, model: str) -> str:
        """The model to ask this engine for in place of another engine's `model`."""
        ids = [one.id for one in self.known_models() or ()]
        return ids[0] if ids and model not in ids else model

    # its slots

    async def acquire(self, *, may_wait: bool = True, wanted: Callable[[str], object] = ignore_waiting) -> None:
        """Wait until it may answer one more request. `wanted` is called if it has to wait. Raises Overloaded."""
        if self._slots is None:
            return
        if self._slots.locked():
            if not may_wait:
                raise Overloaded("overloaded: no slot of the engine is free", reason=NO_SPARE_SLOT)
            wanted(self.name)
        try:
            async with asyncio.timeout(self.rules.queue_timeout):
                await self._slots.acquire()
        except TimeoutError:
            words = f"overloaded: no slot was free within {self.rules.queue_timeout:g} s"
            raise Overloaded(words, reason="queue_timeout") from None

    def release(self) -> None:
        if self._slots is not None:
            self._slots.release()

    # readiness

    async def start(self) -> None:
        """Start the engine. If it is not reached at once, it counts as not ready until it says that it is."""
        await self.engine.start()
        if self.engine.describe() is None:
            self._lose("it was not reached at the start")

    async def is_away(self, error: ApiError) -> bool:
        """Whether `error`, which the engine raised before its first output, means that it is not ready.

        If so, it counts as not ready from now on.
        """
        if error.reason in _AWAY:
            self._lose(error.message)
        elif error.reason in _PERHAPS_AWAY:
            reason = await self.engine.why_not_ready()
            if reason is not None:
                self._lose(reason)
        return self.not_ready is not None

    async def why_not_ready(self) -> str | None:
        """Ask the engine, unless it is being asked every few seconds anyway."""
        if self.not_ready is None:
            reason = await self.engine.why_not_ready()
            if reason is not None:
                self._lose(reason)
        return self.not_ready

    def _lose(self, reason: str) -> None:
        if self.not_ready is None:
            _log.warning(
                "engine_not_ready engine=%(engine)s reason=%(reason)s", {"engine": self.name, "reason": reason}
            )
            self._probed.clear()
            self._recovery = asyncio.get_running_loop().create_task(self._recover())
        self.not_ready = reason

    async def _recover(self) -> None:
        """Ask the engine until it is ready."""
        try:
            while (reason := await self.engine.why_not_ready()) is not None:
                self.not_ready = reason
                self._probed.set()
                await asyncio.sleep(_PAUSE)
            self.not_ready = None
        finally:
            self._probed.set()
        self._recovery = None
        _log.info("engine_ready engine=%(engine)s", {"engine": self.name})

    async def stop(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})
        await self.engine.stop()
