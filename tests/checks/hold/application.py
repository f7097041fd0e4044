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
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import uvloop

from anthro_asgi import MessagesApp, MessagesRequest
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


@dataclass(slots=True)
class Case:
    """A request body, and what the engine answers: the bytes of an HTTP response, or deltas of an engine in process."""

    request: bytes = HELLO
    answer: bytes = WORD
    deltas: list[Batch] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that the application reads; characters of deltas count one each."""
        return max(len(self.request), len(self.answer), sum(len(str(delta)) for delta in self.deltas))


class Hold(NamedTuple):
    """Seconds of CPU of the longest iteration of the event loop, and the status of the response."""

    seconds: float
    status: int


class Application:
    """The application; use it as a context manager."""

    def __init__(self, **options: Any) -> None:
        self._options = options  # of the MessagesApp
        self._answer = WORD
        self._upstream = ThreadedUpstream(self._respond)

    def __enter__(self) -> Self:
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)  # the ticker never waits, so each switch to another thread takes an interval
        self._upstream.__enter__()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.__enter__()
        self._engine = OpenAIEngine(Origin.parse(f"{self._upstream.url}/v1"), dialect="vllm")
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
        return min(self._runner.run(self._measure(case)) for _ in range(repetitions))

    async def _respond(self, wire: Wire) -> None:
        await wire.send(_MODELS if wire.method == "GET" else self._answer)
        if wire.method != "GET" and b"transfer-encoding: chunked" not in self._answer[:500]:
            wire.close()

    async def _measure(self, case: Case) -> Hold:
        app = MessagesApp(_in_process(case.deltas) if case.deltas else self._engine, **self._options)
        client = _Client(case.request)
        gc.collect()
        gc.disable()
        ticker = Ticker(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(_TIMEOUT):
                await app(client.scope, client.receive, client.send)
            await asyncio.sleep(0)
        finally:
            ticker.stop()
            gc.enable()
        return Hold(ticker.longest, client.status)


def _in_process(deltas: list[Batch]) -> Any:
    async def engine(request: MessagesRequest) -> AsyncIterator[Batch]:
        for delta in deltas:
            yield delta

    return engine


class _Client:
    def __init__(self, data: bytes) -> None:
        self._pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self._taken = 0
        self._left = asyncio.Event()
        self.status = 0
        headers = [*_HEADERS, (b"content-length", b"%d" % len(data))]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
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
