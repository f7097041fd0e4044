"""The application under test, over an engine that a test in another process observes and controls.

    app        MessagesApp, and beside it `/watch/…`
    starlette  a Starlette application with `app` mounted under `/llm`, and a route and a lifespan of its own
    fastapi    the same with FastAPI

`GET /watch/state` returns the state of the engine and its streams. `POST /watch/open/NAME` opens the gate at which the
streams of that name wait. Times are seconds of the monotonic clock, which all processes of the machine share.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anthro_asgi import Finish, MessagesApp, ModelInfo, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.errors import RateLimited

PREFIX = "/llm"
BLOCK = "x" * 1000


class Watched:
    """The model name of a request selects the answer. `NAME:id` distinguishes streams of one kind."""

    def __init__(self) -> None:
        self.started = self.stopped = 0
        self.closed: dict[str, float] = {}  # model → when its stream ended, for any reason
        self.yielded: Counter[str] = Counter()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("served", max_input_tokens=4096)]

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        kind = request.model.partition(":")[0]
        try:
            async for batch in getattr(self, f"_{kind}")(request.model):
                self.yielded[request.model] += 1
                yield batch
        finally:
            self.closed[request.model] = time.monotonic()

    async def _rich(self, name: str) -> AsyncIterator[Any]:
        yield Thinking("A greeting.")
        yield "Hello, "
        yield ["wörld", ToolStart("toolu_1", "look"), ToolJson('{"at":"sky"}')]
        yield [Usage(7, 9), Finish("tool_use")]

    async def _gated(self, name: str) -> AsyncIterator[Any]:
        """One text, and another after the gate was opened."""
        yield "before"
        await self.gates[name].wait()
        yield "after"
        yield Finish("end_turn")

    async def _endless(self, name: str) -> AsyncIterator[Any]:
        while True:
            yield BLOCK
            await asyncio.sleep(0)

    async def _greedy(self, name: str) -> AsyncIterator[Any]:
        """Never suspends."""
        while True:
            yield "x"

    async def _silent(self, name: str) -> AsyncIterator[Any]:
        await self.gates[name].wait()
        yield Finish("end_turn")

    async def _refusing(self, name: str) -> AsyncIterator[Any]:
        if name:
            raise RateLimited("slower, please", headers=(("retry-after", "7"),))
        yield "never"

    async def _breaking(self, name: str) -> AsyncIterator[Any]:
        yield "half"
        raise RateLimited("slower, please")


engine = Watched()
messages = MessagesApp(engine, ping_interval=0.2)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """MessagesApp, and the routes of the observer."""
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if path.startswith("/watch/"):
        await _watch(path, send)
    else:
        await messages(scope, receive, send)


async def _watch(path: str, send: Any) -> None:
    name = path.partition("/watch/open/")[2]
    if name:
        engine.gates[name].set()
    state = {
        "started": engine.started,
        "stopped": engine.stopped,
        "closed": engine.closed,
        "yielded": engine.yielded,
        "tasks": len(asyncio.all_tasks()),
    }
    body = json.dumps(state).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    """The lifespan of the host. A mounted application gets no lifespan events, so the host starts the engine."""
    await engine.start()
    try:
        yield
    finally:
        await engine.stop()


def starlette() -> Any:
    """A factory, so that the package is needed only where it is called."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def beside(_: Any) -> PlainTextResponse:
        return PlainTextResponse("beside")

    return Starlette(routes=[Route("/beside", beside), Mount(PREFIX, app=app)], lifespan=lifespan)


def fastapi() -> Any:
    """The same in FastAPI."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    host = FastAPI(lifespan=lifespan)

    @host.get("/beside", response_class=PlainTextResponse)
    async def beside() -> str:
        return "beside"

    host.mount(PREFIX, app)
    return host
