"""The simulated engine: queues requests and plays their answers on the clock.

Editors: the loops of `stream` run once for each token of each stream.
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
from .answer import Answer, plan_answer, replay_answer
from .clock import Clock, LoopClock
from .failures import PlannedFailure, is_refusal, place_failure
from .prefix_cache import PrefixCache
from .profile import Profile
from .prompt import TOKEN, prompt
from .queue import RequestQueue
from .recordings import RecordedAnswer
from .seeds import RequestCounts, request_digest

_YIELD_EVERY: Final = 32  # tokens after which other tasks may run, when no token is waited for
_CREATED: Final = 1_735_689_600  # 2025-01-01, in Unix seconds
_PLAIN: Final = Profile()

Gap = Callable[[], float]


@dataclass(slots=True)
class _Plan:
    """The plan for one request. `prompt` is its model and its prompt bytes, kept until they are cached."""

    prompt: tuple[str, bytes]
    answer: Answer
    chance: Random
    fault: PlannedFailure | None
    recorded: RecordedAnswer | None


class SimulatedEngine(BaseEngine):
    """Answers any request with seeded text, thinking, a tool call or JSON, as `profile` says.

    `changes` replace fields of the profile, as in `Profile.but`: `SimulatedEngine(ttft=0.5, itl=0)`.
    Raises ValueError for an invalid value.
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
        self._queue = RequestQueue(profile.max_running, profile.max_waiting)
        self._cache = PrefixCache(profile.cache_tokens // profile.cache_block, profile.cache_block * TOKEN)
        self._times = RequestCounts()
        self._turns = count()

    def __repr__(self) -> str:
        profile = self.profile
        pace = f"ttft={profile.ttft} itl={profile.itl} seed={profile.seed}"
        return f"<SimulatedEngine {self.model} {pace} streaming={self.streaming}>"

    @property
    def streaming(self) -> int:
        """The number of answers that run now."""
        return self._queue.running

    async def stop(self) -> None:
        """Release the clock. No answer may be running."""
        self._clock.close()

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self.model, display_name="Simulated", created=_CREATED, owned_by="anthro-asgi")]

    def describe(self) -> str:
        return "the simulator"

    async def ready(self) -> bool:
        return True

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length in tokens, cached ones included: what the `Usage` of its answer adds up to."""
        return len(prompt(request)) // TOKEN

    def call_repair(self) -> None:
        """None: its calls are JSON objects."""

    async def stream(self, request: MessagesRequest) -> AsyncGenerator[Batch, None]:
        """The answer. Raises InvalidRequest for a prompt that is nested too deeply, and simulated failures."""
        lot = self._draw(request)
        del request  # a stream is open for long, and a prompt is large
        async with self._queue:
            usage, due, gap = self._begin(lot)
            (tokens, stop_reason), fault = lot.answer, lot.fault
            del lot
            time, sleeper = self._clock.time, self._clock.sleeper()
            await sleeper.until(due)
            yield [usage, tokens[0]]
            sent, total = 1, len(tokens)
            due += gap() if gap else 0.0
            for end in (fault.place, total) if fault else (total,):
                while sent < end and gap:
                    await sleeper.until(due)
                    now, first = time(), sent
                    sent += 1
                    due += gap()
                    while due <= now and sent < end:
                        sent += 1
                        due += gap()
                    yield tokens[first] if sent == first + 1 else list(tokens[first:sent])
                while sent < end:
                    await asyncio.sleep(0)
                    first, sent = sent, min(sent + _YIELD_EVERY, end)
                    for token in tokens[first:sent]:
                        yield token
                if fault and end == fault.place:
                    due = (due if gap else time()) + self._fail(fault)
                    fault = None
                    await sleeper.until(due)
            yield [Usage(output_tokens=total), Finish(stop_reason)]

    def _draw(self, request: MessagesRequest) -> _Plan:
        """Raises the error of a simulated refusal."""
        profile = self.profile
        read = prompt(request)
        known = request_digest(request, read, profile.seed)
        chance = Random(known + self._times.count(known).to_bytes(8))  # noqa: S311  # repeatable, not secret
        kind = profile.fail.draw(chance)
        if kind is not None and is_refusal(kind):
            PlannedFailure(kind).raise_error()
        rng = Random(known)  # noqa: S311 - repeatable, not secret
        recorded = profile.trace[next(self._turns) % len(profile.trace)] if profile.trace else None
        answer = replay_answer(recorded, request.max_tokens, rng) if recorded else plan_answer(request, profile, rng)
        fault = None if kind is None else place_failure(kind, len(answer[0]), chance)
        return _Plan((request.engine_model, read), answer, chance, fault, recorded)

    def _begin(self, lot: _Plan) -> tuple[Usage, float, Gap | None]:
        """The prompt's counts, the time of the first token, and a function that draws the next gap; None is no gap."""
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
        drawn = profile.itl.sampler(lot.chance)
        slowed = (lambda: drawn() * self._load()) if profile.load_factor else drawn
        return usage, now + prefill * self._load(), None if profile.itl.zero else slowed

    def _load(self) -> float:
        """The factor by which the other running answers slow this one down."""
        return 1 + self.profile.load_factor * (self._queue.running - 1)

    def _fail(self, fault: PlannedFailure) -> float:
        """The seconds of a stall. Raises the error of any other failure."""
        if fault.kind != "stall":
            fault.raise_error()
        return self.profile.stall
