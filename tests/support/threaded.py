"""One stream from an engine's socket to the client's, which a thread relays where it can (see `_native.pump_thread`).

    relayed_by(thread, reads, rng) == relayed(reads, pumped=False)

As `pumped`, but with sockets. The thread has read a piece before the next one is sent, so both see the same reads.
"""

import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Iterable
from random import Random

from anthro_asgi._native import Pump, Thread, new_pump
from anthro_asgi.wire.answer_limits import DEFAULT_LIMITS
from tests.support.pumped import HEAD, Relay, Relayed, chunks

_PATIENCE = 20.0  # seconds


class ThreadRelay(Relay):
    """One stream. `returned` counts how often the thread has returned it.

    Close it. With `narrow`, the client reads rarely and its socket holds little, so that writes are cut.
    """

    def __init__(
        self, thread: Thread, rng: Random, *, narrow: bool = False, max_event: int = DEFAULT_LIMITS.max_event
    ) -> None:
        super().__init__(pumped=True, max_event=max_event)
        self._thread = thread
        self._rng = rng
        self._narrow = narrow
        self._received = b""  # by the client from the thread, since it got the stream
        self.returned = 0
        self._up, self._engine = socket.socketpair()
        self._down, self._client = socket.socketpair()
        for sock in (self._up, self._down, self._client):
            sock.setblocking(False)
        self._engine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._down.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 if narrow else 1 << 20)

    def close(self) -> None:
        if self._pump is not None:
            self._pump.disarm()
        for sock in (self._up, self._engine, self._down, self._client):
            sock.close()

    def receive(self, data: bytes) -> None:
        if self._pump is None:
            super().receive(data)
            return
        self._engine.sendall(data)
        self._settle()
        if not self._narrow or self._rng.random() < 0.05:
            self._drain()

    def end(self) -> Relayed:
        self._engine.close()
        while self._pump is not None:
            self._wait()
            self._thread.collect()
            self._read_up()
        return super().end()

    def _settle(self) -> None:
        """Until the thread has read everything, or has returned the stream and it is read here."""
        until = time.monotonic() + _PATIENCE
        while self._pump is not None and _unread(self._up):
            assert time.monotonic() < until, "the thread does not read"
            os.sched_yield()
            self._thread.collect()
        if self._pump is not None:
            assert self._pump.last_read > 0  # waits for the step in which the last byte was read
            self._thread.collect()
        self._read_up()

    def _wait(self) -> None:
        readable, _, _ = select.select([self._thread], [], [], _PATIENCE)
        assert readable, "the thread does not tell what happened"

    def _read_up(self) -> None:
        """As the event loop does without a pump."""
        while self._pump is None:
            try:
                data = self._up.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                return
            self._read(data)

    def _drain(self) -> None:
        try:
            while data := self._client.recv(1 << 20):
                self._received += data
        except BlockingIOError:
            pass

    # for the pump

    def _new_pump(self) -> Pump:
        assert new_pump is not None
        return new_pump(self, None, self._write, lambda: 0, lambda: False, self._down.fileno())

    def _armed(self, pump: Pump) -> None:
        assert pump.leave_to(self._thread, self._up.fileno())

    def _write(self, chunk: bytes) -> None:
        self._drain()
        self._received += chunk

    def _stop(self) -> None:
        self.returned += 1
        super()._stop()

    def sync(self) -> None:
        super().sync()
        self._drain()
        self._sent += chunks(self._received)
        self._received = b""


def _unread(sock: socket.socket) -> int:
    """The number of bytes in the kernel."""
    found: int = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0\0\0\0"))[0]
    return found


def relayed_by(
    thread: Thread,
    reads: Iterable[bytes],
    rng: Random,
    *,
    narrow: bool = False,
    max_event: int = DEFAULT_LIMITS.max_event,
) -> Relayed:
    """What becomes of a body in chunks that arrives in these reads."""
    relay = ThreadRelay(thread, rng, narrow=narrow, max_event=max_event)
    try:
        for data in (HEAD, *reads):
            if data:
                relay.receive(data)
        return relay.end()
    finally:
        relay.close()
