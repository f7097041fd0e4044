"""Many large requests at the same time hold the event loop no longer than one of them: they take turns."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from anthro_asgi import MessagesApp, MessagesRequest
from anthro_asgi.testing.driver import Driver
from tests.checks.hold import BAR, Ticker, no_collection
from tests.checks.hold.application import MIB, scale
from tests.checks.memory import SHAPES

pytestmark = pytest.mark.alone

_MANY = 16
_PIECE = 64 * 1024
_REPETITIONS = 5
HEADERS = ((b"content-type", b"application/json"),)


async def engine(request: MessagesRequest) -> AsyncIterator[str]:
    yield "Hi"


async def hold(body: bytes) -> float:
    """Seconds of CPU of the longest iteration of the event loop while `_MANY` such requests are answered."""
    driver = Driver(MessagesApp(engine), timeout=60.0)
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    async with driver.lifespan(), asyncio.timeout(60):
        ticker = Ticker(asyncio.get_running_loop())
        asked = [driver.request("POST", "/v1/messages", body=list(pieces), headers=HEADERS) for _ in range(_MANY)]
        responses = await asyncio.gather(*asked)
        ticker.stop()
    assert {response.status for response in responses} == {200}
    return ticker.longest


@pytest.mark.parametrize("shape", ["tool calls", "tools", "long messages"])
def test_many_large_requests_at_the_same_time_do_not_hold_the_event_loop(shape: str) -> None:
    body = SHAPES[shape](MIB)
    held = 1.0
    for _ in range(_REPETITIONS):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, no_collection():
            held = min(held, runner.run(hold(body)))
        if held <= BAR * scale():
            break
    assert held <= BAR * scale()
