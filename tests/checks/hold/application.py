"""How long one request, or one answer of an engine, holds the event loop of the application.

The application runs in this process, on uvloop, and is called as a server calls it: the body arrives in pieces of
64 KiB, one per iteration of the event loop. The engine is an OpenAI-compatible upstream in a thread, which sends the
bytes of a case, or a function in this process, which yields the deltas of a case. As for the bytes of a client, only
the CPU time of the loop's thread counts.
"""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Self

import uvloop

from anthro_asgi import MessagesApp, MessagesRequest
from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.upstream.origin import Origin
from anthro_asgi.wire.deltas import Batch
from tests.checks.hold import Ticker
from tests.support.upstream import ThreadedUpstream, Wire, sse

MIB: Final = 1 << 20
_PIECE: Final = 64 * 1024
_HEADERS: Final = ((b"host", b"localhost"), (b"content-type", b"application/json"))
_TOKEN: Final = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
_STOP: Final = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
WORD: Final = sse(_TOKEN, _STOP)
"""An answer of one word."""
HELLO: Final = b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'
_MODELS: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 36\r\n\r\n"
    b'{"object":"list","data":[{"id":"m"}]}'[:-1]
    + b" "
)
_SWITCH: Final = 0.0002  # seconds
_TIMEOUT: Final = 60.0  # seconds for one case


class Leave(Enum):
    """When the request ends without an answer."""

    ASKED = "the client leaves when the engine has the request"
    QUEUED = "the client leaves while the request waits for a slot"
    STOPPED = "the server cancels the request when the engine has it"


@dataclass(slots=True)
class Case:
    """A request body, and what the engine answers: the bytes of an HTTP response, or deltas of an engine in process.

    No bytes: the engine closes the connection. `deltas` may end with an exception that the engine raises. With `leave`,
    the engine gives no answer. `path` is that of the request.
    """

    request: bytes = HELLO
    answer: bytes = WORD
    deltas: Sequence[Batch | Exception] = ()
    leave: Leave | None = None
    path: str = "/v1/messages"

    @property
    def size(self) -> int:
        """Bytes that the application reads; characters of deltas count one each."""
        return max(len(self.request), len(self.answer), sum(len(str(delta)) for delta in self.deltas))


class Hold(NamedTuple):
    """Seconds of CPU of the longest iteration of the event loop, and the status of the response."""

    seconds: float
    status: int


def _openai(origin: Origin) -> BaseEngine:
    return OpenAIEngine(origin, dialect="vllm")


class Application:
    """The application; use it as a context manager. `engine_at` makes the engine for the upstream's address."""

    def __init__(self, engine_at: Callable[[Origin], BaseEngine] = _openai, **options: Any) -> None:
        self._engine_at = engine_at
        self._options = options  # of the MessagesApp
        self._answer = WORD
        self._upstream = ThreadedUpstream(self._respond)

    def __enter__(self) -> Self:
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)  # the ticker never waits, so each switch to another thread takes an interval
        self._upstream.__enter__()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.__enter__()
        self._engine = self._engine_at(Origin.parse(f"{self._upstream.url}/v1"))
        self._runner.run(self._engine.start())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(self._engine.stop())
            self._runner.__exit__(None, None, None)
        finally:
            self._upstream.__exit__()
            sys.setswitchinterval(self._switch_interval)

    def hold(self, case: Case, repetitions: int = 1) -> Hold:
        """The longest hold of `case`: the shortest of so many repetitions, because noise only adds to it."""
        self._answer = case.answer
        self._leave = case.leave
        return min(self._runner.run(self._measure(case)) for _ in range(repetitions))

    async def _respond(self, wire: Wire) -> None:
        if wire.method == "GET":
            await wire.send(_MODELS)
        elif self._leave is not None:
            self._runner.get_loop().call_soon_threadsafe(self._asked.set)
            await wire.gone()
        else:
            await wire.send(self._answer)
            if b"transfer-encoding: chunked" not in self._answer[:500]:
                wire.close()

    async def _measure(self, case: Case) -> Hold:
        self._asked = asyncio.Event()
        engine = _in_process(case, self._asked) if case.deltas else self._engine
        app = MessagesApp(engine, **{**self._options, **({"max_concurrency": 1} if case.leave is Leave.QUEUED else {})})
        others = await self._occupy(app) if case.leave is Leave.QUEUED else []
        client = _Client(case, self._asked)
        gc.collect()
        gc.disable()
        ticker = Ticker(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(_TIMEOUT):
                running = asyncio.ensure_future(app(client.scope, client.receive, client.send))
                if case.leave is Leave.STOPPED:
                    await self._asked.wait()
                    running.cancel()
                await asyncio.wait({running})
            await asyncio.sleep(0)
            longest = ticker.longest
        finally:
            ticker.stop()
            gc.enable()
        for other in others:
            other.cancel()
            await asyncio.wait({other})
        if not running.cancelled():
            running.result()
        return Hold(longest, client.status)

    async def _occupy(self, app: MessagesApp) -> list[asyncio.Task[None]]:
        """Let a small request hold the only slot."""
        client = _Client(Case(leave=Leave.STOPPED), self._asked)
        task = asyncio.get_running_loop().create_task(app(client.scope, client.receive, client.send))
        await self._asked.wait()
        return [task]


def _in_process(case: Case, asked: asyncio.Event) -> Any:
    async def engine(request: MessagesRequest) -> AsyncIterator[Batch]:
        asked.set()
        if case.leave is not None:
            await asyncio.Event().wait()
        for delta in case.deltas:
            if isinstance(delta, Exception):
                raise delta
            yield delta

    return engine


class _Client:
    def __init__(self, case: Case, asked: asyncio.Event) -> None:
        data = case.request
        self._pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self._taken = 0
        self._left = asyncio.Event()
        if case.leave is Leave.QUEUED:
            self._left.set()
        elif case.leave is Leave.ASKED:
            self._left = asked
        self.status = 0
        headers = [*_HEADERS, (b"content-length", b"%d" % len(data))]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": case.path,
            "query_string": b"",
            "headers": headers,
        }

    async def receive(self) -> dict[str, Any]:
        if self._taken == len(self._pieces):
            await self._left.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        piece, self._pieces[self._taken] = self._pieces[self._taken], b""
        self._taken += 1
        return {"type": "http.request", "body": piece, "more_body": self._taken < len(self._pieces)}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.status = message.get("status", self.status)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._left.set()


def scale() -> float:
    """How many times slower this machine is than the one that the bars were set on: 1 or more.

    The bars are those of a usual core. A slow machine in a test farm must not fail them.
    """
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        sum(index * index for index in range(100_000))
        best = min(best, time.thread_time() - began)
    return max(1.0, best / _REFERENCE)


_REFERENCE: Final = 0.0065  # seconds for that sum
