"""A request and its response in progress, as the client sees them."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from .call import App, AsgiViolation, Call, Message, require

DROP_CONNECTION: Final = "anthro_asgi.testing.drop_connection"
"""Key in the `extensions` of a scope: `{"drop": function}`, where the function closes the client's connection."""


class ConnectionDropped(Exception):
    """The application closed the connection before its response was complete."""


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return headers


def only(headers: dict[str, list[str]], name: str) -> str | None:
    """The one value of a header, None without it. Raises AssertionError if there are several."""
    values = headers.get(name, [])
    if len(values) > 1:
        raise AssertionError(f"{name} came {len(values)} times: {values}")
    return values[0] if values else None


@dataclass
class Body:
    """The body of a request in progress: its pieces, how many are sent, and whether it ends after the last."""

    pieces: list[bytes]
    complete: bool = True
    taken: int = 0

    def __bool__(self) -> bool:
        return self.taken < len(self.pieces)

    def take(self) -> Message:
        """The next piece, as an ASGI message."""
        piece = self.pieces[self.taken]
        self.taken += 1
        return {"type": "http.request", "body": piece, "more_body": bool(self) or not self.complete}


class Exchange(Call):
    """A request whose response is in progress. `Driver.open` creates it.

    Args:
        timeout: seconds that each wait takes at most; None is no limit.
    """

    def __init__(self, app: App, scope: Message, body: Body, timeout: float | None) -> None:
        self._body = body
        self._head: Message | None = None
        self._chunks: list[bytes] = []
        self._length = 0
        self._complete = False
        self._gone = asyncio.Event()  # the client left, or the response is complete
        self._left = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._blocked = False
        self._dropped = False
        scope["extensions"] = {DROP_CONNECTION: {"drop": self.drop}}
        super().__init__(app, scope, timeout)

    # what the client sees

    async def started(self) -> Self:
        """Wait until the response has begun. After that `status` and `headers` can be read.

        Raises ConnectionDropped; AssertionError if the client left before the application responded; the exception of
        the application; AsgiViolation or Stuck.
        """
        await self._until(lambda: self._head is not None or self._dropped)
        if self._head is None and self._dropped:
            raise ConnectionDropped("before the response began")
        if self._head is None:
            raise AssertionError("the client left, and the application ended without a response")
        return self

    @property
    def status(self) -> int:
        return int(self._started_head["status"])

    @property
    def headers(self) -> dict[str, list[str]]:
        """The values of each header, by its name in lower case."""
        return _grouped(self._started_head["headers"])

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers in the order in which the application sent them."""
        return list(self._started_head["headers"])

    @property
    def _started_head(self) -> Message:
        if self._head is None:
            raise AssertionError("the response has not started")
        return self._head

    def header(self, name: str) -> str | None:
        """The one value of a header, None without it. Raises AssertionError if there are several."""
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
        """The next piece of body, as it was sent; None after the last, or when the application ended without one.

        Raises ConnectionDropped, the exception of the application, AsgiViolation or Stuck.
        """
        await self._until(lambda: bool(self._chunks) or self._complete or self._dropped)
        if self._chunks:
            return self._chunks.pop(0)
        if self._dropped and not self._complete:
            raise ConnectionDropped("before the response was complete")
        return None

    async def rest(self) -> bytes:
        """All further pieces of body, joined. Raises as `chunk`."""
        pieces = []
        while (piece := await self.chunk()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    # what the client does

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
        self._start_task()
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
        except BaseException as another:  # the failure of the test is the one that is raised
            error.add_note(f"and the application: {another!r}")

    # what the application does

    async def _receive(self) -> Message:
        if self._body and not self._left:
            return self._body.take()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while not self._flowing.is_set():
            self._blocked = True
            self._progress.set()
            await self._flowing.wait()
        self._blocked = False
        if self._dropped:
            return
        if self._head is None:
            self._begin(message)
        else:
            self._continue(message)

    def drop(self) -> None:
        """Close the connection: the client gets ConnectionDropped once it has read what was sent before."""
        self._dropped = True
        self._gone.set()
        self._flowing.set()
        self._progress.set()

    def _begin(self, message: Message) -> None:
        require(
            message["type"] == "http.response.start",
            f"a response must begin with http.response.start, not {message['type']}",
        )
        status, headers = message.get("status"), message.get("headers", [])
        require(
            type(status) is int and 200 <= status <= 599, f"a final status is an int from 200 to 599, not {status!r}"
        )
        require(not message.get("trailers", False), "trailers are not supported")
        for pair in headers:
            name, value = pair
            require(isinstance(name, bytes) and isinstance(value, bytes), f"names and values are bytes: {pair!r}")
            require(name == name.lower() and name != b"", f"a header's name is in lower case: {name!r}")
            require(not {*b"\r\n\0"} & {*value}, f"a header's value is one line: {value!r}")
        lengths = _grouped(headers).get("content-length", [])
        require(len(lengths) <= 1 and all(value.isdecimal() for value in lengths), f"content-length is {lengths}")
        self._head = {**message, "headers": list(headers)}

    def _continue(self, message: Message) -> None:
        require(
            message["type"] == "http.response.body",
            f"only http.response.body may follow, not {message['type']}",
        )
        require(not self._complete, "nothing may be sent after the last piece of body")
        body, more = message.get("body", b""), message.get("more_body", False)
        require(isinstance(body, bytes), f"a body is bytes, not {type(body).__name__}")
        require(isinstance(more, bool), f"more_body is a bool, not {more!r}")
        require(
            not body or self.scope["method"] == "HEAD" or self.status not in (204, 304), f"{self.status} has no body"
        )
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
        require(whole, f"content-length was {promised}, the body has {self._length}")
        self._complete = True
        self._gone.set()

    def _check_return(self) -> None:
        if not (self._complete or self._left or self._dropped or self._violation):
            raise AsgiViolation("the application returned before its response was complete")
