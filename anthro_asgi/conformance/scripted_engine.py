"""The engine of the profile `gateway`: a chat-completions server that answers as the running check says.

A check sets `answer` before it asks the gateway. The engine answers each chat request with it, keeps what it was asked
in `asked`, and answers the model list by itself.
"""

import json
import socket
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Final

from .exchange import Json

MODEL: Final = "conformance"
_WAIT: Final = 10.0  # seconds that the engine waits for a client to leave

Answer = Callable[["Exchange"], None]


class Exchange:
    """One chat request that reached the engine, and the means to answer it."""

    def __init__(self, handler: "_Handler", body: Json) -> None:
        self._handler = handler
        self.body = body
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.connection = handler.client_address
        self.written = 0  # bytes of the body that the socket took

    @property
    def streams(self) -> bool:
        """Whether a stream was asked for."""
        return self.body.get("stream") is True

    def head(self, status: int, content_type: str, *fields: tuple[str, str]) -> None:
        """Send the head of a response in chunks: `write` sends a chunk, `end` the last one."""
        self._handler.send_response(status)
        for name, value in (("content-type", content_type), ("transfer-encoding", "chunked"), *fields):
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def whole(self, status: int, body: bytes, content_type: str, *fields: tuple[str, str]) -> None:
        """Send a whole response."""
        self._handler.send_response(status)
        length = ("content-length", str(len(body)))
        for name, value in (("content-type", content_type), length, *fields):
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def write(self, data: bytes) -> None:
        """Send bytes of a body in chunks. Raises OSError when the gateway has closed the connection."""
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.written += len(data)

    def end(self) -> None:
        """End a body in chunks."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def reset(self) -> None:
        """End the connection at once, inside the response."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._handler.close_connection = True
        self._handler.connection.close()

    def wait_for_the_end(self) -> bool:
        """Wait until the gateway has closed the connection. False if it has not after ten seconds."""
        self._handler.connection.settimeout(_WAIT)
        try:
            return bool(self._handler.connection.recv(1) == b"")
        except TimeoutError:
            return False
        except OSError:
            return True


class ScriptedEngine:
    """The engine, in a thread of its own. Use it as a context manager; `url` ends in `/v1`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answer: Answer = text("Hello.")
        self.asked: list[Exchange] = []
        self.connections: set[Any] = set()
        self.left = Event()  # the gateway closed the connection of an answer that waited for it
        self._lock = Lock()
        handler = type("Handler", (_Handler,), {"engine": self})
        self._server = _Server((host, port), handler)
        self.url = f"http://{host}:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ScriptedEngine":
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def set(self, answer: Answer) -> None:
        """Answer as `answer` says from now on, and forget what was asked."""
        self.answer = answer
        self.asked.clear()
        self.connections.clear()
        self.left.clear()

    def note(self, exchange: Exchange) -> None:
        """Keep what was asked."""
        with self._lock:
            self.asked.append(exchange)
            self.connections.add(exchange.connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway that closes a connection is no error of the engine."""


class _Handler(BaseHTTPRequestHandler):
    engine: ScriptedEngine
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            models = [{"id": MODEL, "object": "model", "created": 1, "owned_by": "conformance", "max_model_len": 32768}]
            self._json(200, {"object": "list", "data": models})
        else:
            self._json(404, {"error": {"message": "not found", "type": "not_found_error", "code": 404}})

    def do_POST(self) -> None:
        body = self._body()
        if not self.path.endswith("/chat/completions"):
            self._json(404, {"error": {"message": "not found", "type": "not_found_error", "code": 404}})
            return
        exchange = Exchange(self, body)
        self.engine.note(exchange)
        self.engine.answer(exchange)

    def _body(self) -> Json:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length", "0")))
        return dict(json.loads(data or b"{}"))

    def _json(self, status: int, value: object) -> None:
        Exchange(self, {}).whole(status, json.dumps(value).encode(), "application/json")

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


# --- answers ---

Delta = Json
USAGE: Final[Json] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def chunk(delta: Delta | None, finish: str | None = None, usage: Json | None = None) -> Json:
    """One chunk of a stream. Without a delta it has no choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return chunk | ({} if usage is None else {"usage": usage})


def frames(deltas: Iterable[Delta], finish: str = "stop", usage: Json = USAGE) -> list[bytes]:
    """The frames of a usual stream: a role, the deltas, the finish reason, the usage and `[DONE]`."""
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        *map(chunk, deltas),
        chunk({}, finish),
        chunk(None, None, usage),
    ]
    return [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks] + [b"data: [DONE]\n\n"]


def message(deltas: Iterable[Delta], finish: str, usage: Json = USAGE) -> bytes:
    """The whole completion that says the same as the deltas."""
    whole: Json = {"role": "assistant", "content": None}
    for delta in deltas:
        for name, value in delta.items():
            if name == "tool_calls":
                _join(whole.setdefault("tool_calls", []), value)
            else:
                whole[name] = (whole.get(name) or "") + value
    choice = {"index": 0, "message": whole, "finish_reason": finish}
    completion = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return json.dumps(completion | {"usage": usage}).encode()


def _join(calls: list[Json], pieces: Iterable[Json]) -> None:
    for piece in pieces:
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": "function", "function": {"name": "", "arguments": ""}})
        function = calls[piece["index"]]["function"]
        for name, value in piece["function"].items():
            function[name] += value


def deltas(*deltas: Delta, finish: str = "stop", usage: Json = USAGE) -> Answer:
    """An answer of these deltas, as a stream or whole, as it is asked."""

    def answer(exchange: Exchange) -> None:
        if not exchange.streams:
            exchange.whole(200, message(deltas, finish, usage), "application/json")
            return
        exchange.head(200, "text/event-stream")
        for frame in frames(deltas, finish, usage):
            exchange.write(frame)
        exchange.end()

    return answer


def text(*pieces: str, finish: str = "stop") -> Answer:
    """An answer of text."""
    return deltas(*({"content": piece} for piece in pieces), finish=finish)


def raw(*pieces: bytes) -> Answer:
    """A stream of these bytes, each piece in a write of its own."""
    return _written(pieces, Exchange.end)


def broken(*pieces: bytes) -> Answer:
    """A stream whose connection is reset after these bytes."""
    return _written(pieces, Exchange.reset)


def _written(pieces: Iterable[bytes], finish: Callable[[Exchange], None]) -> Answer:
    """A stream of these pieces, after which `finish` is called."""

    def answer(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        for piece in pieces:
            exchange.write(piece)
        finish(exchange)

    return answer


def error(status: int, body: Json | bytes, *fields: tuple[str, str]) -> Answer:
    """A refusal: JSON, or bytes that are called HTML."""
    data, kind = (body, "text/html") if isinstance(body, bytes) else (json.dumps(body).encode(), "application/json")
    return lambda exchange: exchange.whole(status, data, kind, *fields)


def call(index: int, identity: str, name: str, *arguments: str) -> list[Delta]:
    """The deltas of a tool call whose arguments arrive in pieces."""
    first = {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [{"tool_calls": [piece]} for piece in (first, *rest)]
