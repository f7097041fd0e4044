"""A client on a bare socket, and what it makes of what it is told."""

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
from tests.checks.faults.command import Command
from tests.checks.faults.house import CLIENT_KEY, House
from tests.checks.faults.speech import CANARY, TOOL, Json

PATIENCE: Final = 12.0  # seconds after which nothing more is expected of the service
PROMPT: Final = f"{CANARY}-prompt"
_READ: Final = 64 * 1024  # bytes
_MOUTHFUL: Final = 512 * 1024  # bytes after which a slow reader rests, for so many seconds:
_REST: Final = 0.1


@dataclass(slots=True)
class Answer:
    """One response. `cut` says that the connection ended before it did; `told` is what it comes to, in few words."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = True
    told: str = ""

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[Event]:
        return parse_events(self.body)

    @property
    def message(self) -> Json:
        return message_from_events(self.events) if self.streams else json.loads(self.body)


class Guest:
    """One connection to a house. `rcvbuf` makes the kernel's part of it small."""

    def __init__(self, house: House | Command, rcvbuf: int | None = None) -> None:
        self.received = bytearray()
        self.listens = False  # after it has said that it will say no more
        self.rests = False  # now and then, before it reads on
        self._mouthful = 0  # bytes since it did
        self._port = house.port
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
        """What has come, at least a byte; b"" at the end, however it came."""
        if self.rests and self._mouthful > _MOUTHFUL:
            self._mouthful = 0
            await asyncio.sleep(_REST)
        try:
            data = await self._loop.sock_recv(self._socket, size)
        except ConnectionError:
            data = b""
        self.received += data
        self._mouthful += len(data)
        return data

    async def until(self, words: bytes) -> None:
        """Read until these have come."""
        while words not in self.received:
            assert await self.receive(), f"the end came before {words!r}: {bytes(self.received)!r:.300}"

    async def answer(self, method: str = "POST") -> Answer:
        """The next response, read as strictly as h11 does. What comes behind it stays for the next."""
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

    # leaving

    def half_close(self) -> None:
        self.listens = True
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()


# what is asked


def body_of(model: str, stream: bool, **fields: Any) -> bytes:
    """A request for an answer of which `model` names the fault."""
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": model, "max_tokens": 50, "stream": stream, "tools": [TOOL], "messages": messages, **fields}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def head_of(length: int | None, *lines: str, target: str = "/v1/messages", key: str | None = CLIENT_KEY) -> bytes:
    """A request's head; without a length it frames no body, unless `lines` do."""
    fields = ["host: house", "content-type: application/json", *lines]
    fields += [] if key is None else [f"x-api-key: {key}"]
    fields += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([f"POST {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def request_of(body: bytes, *lines: str, key: str | None = CLIENT_KEY) -> bytes:
    """A whole request."""
    return head_of(len(body), *lines, key=key) + body


# what is told


def outcome(answer: Answer, house: House | Command) -> str:
    """An answer in few words. Raises AssertionError for one that breaks the contract, whatever else it may be."""
    if not answer.status:
        return "closed"
    with _blaming(answer):
        if answer.cut:
            return "cut"
        assert "request-id" in answer.headers
        if answer.status == 200 and not answer.streams:
            return "message" if answer.message.get("type") == "message" else "200"
        if answer.status != 200:
            return _refusal(answer, house)
        check_stream(answer.events)
        last = answer.events[-1]
        if last.type != "error":
            return "message"
        _discreet(json.dumps(last.data), house)
        assert last.data["request_id"] == answer.headers["request-id"]
        return f"event {last.data['error']['type']}"


def _refusal(answer: Answer, house: House | Command) -> str:
    assert answer.headers["content-type"] == "application/json"
    told = json.loads(answer.body)
    if answer.status == 503 and "status" in told:  # /readyz
        return "503"
    assert told["type"] == "error"
    assert told["request_id"] == answer.headers["request-id"]
    assert told["error"]["message"]
    if answer.status in (429, 529):
        assert answer.headers["retry-after"].isdigit()
    _discreet(f"{answer.headers} {answer.body!r}", house)
    return f"{answer.status} {told['error']['type']}"


def _discreet(text: str, house: House | Command) -> None:
    assert not [secret for secret in house.secrets if secret in text], f"it tells a secret: {text:.300}"


@contextmanager
def _blaming(answer: Answer) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise AssertionError(f"{type(exc).__name__}: {exc}; in {answer!r:.900}") from exc
