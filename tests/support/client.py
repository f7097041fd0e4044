"""Clients of the service: whole requests by `http.client`, and raw bytes on a socket by `RawClient`."""

import http.client
import json
import re
import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from anthro_asgi.conformance.grammar import Event, message_from_events, parse_events

TIMEOUT = 20.0  # seconds
HELLO: dict[str, Any] = {
    "model": "one-sentence",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Hello?"}],
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole response. `headers` by lower-case names; `head` as it was on the wire (RawClient only)."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Event]:
        """The events of a stream. Fails if the body is not an event stream."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        return parse_events(self.body)


# whole requests


def connect(url: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection to `http://…`, to `https://…` (verified by `context`) or to `unix:/path`."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect(rest)
        return connection
    authority = rest.removeprefix("//")
    if scheme == "https":
        return http.client.HTTPSConnection(authority, timeout=TIMEOUT, context=context)
    return http.client.HTTPConnection(authority, timeout=TIMEOUT)


def post(connection: http.client.HTTPConnection, path: str = "/v1/messages", **body: Any) -> None:
    """Send a request: HELLO, with the fields of `body` over it."""
    headers = {"content-type": "application/json"}
    connection.request("POST", path, json.dumps({**HELLO, **body}), headers)


def ask(url: str, path: str = "/v1/messages", context: ssl.SSLContext | None = None, **body: Any) -> Answer:
    """Send HELLO, with the fields of `body` over it, and return the whole response."""
    with closing(connect(url, context)) as connection:
        post(connection, path, **body)
        return _answer(connection.getresponse())


def get(url: str, path: str, context: ssl.SSLContext | None = None) -> Answer:
    with closing(connect(url, context)) as connection:
        connection.request("GET", path)
        return _answer(connection.getresponse())


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def ask_both_ways(url: str, **body: Any) -> dict[str, Any]:
    """Ask without and with `stream`, and return the message. Both messages must be equal, ids and cache counts apart.

    The stream must keep the grammar.
    """
    whole = ask(url, **body)
    streamed = ask(url, **body, stream=True)
    assert (whole.status, streamed.status) == (200, 200), (whole.body, streamed.body)
    assert comparable(message_from_events(streamed.events)) == comparable(whole.json)
    message: dict[str, Any] = whole.json
    return message


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its ids, and with the tokens of the prompt as one sum: the engine's cache may have grown."""
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    usage = message["usage"]
    counts = {"prompt": prompt_tokens(usage), "output": usage["output_tokens"]}
    return {**{key: message[key] for key in message if key != "id"}, "content": content, "usage": counts}


def prompt_tokens(usage: dict[str, Any]) -> int:
    """The length of the prompt, with the tokens that were read from a cache."""
    return int(usage["input_tokens"] + usage.get("cache_read_input_tokens", 0))


# raw bytes


class RawClient:
    """One connection to `http://host:port` or `unix:/path`. It writes any bytes, valid or not.

    It reads whole responses, and it can tell whether the server has closed the connection.
    """

    timeout = 10.0  # seconds: longer than any response takes, so that a server that wrongly stays connected is found

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition(":")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(rest)
        else:
            host, _, port = rest.removeprefix("//").rpartition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(self.timeout)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Write. A server that has closed the connection is not an error: what it sent before that is what counts."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def half_close(self) -> None:
        """Close the sending side of the connection."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> Answer:
        """The next response. Raises EOFError at the end of the connection, TimeoutError when nothing comes."""
        over = False
        while (found := _first(self._unread, over)) is None:
            if over:
                raise EOFError(f"no whole answer in {self._unread!r}")
            data = self._receive()
            over = not data
            self._unread += data
        answer, self._unread = found
        return answer

    def everything(self) -> bytes:
        """All bytes until the server closes the connection, whether they are HTTP or not."""
        while data := self._receive():
            self._unread += data
        received, self._unread = self._unread, b""
        return received

    def rest(self) -> list[Answer]:
        """All responses until the server closes the connection. Raises TimeoutError if it does not close it.

        Fails if the last response is incomplete.
        """
        while data := self._receive():
            self._unread += data
        out = []
        while found := _first(self._unread, over=True):
            answer, self._unread = found
            out.append(answer)
        assert not self._unread, f"not a whole response: {self._unread!r}"
        return out

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""


def _first(data: bytes, over: bool) -> tuple[Answer, bytes] | None:
    """The first response in `data`, and the bytes after it; None if it is incomplete. `over`: no more follows."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    match = re.fullmatch(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\x20-\x7e]*)?", first)
    assert match, f"not a status line: {first!r}"
    headers = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        assert colon
        headers[name.lower()] = value.strip()
    status = int(match[1])
    framed = (b"", rest) if status < 200 else _body(headers, rest, over)
    return None if framed is None else (Answer(status, headers, framed[0], head), framed[1])


def _body(headers: dict[str, str], data: bytes, over: bool) -> tuple[bytes, bytes] | None:
    if headers.get("transfer-encoding") == "chunked":
        return _chunks(data)
    if "content-length" not in headers:
        assert headers.get("connection") == "close", "no header says where the body ends"
        return (data, b"") if over else None
    length = int(headers["content-length"])
    return (data[:length], data[length:]) if len(data) >= length else None


def _chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
