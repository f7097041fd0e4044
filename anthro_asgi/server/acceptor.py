"""Accepts connections; on shutdown drains the accept queues before it closes the listeners.

    open ──► a client connects ──► accepted ──► TLS handshake, if any ──► its protocol is created
    close ──► listeners withdrawn ──► accept queues empty ──► listeners closed, in the same step

A worker that hangs accepts nothing, and the kernel does not know that. So its siblings `adopt` its listeners until it
runs again, or its replacement does.

An event loop's own server, when it is closed, drops the connections that it has accepted but not yet handed to a
protocol. So this class accepts by itself.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from ssl import SSLContext
from typing import Final

from ..settings.options import ResourceUnavailable
from .listeners import Listener
from .read_control import Turns
from .tls_reads import connect_tls

_BACKLOG: Final = 2048
_ACCEPTS_PER_YIELD: Final = 64  # connections accepted before other callbacks of the event loop run
_RETRY: Final = 1.0  # seconds until it accepts again after the process ran out of file descriptors
_POLL: Final = 0.002  # seconds between two checks of the accept queues
_SETTLE: Final = 0.5  # seconds for connections that were on their way before new ones were steered elsewhere
_HANDSHAKE_GRACE: Final = 2.0  # seconds for open TLS handshakes at shutdown
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts at `listeners`, and calls `connection` for the protocol of each connection.

    With `tls` each connection begins with a handshake, which may take `handshake_timeout` seconds.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        connection: Callable[[], asyncio.Protocol],
        tls: SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        self._listeners = listeners
        self._connection = connection
        self._tls = tls
        self._handshake_timeout = None if tls is None else handshake_timeout
        self._loop = asyncio.get_running_loop()
        self._turns = Turns()  # of handshakes
        self._handshakes: set[asyncio.Task[None]] = set()
        self._adopted: set[Listener] = set()

    def __repr__(self) -> str:
        return f"<Acceptor {list(self._listeners)}, {len(self._handshakes)} handshakes>"

    def open(self) -> None:
        """Listen and begin to accept. Raises ResourceUnavailable."""
        for listener in self._listeners:
            try:
                listener.sock.setblocking(False)
                listener.sock.listen(_BACKLOG)
            except OSError as exc:  # two sockets may bind one port, but only one of them may then listen
                raise ResourceUnavailable(f"cannot listen on {listener.address('http')}: {exc.strerror}") from exc
            self._loop.add_reader(listener.sock, self._accept, listener)

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_PER_YIELD):
            try:
                sock, _ = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno == errno.EINVAL and listener in self._adopted:  # its worker has stopped listening
                    self._leave(listener)
                    return
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                _log.error("cannot accept a connection: %s", exc.strerror)
                self._loop.remove_reader(listener.sock)
                self._loop.call_later(_RETRY, self._accept_again, listener)
                return
            task = self._loop.create_task(self._connect(sock))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _accept_again(self, listener: Listener) -> None:
        if listener.sock.fileno() >= 0:
            self._loop.add_reader(listener.sock, self._accept, listener)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # the client left, or the TLS handshake failed: not an error of ours
            if self._tls is None:
                await self._loop.connect_accepted_socket(self._connection, sock)
            else:
                await connect_tls(self._connection, sock, self._tls, self._handshake_timeout, self._turns)

    def adopt(self, listeners: Collection[Listener]) -> None:
        """Accept at these listeners of other workers, too, and no more at those that were adopted before."""
        for listener in self._adopted.difference(listeners):
            self._leave(listener)
        for listener in listeners:
            if listener not in self._adopted and listener.is_listening:
                self._adopted.add(listener)
                self._loop.add_reader(listener.sock, self._accept, listener)

    def _leave(self, listener: Listener) -> None:
        self._adopted.discard(listener)
        if listener.sock.fileno() >= 0:
            self._loop.remove_reader(listener.sock)

    def maintain(self) -> None:
        """Call it every second."""
        for listener in self._listeners:
            listener.maintain()

    async def close(self) -> None:
        """Accept every connection that is queued, then close the listeners."""
        self.adopt(())
        settled = self._loop.time() + _SETTLE * any(listener.group_size for listener in self._listeners)
        while True:
            for listener in self._listeners:
                listener.withdraw()
            late = self._loop.time() - settled
            if late >= _SETTLE or (late >= 0 and not any(listener.has_pending() for listener in self._listeners)):
                break
            await asyncio.sleep(_POLL)
        for listener in self._listeners:
            listener.stop_listening()
        self.close_now()
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=_HANDSHAKE_GRACE)
        for task in self._handshakes:
            task.cancel()

    def close_now(self) -> None:
        """Close the listeners without accepting what is queued. May be called again."""
        self.adopt(())
        for listener in self._listeners:
            if listener.sock.fileno() >= 0:
                self._loop.remove_reader(listener.sock)
                listener.close()
