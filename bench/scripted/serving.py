"""The scripted engine's HTTP: one protocol per connection, one script per streaming request.

`GET /streams` is answered with the number of open streams, and `GET /begun` with that of all streams so far.
`GET /pace?RATE` or `/pace?RATE&lockstep` sets the pace of the streams that begin later. `GET /end` ends all open
streams.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Any, Final

import httptools
import orjson

from . import styles
from .pace import Pace, Paced, Saturated

UNPACED: Final = "unpaced"  # the model whose streams are written as fast as they are read
CALLING: Final = "calling"  # the model whose streams are tool calls
_COMPLETIONS: Final = (b"/v1/chat/completions", b"/chat/completions")
_STREAMS: Final = b"/streams"
_BEGUN: Final = b"/begun"
_END: Final = b"/end"
_PACE: Final = b"/pace"
_MODELS: Final = (b"/v1/models", b"/models")
_STREAM_TYPE: Final = b"text/event-stream; charset=utf-8"
_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_NOT_FOUND: Final = orjson.dumps({"error": {"message": "Not Found", "type": "not_found_error", "code": 404}})


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line's options. `rate` is in tokens/s of each stream; 0 is as fast as the client reads.

    `together` is the number of tokens per write, for the load generator's ceiling.
    """

    style: styles.Style
    rate: float = 0.0
    lockstep: bool = False
    tokens: int = 64
    usage_every_chunk: bool = False
    model: str = "scripted"
    together: int = 1


class Engine:
    """State that the connections share. Needs a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.created = int(time.time())
        self.streams: set[Stream] = set()
        self.begun = 0
        self.unpaced: Pace = Saturated()
        self.pace: Pace = self.unpaced
        self._paces: dict[tuple[float, bool], Pace] = {}
        self.set_pace(settings.rate, settings.lockstep)
        self.models = styles.models(settings.style, settings.model, self.created)
        self._serial = itertools.count(time.time_ns())

    def set_pace(self, rate: float, lockstep: bool) -> None:
        """The pace of the streams that begin from now on."""
        if rate and (rate, lockstep) not in self._paces:
            self._paces[rate, lockstep] = Paced(rate, lockstep)
        self.pace = self._paces[rate, lockstep] if rate else self.unpaced

    def names(self) -> dict[str, Any]:
        """The constant fields of a new stream."""
        return styles.names_of(self.settings.style, self.settings.model, next(self._serial), self.created)

    def end(self) -> None:
        """End all open streams now, as if they had all of their tokens."""
        for stream in list(self.streams):
            stream.finish()

    def connect(self) -> "Wire":
        """A protocol for a new connection."""
        return Wire(self)

    def close(self) -> None:
        """Write no more tokens."""
        for pace in (*self._paces.values(), self.unpaced):
            pace.close()


class Stream:
    """One streaming answer. It is done early when its client has disconnected."""

    __slots__ = ("_left", "_script", "_together", "_usage", "_wire", "done", "held", "phase", "queued")

    def __init__(self, wire: "Wire", script: styles.Script, tokens: int, usage: bool) -> None:
        self._wire = wire
        self._script = script
        self._left = tokens
        self._usage = usage
        self._together = wire.engine.settings.together
        self.held = self.done = self.queued = False
        self.phase = 0

    def step(self) -> None:
        together = min(self._together, self._left)
        self._wire.transport.write(self._script.token() * together)
        self._script.tokens += together - 1
        self._left -= together
        if self._left <= 0:
            self.finish()

    def finish(self) -> None:
        self.done = True
        self._wire.answered(self._script.ending(self._usage))


class Wire(asyncio.Protocol):
    """One connection. Requests that arrive during an answer wait."""

    def __init__(self, engine: Engine) -> None:
        self.transport: Any  # uvloop's transports have the methods of asyncio.Transport but are not instances of it
        self.engine = engine
        self._pace: Pace = engine.pace
        self._parser: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._body: list[bytes] = []
        self._asked: list[tuple[bytes, bytes, bytes, bool, bool]] = []
        self._busy = False
        self._keep = True
        self._bare = False
        self._congested = False
        self._stream: Stream | None = None

    # ---- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asked.clear()
        if self._stream is not None:
            self._stream.done = True
            self._forget()
        self._parser = None  # breaks the reference cycle between the two

    def pause_writing(self) -> None:
        self._congested = True
        if self._stream is not None:
            self._stream.held = True

    def resume_writing(self) -> None:
        self._congested = False
        if self._stream is not None:
            self._stream.held = False
            self._pace.resume(self._stream)

    # ---- the request

    def on_message_begin(self) -> None:
        self._target = b""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        parser = self._parser
        http10 = parser.get_http_version() == "1.0"
        body = b"".join(self._body)
        self._asked.append((parser.get_method(), self._target, body, parser.should_keep_alive(), http10))
        if not self._busy:
            self._next()

    # ---- the answer

    def _next(self) -> None:
        method, target, body, self._keep, self._bare = self._asked.pop(0)
        path, _, query = target.partition(b"?")
        self._busy = True
        if method == b"POST" and path in _COMPLETIONS:
            self._complete(body)
        elif path == _STREAMS:
            self._send(200, b"%d" % len(self.engine.streams))
        elif path == _BEGUN:
            self._send(200, b"%d" % self.engine.begun)
        elif path == _END:
            self.engine.end()
            self._send(200, b"")
        elif path == _PACE:
            rate, _, mode = query.partition(b"&")
            self.engine.set_pace(float(rate), mode == b"lockstep")
            self._send(200, b"")
        elif method == b"GET" and path in _MODELS:
            self._send(200, self.engine.models)
        else:
            self._send(404, _NOT_FOUND)

    def _complete(self, body: bytes) -> None:
        try:
            request = orjson.loads(body)
            tokens = request.get("max_completion_tokens") or request.get("max_tokens")
            tokens = int(tokens or self.engine.settings.tokens)
            if tokens < 1:
                raise ValueError("max_tokens is below 1")
        except (ValueError, TypeError, AttributeError) as exc:
            error = {"message": str(exc), "type": "BadRequestError", "param": None, "code": 400}
            return self._send(400, orjson.dumps({"error": error}))
        prompt = max(1, len(body) // 4)  # close to a tokenizer's count
        if request.get("stream"):
            return self._start(request, prompt, tokens)
        answer = styles.whole_answer(self.engine.settings.style, self.engine.names(), prompt, tokens)
        rate = self.engine.settings.rate
        if rate:
            asyncio.get_running_loop().call_later(tokens / rate, self._send, 200, answer)
            return None
        return self._send(200, answer)

    def _start(self, request: dict[str, Any], prompt: int, tokens: int) -> None:
        settings = self.engine.settings
        every = settings.usage_every_chunk
        calls = request.get("model") == CALLING
        script = styles.Script(settings.style, self.engine.names(), prompt, every, self._bare, calls=calls)
        usage = every or bool((request.get("stream_options") or {}).get("include_usage"))
        if self._bare:
            self._keep = False  # the body ends with the connection
        framing = b"" if self._bare else b"transfer-encoding: chunked\r\n"
        self.transport.write(self._head(200, _STREAM_TYPE) + framing + b"\r\n" + script.opening())
        self._stream = self._streaming(script, tokens, usage)
        self.engine.streams.add(self._stream)
        self.engine.begun += 1
        self._stream.held = self._congested
        self._pace = self.engine.unpaced if request.get("model") == UNPACED else self.engine.pace
        self._pace.begin(self._stream)

    def _forget(self) -> None:
        if self._stream is not None:
            self.engine.streams.discard(self._stream)
            self._stream = None

    def _streaming(self, script: styles.Script, tokens: int, usage: bool) -> Stream:
        return Stream(self, script, tokens, usage)

    def _send(self, status: int, body: bytes) -> None:
        head = self._head(status, b"application/json") + b"content-length: %d\r\n\r\n" % len(body)
        self.answered(head + body)

    def answered(self, last: bytes) -> None:
        """Write the end of an answer; then take the next request or close."""
        if self.transport.is_closing():
            return
        self.transport.write(last)
        self._forget()
        self._busy = False
        if not self._keep:
            self.transport.close()
        elif self._asked:
            self._next()

    def _head(self, status: int, kind: bytes) -> bytes:
        connection = b"keep-alive" if self._keep else b"close"
        server = self.engine.settings.style.server.encode()
        form = b"HTTP/1.1 %d %b\r\nserver: %b\r\ncontent-type: %b\r\nconnection: %b\r\n"
        return form % (status, _REASONS[status], server, kind, connection)
