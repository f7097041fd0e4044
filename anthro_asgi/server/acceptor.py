"""Letting clients in, until it is time to let in nobody else, and to leave nobody at the door.

    open ──► a client waits ──► accepted ──► TLS is agreed on, where there is TLS ──► its connection begins
    close ──► the listeners are withdrawn ──► nobody waits ──► closed, in the same step

An event loop's own server loses, when it is closed, those that it has accepted but not come round to. So this accepts
by itself.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ..settings.options import ResourceUnavailable
from .listeners import Listener

_BACKLOG: Final = 2048
_AT_ONCE: Final = 64  # clients accepted before others get a turn
_REST: Final = 1.0  # seconds until it is tried again to accept, where the process has as many files as it may have
_PEEK: Final = 0.002  # seconds between looks at who waits
_SETTLE: Final = 0.5  # seconds in which those arrive who were on their way when they would be steered elsewhere
_HURRY: Final = 2.0  # seconds to agree on TLS, where we would rather stop
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger(__name__)


class Acceptor:
    """Lets clients in at `listeners`, each to a `connection` of its own; `how` is what TLS needs."""

    def __init__(
        self, listeners: Sequence[Listener], connection: Callable[[], asyncio.Protocol], how: dict[str, Any]
    ) -> None:
        self._listeners = listeners
        self._connection = connection
        self._how = how
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Acceptor {list(self._listeners)}, {len(self._arriving)} arriving>"

    def open(self) -> None:
        """Raises ResourceUnavailable."""
        for listener in self._listeners:
            try:
                listener.sock.setblocking(False)
                listener.sock.listen(_BACKLOG)
            except OSError as exc:  # two may bind one port, and only one may then listen
                raise ResourceUnavailable(f"cannot listen on {listener.address('http')}: {exc.strerror}") from exc
            self._loop.add_reader(listener.sock, self._accept, listener)

    def _accept(self, listener: Listener) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _FULL:
                    raise
                _log.error("cannot accept a connection: %s", exc.strerror)
                self._loop.remove_reader(listener.sock)
                self._loop.call_later(_REST, self._accept_again, listener)
                return
            task = self._loop.create_task(self._let_in(sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _accept_again(self, listener: Listener) -> None:
        if listener.sock.fileno() >= 0:
            self._loop.add_reader(listener.sock, self._accept, listener)

    async def _let_in(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # it left, or TLS came to nothing: its own affair
            await self._loop.connect_accepted_socket(self._connection, sock, **self._how)

    def maintain(self) -> None:
        """What is due every second."""
        for listener in self._listeners:
            listener.maintain()

    async def close(self) -> None:
        """Let in all that wait, and then nobody."""
        settled = self._loop.time() + _SETTLE * any(listener.peers for listener in self._listeners)
        while True:
            for listener in self._listeners:
                listener.withdraw()
            late = self._loop.time() - settled
            if late >= _SETTLE or (late >= 0 and not any(listener.has_pending() for listener in self._listeners)):
                break
            await asyncio.sleep(_PEEK)
        self.close_now()
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=_HURRY)
        for task in self._arriving:
            task.cancel()

    def close_now(self) -> None:
        for listener in self._listeners:
            if listener.sock.fileno() >= 0:
                self._loop.remove_reader(listener.sock)
                listener.close()
