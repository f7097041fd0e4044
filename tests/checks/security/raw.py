"""A client that writes bytes, right or wrong, and says what came back: whole answers, and whether the peer hung up."""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

TIMEOUT = 10.0  # seconds: longer than any answer takes, so that a peer that should have hung up and did not is seen


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, as it was framed. `headers` by lower-case names; `head` as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes = b""

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class RawClient:
    """One connection to `http://host:port` or `unix:/path`."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition(":")
        if scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(rest)
        else:
            host, _, port = rest.removeprefix("//").rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(TIMEOUT)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """A peer that has hung up already is no error here: what it said before is what counts."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def no_more(self) -> None:
        """Nothing will follow: half of the connection is closed."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> Answer:
        """The next answer. Raises EOFError when there is none, TimeoutError when the peer neither speaks nor leaves."""
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
        """Every byte that comes until the peer hangs up, well framed or not."""
        while data := self._receive():
            self._unread += data
        said, self._unread = self._unread, b""
        return said

    def rest(self) -> list[Answer]:
        """All that comes until the peer hangs up. Raises TimeoutError when it does not; half an answer is none."""
        while data := self._receive():
            self._unread += data
        out = []
        while found := _first(self._unread, over=True):
            answer, self._unread = found
            out.append(answer)
        assert not self._unread, f"no answer is framed like that: {self._unread!r}"
        return out

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionResetError:
            return b""


def _first(data: bytes, over: bool) -> tuple[Answer, bytes] | None:
    """The answer that `data` begins with, and what is behind it; None while it is not whole. `over`: that is all."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    match = re.fullmatch(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\x20-\x7e]*)?", first)
    assert match, f"no status line: {first!r}"
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
        assert headers.get("connection") == "close", "nothing says where it ends"
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
