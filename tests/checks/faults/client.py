"""A client on a plain socket, and the outcome of the responses that it gets."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import h11

from anthro_asgi.conformance.grammar import Event, check_stream, message_from_events, parse_events
from tests.checks.faults.healthy_response import CANARY, TOOL, Json
from tests.checks.faults.service import CLIENT_KEY, ServiceThread
from tests.checks.faults.service_process import ServiceProcess

PATIENCE: Final = 40.0  # seconds after which a test stops waiting for the service
PROMPT: Final = f"{CANARY}-prompt"
_READ: Final = 64 * 1024  # bytes
_READ_BEFORE_REST: Final = 512 * 1024  # bytes after which a slow reader pauses
_REST: Final = 0.15  # seconds


@dataclass(slots=True)
class Answer:
    """One response. `cut`: the connection ended before the response did. `outcome` is a short text; see `cells`."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = True
    outcome: str = ""

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[Event]:
        return parse_events(self.body)

    @property
    def message(self) -> Json:
        return message_from_events(self.events) if self.streams else json.loads(self.body)


class Client:
    """One connection to the service. `rcvbuf` is the size of the kernel's receive buffer in bytes."""

    def __init__(self, service: ServiceThread | ServiceProcess, rcvbuf: int | None = None) -> None:
        self.received = bytearray()
        self.sending_ended = False  # the sending side is closed
        self.is_slow = False  # pauses regularly while it reads
        self._read_since_rest = 0  # bytes
        self._port = service.port
        self._socket = socket.socket()
        if rcvbuf is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def connect(self) -> None:
        await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self, size: int = _READ) -> bytes:
        """The next bytes; b"" at the end of the connection, also after a reset."""
        if self.is_slow and self._read_since_rest > _READ_BEFORE_REST:
            self._read_since_rest = 0
            await asyncio.sleep(_REST)
        try:
            data = await self._loop.sock_recv(self._socket, size)
        except ConnectionError:
            data = b""
        self.received += data
        self._read_since_rest += len(data)
        return data

    async def until(self, words: bytes) -> None:
        """Read until `words` have arrived."""
        while words not in self.received:
            assert await self.receive(), f"the connection ended before {words!r}: {bytes(self.received)!r:.300}"

    async def answer(self, method: str = "POST") -> Answer:
        """The next response, parsed by h11, which is strict. Bytes after it stay for the next one."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        connection.send(h11.EndOfMessage())
        answer = Answer()
        body = bytearray()
        data = bytes(self.received)
        self.received.clear()
        while True:
            if data:
                connection.receive_data(data)
            while (event := connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    answer.status = event.status_code
                    answer.headers = {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    answer.body, answer.cut = bytes(body), False
                    self.received[:0] = connection.trailing_data[0]
                    return answer
            data = await self.receive()
            self.received.clear()
            if not data:
                return answer

    async def ended(self) -> None:
        """Read until the service has closed the connection."""
        while await self.receive():
            pass

    # ending the connection

    def half_close(self) -> None:
        self.sending_ended = True
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()


# requests


def body_of(model: str, stream: bool, **fields: Any) -> bytes:
    """The body of a request whose `model` selects the fault."""
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": model, "max_tokens": 50, "stream": stream, "tools": [TOOL], "messages": messages, **fields}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def head_of(length: int | None, *lines: str, target: str = "/v1/messages", key: str | None = CLIENT_KEY) -> bytes:
    """The head of a request. Without a `length` only `lines` can frame a body."""
    fields = ["host: service", "content-type: application/json", *lines]
    fields += [] if key is None else [f"x-api-key: {key}"]
    fields += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([f"POST {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def request_of(body: bytes, *lines: str, key: str | None = CLIENT_KEY) -> bytes:
    """A whole request."""
    return head_of(len(body), *lines, key=key) + body


# outcomes


def outcome(answer: Answer, service: ServiceThread | ServiceProcess) -> str:
    """The outcome of a response. Raises AssertionError if the response breaks the contract."""
    if not answer.status:
        return "closed"
    with _with_answer(answer):
        if answer.cut:
            return "cut"
        assert "request-id" in answer.headers
        if answer.status == 200 and not answer.streams:
            return "message" if answer.message.get("type") == "message" else "200"
        if answer.status != 200:
            return _refusal(answer, service)
        events = answer.events
        check_stream(events)
        last = events[-1]
        if last.type != "error":
            return "message"
        _assert_no_secrets(json.dumps(last.data), service)
        assert last.data["request_id"] == answer.headers["request-id"]
        return f"event {last.data['error']['type']}"


def _refusal(answer: Answer, service: ServiceThread | ServiceProcess) -> str:
    assert answer.headers["content-type"] == "application/json"
    outcome = json.loads(answer.body)
    if answer.status == 503 and "status" in outcome:  # /readyz
        return "503"
    assert outcome["type"] == "error"
    assert outcome["request_id"] == answer.headers["request-id"]
    assert outcome["error"]["message"]
    if answer.status in (429, 529):
        assert answer.headers["retry-after"].isdigit()
    _assert_no_secrets(f"{answer.headers} {answer.body!r}", service)
    return f"{answer.status} {outcome['error']['type']}"


def _assert_no_secrets(text: str, service: ServiceThread | ServiceProcess) -> None:
    assert not [secret for secret in service.secrets if secret in text], f"it contains a secret: {text:.300}"


@contextmanager
def _with_answer(answer: Answer) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise AssertionError(f"{type(exc).__name__}: {exc}; in {answer!r:.900}") from exc
