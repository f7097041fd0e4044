"""A request and its response in progress, seen from the client."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.driver.call import App, Call, Message, Misbehaviour, must


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return headers


def only(headers: dict[str, list[str]], name: str) -> str | None:
    values = headers.get(name, [])
    assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
    return values[0] if values else None


@dataclass
class Body:
    """The body of a request in progress: what is left of it, and whether it ends."""

    pieces: list[bytes]
    complete: bool = True
    taken: int = 0

    def __bool__(self) -> bool:
        return self.taken < len(self.pieces)

    def take(self) -> Message:
        piece = self.pieces[self.taken]
        self.taken += 1
        return {"type": "http.request", "body": piece, "more_body": bool(self) or not self.complete}


class Exchange(Call):
    """A request whose response is in progress. Created by `Driver.open`."""

    def __init__(self, app: App, scope: Message, body: Body, patience: float) -> None:
        self._body = body
        self._start: Message | None = None
        self._chunks: list[bytes] = []
        self._length = 0
        self._complete = False
        self._gone = asyncio.Event()  # the client left, or the response is complete
        self._left = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._blocked = False
        super().__init__(app, scope, patience)

    # What the client sees

    async def started(self) -> Self:
        """Wait until the response has begun. After that `status` and `headers` can be read."""
        if not await self._until(lambda: self._start is not None):
            raise AssertionError("the client left, and the application ended without a response")
        return self

    @property
    def status(self) -> int:
        assert self._start is not None, "the response has not started"
        return int(self._start["status"])

    @property
    def headers(self) -> dict[str, list[str]]:
        assert self._start is not None, "the response has not started"
        return _grouped(self._start["headers"])

    def header(self, name: str) -> str | None:
        """The one value of a header, None without it. Fails when there are several."""
        return only(self.headers, name)

    @property
    def complete(self) -> bool:
        """Whether the application has sent its last piece of body."""
        return self._complete

    @property
    def pieces_read(self) -> int:
        """The number of pieces of the request body that the application has received."""
        return self._body.taken

    async def chunk(self) -> bytes | None:
        """The next piece of body, as it was sent; None after the last, or when the application ended without one."""
        await self._until(lambda: bool(self._chunks) or self._complete)
        return self._chunks.pop(0) if self._chunks else None

    async def rest(self) -> bytes:
        """All pieces that are still to come."""
        pieces = []
        while (piece := await self.chunk()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    # What the client does

    def disconnect(self) -> None:
        """Disconnect: `receive` reports it, and later sends have no effect."""
        self._left = True
        self._gone.set()
        self._flowing.set()

    def hold(self) -> None:
        """Stop reading: the next `send` waits."""
        self._flowing.clear()

    def release(self) -> None:
        """Read again."""
        self._flowing.set()

    async def blocked(self) -> None:
        """Wait until the application is inside a `send` that waits."""
        await self._until(lambda: self._blocked)

    async def __aenter__(self) -> Self:
        self._go()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.release()
        if error is None:
            return await self._end()
        self.disconnect()
        try:
            await self._end()
        except BaseException as another:  # the test's own failure comes first
            error.add_note(f"and the application: {another!r}")

    # What the application does

    async def _receive(self) -> Message:
        if self._body and not self._left:
            return self._body.take()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while not self._flowing.is_set():
            self._blocked = True
            self._news.set()
            await self._flowing.wait()
        self._blocked = False
        if self._start is None:
            self._begin(message)
        else:
            self._continue(message)

    def _begin(self, message: Message) -> None:
        must(message["type"] == "http.response.start", f"a response begins with its start, not {message['type']}")
        status, headers = message.get("status"), message.get("headers", [])
        must(type(status) is int and 200 <= status <= 599, f"a final status is an int from 200 to 599, not {status!r}")
        must(not message.get("trailers", False), "there is no one to take trailers")
        for pair in headers:
            name, value = pair
            must(isinstance(name, bytes) and isinstance(value, bytes), f"names and values are bytes: {pair!r}")
            must(name == name.lower() and name != b"", f"a header's name is in lower case: {name!r}")
            must(not {*b"\r\n\0"} & {*value}, f"a header's value is one line: {value!r}")
        lengths = _grouped(headers).get("content-length", [])
        must(len(lengths) <= 1 and all(value.isdecimal() for value in lengths), f"content-length is {lengths}")
        self._start = {**message, "headers": list(headers)}

    def _continue(self, message: Message) -> None:
        must(message["type"] == "http.response.body", f"after the start comes body, not {message['type']}")
        must(not self._complete, "nothing may be sent after the last piece of body")
        body, more = message.get("body", b""), message.get("more_body", False)
        must(isinstance(body, bytes), f"a body is bytes, not {type(body).__name__}")
        must(isinstance(more, bool), f"more_body is a bool, not {more!r}")
        must(not body or self.scope["method"] == "HEAD" or self.status not in (204, 304), f"{self.status} has no body")
        self._length += len(body)
        if not more:
            self._close()
        if self._left or self.scope["method"] == "HEAD":
            return
        if body or more:
            self._chunks.append(body)

    def _close(self) -> None:
        promised = self.header("content-length")
        whole = promised is None or int(promised) == self._length or self.scope["method"] == "HEAD"
        must(whole, f"content-length was {promised}, the body has {self._length}")
        self._complete = True
        self._gone.set()

    def _returned(self) -> None:
        if not (self._complete or self._left or self._broken):
            raise Misbehaviour("the application returned before its response was complete")
