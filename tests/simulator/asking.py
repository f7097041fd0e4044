"""What the tests of the simulated engine share: a clock that only they move, requests, and what comes of them."""

import asyncio
from typing import Any

from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.wire.deltas import Batch, Delta, Finish, ToolJson, Usage
from anthro_asgi.wire.request import MessagesRequest, Tool


class FakeClock:
    """Sleeping moves it to the hour that was asked for, plus the next of `delays`: how late the loop wakes up."""

    def __init__(self, start: float = 0.0, delays: tuple[float, ...] = ()) -> None:
        self.now = start
        self.delays = list(delays)
        self.asked: list[float] = []

    def time(self) -> float:
        return self.now

    def sleeper(self) -> "FakeClock":
        return self

    def close(self) -> None:
        self.asked = []

    async def until(self, when: float) -> None:
        await asyncio.sleep(0)
        self.asked.append(when)
        late = self.delays.pop(0) if self.delays else 0.0
        self.now = max(self.now, when) + late


class SharedClock:
    """For several streams at once, on a FakeClockLoop: time passes when all of them wait."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def sleeper(self) -> "SharedClock":
        return self

    async def until(self, when: float) -> None:
        await asyncio.sleep(when - self.time())

    def close(self) -> None:
        """Nothing was taken."""


WEATHER = Tool(
    "get_weather",
    "The weather somewhere",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}},
        "required": ["unit", "city"],
        "additionalProperties": False,
    },
)
SEARCH = Tool("search", None, {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})


def ask(text: str = "How is the river?", **more: Any) -> MessagesRequest:
    return MessagesRequest(
        **{"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": text}], **more}
    )


async def batches(request: MessagesRequest, **options: Any) -> list[Batch]:
    engine = SimulatedEngine(**{"clock": FakeClock(), "ttft": 0, "itl": 0, **options})
    return [batch async for batch in engine.stream(request)]


async def deltas(request: MessagesRequest, **options: Any) -> list[Delta]:
    arrived = await batches(request, **options)
    return [delta for batch in arrived for delta in (batch if isinstance(batch, list) else [batch])]


def text(some: list[Delta]) -> str:
    return "".join(delta for delta in some if isinstance(delta, str))


def arguments(some: list[Delta]) -> str:
    return "".join(delta.fragment for delta in some if isinstance(delta, ToolJson))


def tokens(some: list[Delta]) -> list[Delta]:
    return [delta for delta in some if not isinstance(delta, Usage | Finish)]


async def hours(engine: SimulatedEngine, request: MessagesRequest, clock: SharedClock | FakeClock) -> list[float]:
    """When each token came, counted from when it was asked."""
    began, seen = clock.time(), list[float]()
    async for batch in engine.stream(request):
        come = batch if isinstance(batch, list) else [batch]
        seen += [clock.time() - began for delta in come if not isinstance(delta, Usage | Finish)]
    return seen


async def usage(engine: SimulatedEngine, request: MessagesRequest) -> Usage:
    """The prompt's counts."""
    counts = [
        delta
        async for batch in engine.stream(request)
        for delta in (batch if isinstance(batch, list) else [batch])
        if isinstance(delta, Usage) and delta.input_tokens is not None
    ]
    assert len(counts) == 1
    return counts[0]
