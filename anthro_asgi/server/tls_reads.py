"""TLS connections that do not hold the event loop: they read little at a time, and take turns with their handshakes.

A record of one byte takes 23 bytes on the wire and about two microseconds to decrypt. The event loops decrypt all that
one wake-up has read: asyncio up to 256 KiB, uvloop up to 32 times 64 KiB, which took 90 ms. Neither has a setting for
it. Here the TLS protocol of the loop gets a smaller buffer to read into: a very small one as long as records are tiny.
Writing is not affected.

A handshake takes up to half a millisecond with an RSA key, and many clients may begin one at the same moment. So an
iteration of the event loop handles a few of them, and the other connections wait (see `read_control.Turns`).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import Any, Final, cast

from .read_control import Turns

Sizes = tuple[int, int]  # of the buffer in bytes: for tiny records, and at most
_UVLOOP: Final[Sizes] = (256, 8 * 1024)  # libuv fills up to 32 buffers in one wake-up
_ASYNCIO: Final[Sizes] = (16 * 1024, 32 * 1024)  # asyncio fills one
_TINY: Final = 512  # bytes of a record, on average
_HEADER: Final = 5  # bytes: the type, the version, and the length in two bytes


class SmallReads(asyncio.BufferedProtocol):
    """Passes everything on to the protocol of `transport`, and small buffers of that to the transport."""

    def __init__(self, transport: Any, sizes: Sizes, turns: Turns) -> None:
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        self.is_open = False  # whether the handshake is over
        self._least, self._most = sizes
        self._size = self._least
        self._header = b""  # of a record, incomplete
        self._left = 0  # bytes of a record that have not arrived

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = cast(memoryview, self._protocol.get_buffer(sizehint))[: self._size]
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_open or self._turns.take(self._loop):
            self._pass_on(nbytes)
        else:
            self._wait(partial(self._pass_on, nbytes))

    def _wait(self, go_on: Callable[[], None]) -> None:
        """Read nothing, and then call `go_on`, when it is this connection's turn."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._turns.add(partial(self._on_turn, go_on), self._loop)

    def _on_turn(self, go_on: Callable[[], None]) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            go_on()

    def _pass_on(self, nbytes: int) -> None:
        is_tiny = self._count_records(self._buffer[:nbytes]) * _TINY > nbytes
        self._size = self._least if is_tiny else min(2 * self._size, self._most)
        self._protocol.buffer_updated(nbytes)

    def _count_records(self, data: memoryview) -> int:
        """How many records begin in `data`."""
        records = 0
        position = self._left
        while position < len(data):
            header = self._header + bytes(data[position : position + _HEADER - len(self._header)])
            position += len(header) - len(self._header)
            self._header = header if len(header) < _HEADER else b""
            if not self._header:
                position += int.from_bytes(header[-2:], "big")
                records += 1
        self._left = position - len(data)
        return records

    def feed(self, data: bytes) -> None:
        """Read bytes that arrived before this object was the transport's protocol, when it is its turn."""
        self._wait(partial(self._feed, data))

    def _feed(self, data: bytes) -> None:
        while data:
            buffer = self.get_buffer(len(data))
            piece, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(piece)] = piece
            self._pass_on(len(piece))

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


class _Keeping(asyncio.Protocol):
    """Keeps what arrives until the transport gets another protocol."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


async def connect_tls(
    connection: Callable[[], asyncio.Protocol],
    sock: Any,
    tls: SSLContext,
    handshake_timeout: float | None,
    turns: Turns,
) -> None:
    """A TLS handshake on an accepted socket, and then the protocol of `connection`. Raises OSError if it fails."""
    loop = asyncio.get_running_loop()
    raw, before = await loop.connect_accepted_socket(_Keeping, sock)
    if raw.is_closing():
        return
    opening = _Keeping()
    handshake = loop.create_task(
        loop.start_tls(raw, opening, tls, server_side=True, ssl_handshake_timeout=handshake_timeout)
    )
    await asyncio.sleep(0)  # `start_tls` has begun, and has replaced the protocol
    reads = SmallReads(raw, _UVLOOP if type(loop).__module__.startswith("uvloop") else _ASYNCIO, turns)
    raw.set_protocol(reads)
    if before.received:  # `start_tls` lets its protocol begin in the next iteration; this runs after it
        loop.call_soon(reads.feed, b"".join(before.received))
    try:
        transport = await handshake
    except BaseException:
        raw.abort()
        raise
    reads.is_open = True
    if transport is None or opening.is_lost:
        return
    own = connection()
    transport.set_protocol(own)
    own.connection_made(transport)
    if opening.received:
        own.data_received(b"".join(opening.received))
