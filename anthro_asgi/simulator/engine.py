"""The engine: lets requests in, and plays their answers on the clock.

Editors: the loops of `stream` are once round for every token of every stream.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import chain, count, repeat
from random import Random
from typing import Any, Final

from ..engines.base import BaseEngine, ModelInfo
from ..wire.deltas import Batch, Finish, Usage
from ..wire.request import MessagesRequest
from .answer import Answer, planned, replayed
from .clock import Clock, LoopClock
from .failures import Fault, placed, refuses
from .prefix_cache import PrefixCache
from .profile import Profile
from .prompt import TOKEN, prompt
from .queue import Gate
from .recordings import Recorded
from .seeds import Times, digest

_TURN: Final = 32  # tokens between two turns for the other tasks, when no token is waited for
_CREATED: Final = 1_735_689_600  # 2025-01-01, in Unix seconds
_PLAIN: Final = Profile()

Gap = Callable[[], float]


@dataclass(slots=True)
class _Lot:
    """What is drawn for one request. `prompt` is its model and what is read of it, until that is cached."""

    prompt: tuple[str, bytes]
    answer: Answer
    chance: Random
    fault: Fault | None
    recorded: Recorded | None


class SimulatedEngine(BaseEngine):
    """Answers any request with seeded text, thinking, a tool call or JSON, in the way and at the pace of `profile`.

    `changes` are fields of it that are otherwise, as `Profile.but` takes them: `SimulatedEngine(ttft=0.5, itl=0)`.
    Raises ValueError for what cannot be.
    """

    def __init__(
        self,
        profile: Profile = _PLAIN,
        *,
        clock: Clock | None = None,
        model: str = "simulated",
        **changes: Any,
    ) -> None:
        self.profile = profile = profile.but(**changes)
        self.model = model
        self._clock: Clock = clock or LoopClock()
        self._gate = Gate(profile.max_running, profile.max_waiting)
        self._cache = PrefixCache(profile.cache_tokens // profile.cache_block, profile.cache_block * TOKEN)
        self._times = Times()
        self._turns = count()

    def __repr__(self) -> str:
        profile = self.profile
        pace = f"ttft={profile.ttft} itl={profile.itl} seed={profile.seed}"
        return f"<SimulatedEngine {self.model} {pace} streaming={self.streaming}>"

    @property
    def streaming(self) -> int:
        """Answers that run now: a client that left must not stay among them."""
        return self._gate.running

    async def stop(self) -> None:
        """For the end of the service: nothing may run any more."""
        self._clock.close()

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self.model, display_name="Simulated", created=_CREATED, owned_by="anthro-asgi")]

    async def ready(self) -> bool:
        return True

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length: what its stream's `Usage` has, the cached tokens with it."""
        return len(prompt(request)) // TOKEN

    async def stream(self, request: MessagesRequest) -> AsyncGenerator[Batch, None]:
        """The answer. Raises InvalidRequest for a prompt nested too deeply to be read, and what is to fail."""
        lot = self._draw(request)
        del request  # a stream is open for long, and a prompt is large
        async with self._gate:
            usage, due, gap = self._begin(lot)
            (tokens, stop_reason), fault = lot.answer, lot.fault
            del lot
            time, nap = self._clock.time, self._clock.nap()
            await nap.until(due)
            yield [usage, tokens[0]]
            sent, total = 1, len(tokens)
            due += gap() if gap else 0.0
            for end in (fault.place, total) if fault else (total,):
                while sent < end and gap:
                    await nap.until(due)
                    now, first = time(), sent
                    sent += 1
                    due += gap()
                    while due <= now and sent < end:
                        sent += 1
                        due += gap()
                    yield tokens[first] if sent == first + 1 else list(tokens[first:sent])
                while sent < end:
                    await asyncio.sleep(0)
                    first, sent = sent, min(sent + _TURN, end)
                    for token in tokens[first:sent]:
                        yield token
                if fault and end == fault.place:
                    due = (due if gap else time()) + self._struck(fault)
                    fault = None
                    await nap.until(due)
            yield [Usage(output_tokens=total), Finish(stop_reason)]

    def _draw(self, request: MessagesRequest) -> _Lot:
        """Raises what the request is refused with."""
        profile = self.profile
        read = prompt(request)
        known = digest(request, read, profile.seed)
        chance = Random(known + self._times.count(known).to_bytes(8))  # noqa: S311  # it must repeat itself
        kind = profile.fail.draw(chance)
        if kind is not None and refuses(kind):
            Fault(kind).strike()
        rng = Random(known)  # noqa: S311 - repeatable, not secret
        recorded = profile.trace[next(self._turns) % len(profile.trace)] if profile.trace else None
        answer = replayed(recorded, request.max_tokens, rng) if recorded else planned(request, profile, rng)
        fault = None if kind is None else placed(kind, len(answer[0]), chance)
        return _Lot((request.engine_model, read), answer, chance, fault, recorded)

    def _begin(self, lot: _Lot) -> tuple[Usage, float, Gap | None]:
        """The prompt's counts, the moment of the first token, and what draws the time to the next; None is at once."""
        profile = self.profile
        now = self._clock.time()
        size = len(lot.prompt[1]) // TOKEN
        cached = self._cache.take(*lot.prompt) // TOKEN
        usage = Usage(input_tokens=size)
        if profile.cache_tokens:
            usage = Usage(input_tokens=size - cached, cache_read_input_tokens=cached)
        if lot.recorded is not None:
            gap = chain(lot.recorded.gaps, repeat(0.0)).__next__
            return usage, now + gap(), gap
        prefill = profile.ttft.draw(lot.chance) + profile.ttft_per_token * (size - cached)
        drawn = profile.itl.drawn_by(lot.chance)
        slowed = (lambda: drawn() * self._load()) if profile.load_factor else drawn
        return usage, now + prefill * self._load(), None if profile.itl.zero else slowed

    def _load(self) -> float:
        """How many times as long everything takes as for an answer that runs alone."""
        return 1 + self.profile.load_factor * (self._gate.running - 1)

    def _struck(self, fault: Fault) -> float:
        """The seconds of silence that it brings. Raises, where it is another."""
        if fault.kind != "stall":
            fault.strike()
        return self.profile.stall
