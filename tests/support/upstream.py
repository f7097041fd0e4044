"""An upstream that answers as a script says, over real sockets.

    async with ScriptedUpstream(sse({"a": 1}), answer) as upstream:
        Origin.parse(upstream.url)

Each request takes the next answer, whichever connection it comes on; the last answer repeats. An answer is either
bytes, written as they are (and the connection closes after them if they say `connection: close`), or
`async def answer(wire)`. What it raises ends its connection and is raised again when the block is left, except
ConnectionError: clients may leave.
"""

import asyncio
import json
import socket
import ssl as tls
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Self

from anthro_asgi.testing.loop_thread import LoopThread

Answer = bytes | Callable[["Wire"], Awaitable[None]]


class Wire(asyncio.Protocol):
    """The server's end of one connection, and of the request it is answering."""

    method: str
    target: str
    head: bytes  # as it came, with the blank line
    headers: dict[str, str]
    body: bytes

    def __init__(self, upstream: "ScriptedUpstream") -> None:
        self.sent = 0  # bytes
        self.blocked = False  # the client does not read: `send` waits
        self._upstream = upstream
        self._received = bytearray()
        self._closed = False
        self._moved = asyncio.Event()
        self._transport: Any

    # for answers

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has all of it. Raises ConnectionError when the client is gone."""
        if self._closed or self._transport.is_closing():  # an answer without an end must see this without a pause
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._until(lambda: not self.blocked)
        self.sent += len(data)

    async def receive(self, size: int) -> bytes:
        """The next bytes, at least one and at most `size`. For answers that read the body themselves."""
        self._transport.resume_reading()
        await self._until(lambda: bool(self._received))
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    async def gone(self) -> None:
        """Wait until the client has closed its side. Bytes that it still sends are dropped."""
        while not self._closed:
            self._received.clear()
            self._transport.resume_reading()
            await self._wait()

    def close(self) -> None:
        """Close after what was sent."""
        self._transport.close()

    def reset(self) -> None:
        """Close with a RST, if it is not closed yet."""
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0 and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(1)  # so that `send` waits for the kernel (asyncio's TLS stalls at 0)
        self._upstream.attach(self, self._serve())

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._notify()

    def pause_writing(self) -> None:
        self.blocked = True
        self._notify()

    def resume_writing(self) -> None:
        self.blocked = False
        self._notify()

    def eof_received(self) -> None:
        self._closed = True
        self._notify()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._upstream.wires.remove(self)
        self._notify()

    def _notify(self) -> None:
        self._moved.set()
        self._upstream.notify()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._closed:
                raise ConnectionResetError("the client is gone")
            await self._wait()

    async def _serve(self) -> None:
        try:
            while True:
                await self._request()
                answer = self._upstream.next_answer(self)
                if not isinstance(answer, bytes):
                    await answer(self)
                    continue
                await self.send(answer)
                if b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower():
                    break
        except ConnectionError:
            pass
        except Exception as exc:
            self._upstream.failures.append(exc)
        self._transport.close()

    async def _request(self) -> None:
        await self._until(lambda: b"\r\n\r\n" in self._received)
        head, blank, rest = bytes(self._received).partition(b"\r\n\r\n")
        self.head = head + blank
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._received = bytearray(rest)
        size = int(self.headers.get("content-length", "0"))
        self.body = b""
        if self._upstream.reads_bodies:
            await self._until(lambda: len(self._received) >= size)
            self.body = bytes(self._received[:size])
            del self._received[:size]
        elif size:
            self._transport.pause_reading()


class Request:
    """One request, kept after its connection has gone on to the next."""

    def __init__(self, wire: Wire) -> None:
        self.method, self.target, self.headers, self.body = wire.method, wire.target, wire.headers, wire.body
        self.head = wire.head
        self.wire = wire


class ScriptedUpstream:
    """See the module. On loopback TCP, or on the Unix socket `uds`, or with TLS by `ssl`.

    With `reads_bodies=False` an answer begins when the request's head is there, and nothing reads the body.
    `sndbuf` sets the size of the kernel's send buffer, so that back-pressure shows early.
    """

    def __init__(
        self,
        *answers: Answer,
        uds: str | None = None,
        ssl: tls.SSLContext | None = None,
        reads_bodies: bool = True,
        sndbuf: int | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.wires: list[Wire] = []
        self.accepted = 0
        self.failures: list[Exception] = []
        self.reads_bodies = reads_bodies
        self.url = ""
        self._answers = answers
        self._uds = uds
        self._ssl = ssl
        self._sndbuf = sndbuf
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def open(self) -> int:
        """Connections that the client has not closed."""
        return len(self.wires)

    async def until(self, condition: Callable[[], object], *, within: float = 10.0) -> None:
        """Wait for a condition. It is checked after each event of this upstream, and every 5 ms."""
        async with asyncio.timeout(within):
            while not condition():
                self._moved.clear()
                handle = asyncio.get_running_loop().call_later(0.005, self._moved.set)
                await self._moved.wait()
                handle.cancel()

    def notify(self) -> None:
        self._moved.set()

    def next_answer(self, wire: Wire) -> Answer:
        answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
        self.requests.append(Request(wire))
        self.notify()
        return answer

    def attach(self, wire: Wire, serving: Coroutine[Any, Any, None]) -> None:
        self.wires.append(wire)
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.notify()

    def _accept(self) -> Wire:
        self.accepted += 1
        return Wire(self)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._uds is not None:
            self._server = await loop.create_unix_server(self._accept, self._uds, ssl=self._ssl)
            self.url = f"unix:{self._uds}"
            return self
        listener = socket.create_server(("127.0.0.1", 0))
        # asyncio does so only for sockets that were made with IPPROTO_TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._sndbuf is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._sndbuf)
        self._server = await loop.create_server(self._accept, sock=listener, ssl=self._ssl)
        self.url = f"{'https' if self._ssl else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for wire in self.wires:
            wire.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.until(lambda: not self.wires and not _accepting())
        if self.failures:
            raise self.failures[0]


class ThreadedUpstream:
    """A ScriptedUpstream on an event loop in a thread of its own, for tests that do not run on a loop.

    with ThreadedUpstream(answer) as upstream:
        upstream.url, upstream.requests
    """

    def __init__(self, *answers: Answer, ssl: tls.SSLContext | None = None) -> None:
        self.scripted = ScriptedUpstream(*answers, ssl=ssl)
        self._thread = LoopThread("scripted upstream")

    @property
    def url(self) -> str:
        return self.scripted.url

    @property
    def requests(self) -> list[Request]:
        return self.scripted.requests

    def __enter__(self) -> Self:
        self._thread.start()
        self._thread.run(self.scripted.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._thread.run(self.scripted.__aexit__())
        finally:
            self._thread.stop()


def _accepting() -> bool:
    # asyncio's own tasks: a TLS handshake that the client refused still runs for a moment.
    return any(task.get_coro().__name__ == "_accept_connection2" for task in asyncio.all_tasks())  # type: ignore[union-attr]


# Answers


def raw_answer(status: int, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """Any response, as bytes, with the given header fields and no others."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def framed(status: int, fields: Iterable[tuple[str, str]], pieces: Iterable[bytes], framing: str) -> bytes:
    """A response whose body is `pieces`, "chunked" (a chunk each), of one "length", or ended by "close"."""
    pieces = [piece for piece in pieces if piece]
    body = b"".join(pieces)
    match framing:
        case "chunked":
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            return raw_answer(status, [*fields, ("transfer-encoding", "chunked")], chunks)
        case "length":
            return raw_answer(status, [*fields, ("content-length", str(len(body)))], body)
        case "close":
            return raw_answer(status, [*fields, ("connection", "close")], body)
    raise ValueError(framing)


def sse(
    *chunks: dict[str, Any] | bytes,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    framing: str = "chunked",
    done: bool = True,
) -> bytes:
    """An event stream: a dict becomes a `data:` event, bytes are sent as they are; `[DONE]` follows if `done`."""
    events = [
        chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks
    ]
    if done:
        events.append(b"data: [DONE]\n\n")
    return framed(status, [("content-type", "text/event-stream"), *headers], events, framing)


def json_answer(status: int, obj: object, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A JSON response of a known length."""
    return framed(status, [("content-type", "application/json"), *headers], [json.dumps(obj).encode()], "length")


def fragmented(answer: bytes, pieces: Iterable[int]) -> Callable[[Wire], Awaitable[None]]:
    """The same bytes, cut at the offsets `pieces`; the event loop runs between the pieces.

    As the client runs on the same loop, it reads each piece by itself.
    """
    cuts = sorted({cut for cut in pieces if 0 < cut < len(answer)})
    parts = [answer[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]

    async def send(wire: Wire) -> None:
        for part in parts:
            await wire.send(part)
            for _ in range(3):  # the loop polls its sockets once per iteration
                await asyncio.sleep(0)
        if b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower():
            wire.close()

    return send
