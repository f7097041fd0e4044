"""The listening sockets, which are bound before the server starts, so that a bind error is one clear line.

    bound ──► listening ──► published ──► withdrawn: new clients do not reach it ──► accept queue empty ──► closed

A Unix socket is bound to a temporary name beside its path and published by renaming it. So the path never leads to a
server that does not listen, and a server that replaces another leaves no gap.

The sockets that listen on one port with SO_REUSEPORT form a group, ordered by when they began to listen. Linux chooses
the socket for each connection by a hash, and when a socket is closed, it resets the connections in its accept queue. So
a server that is about to close steers new connections to the first socket after its own, and closes when its own accept
queue is empty. A group stays steered until a server ends it. If the chosen socket does not exist, the hash decides.
Steering works on Linux only; elsewhere it has no effect.
"""

import errno
import fcntl
import os
import select
import socket
import stat
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from struct import pack
from typing import Final

from ..settings.options import ResourceUnavailable, Settings

# A name may have an address that this machine lacks: localhost is also ::1 where IPv6 is off.
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TCP_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes

# asm-generic/socket.h, and linux/filter.h: the one instruction "return K"
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
_BPF_RET_K: Final = 0x06


class Listener:
    """A bound socket.

    `group_size` is 0 for a port that this service has alone. Where other services may share the port, it is the number
    of sockets that this service has in the port's SO_REUSEPORT group.
    """

    def __init__(self, sock: socket.socket, group_size: int = 0) -> None:
        self.sock = sock
        self.group_size = group_size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address('tcp')}{' closed' * (self.sock.fileno() < 0)}>"

    def address(self, scheme: str) -> str:
        """Its URL. Not available when the socket is closed."""
        host, port = self.sock.getsockname()[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def publish(self) -> None:
        """Let new clients reach the socket, which listens now. Raises ResourceUnavailable."""
        self.maintain()

    def maintain(self) -> None:
        """Call it at intervals while serving. It ends the steering that a server which has exited left behind."""
        if self.group_size:
            unsteer(self.sock)

    def withdraw(self) -> None:
        """Steer new clients to another service's socket, if there is one."""
        if self.group_size:
            steer(self.sock, self.group_size)

    def has_pending(self) -> bool:
        """Whether the accept queue holds a connection."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def is_listening(self) -> bool:
        """Whether a client can connect."""
        return self.sock.fileno() >= 0 and bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def stop_listening(self) -> None:
        """Refuse new clients, also if other processes have the socket open."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. May be called again."""
        self.sock.close()


class UnixListener(Listener):
    """A Unix socket that is published at `path`. `replace_existing`: a server that listens there may be replaced."""

    def __init__(self, sock: socket.socket, path: str, *, replace_existing: bool) -> None:
        super().__init__(sock)
        self._path = path
        self._replace_existing = replace_existing
        self._temporary = f"{path}~{os.urandom(2).hex()}"
        with _locked_directory(path):
            self._check_path()
            sock.bind(self._temporary)
            self._inode = os.stat(self._temporary).st_ino

    def address(self, scheme: str) -> str:
        return f"unix:{self._path}"

    def publish(self) -> None:
        with _locked_directory(self._path):
            self._check_path()
            try:
                os.rename(self._temporary, self._path)
            except OSError as exc:
                raise ResourceUnavailable(f"cannot listen on {self._path}: {exc.strerror}") from exc

    def withdraw(self) -> None:
        """Remove the file if it is still this socket's. An inode number is not reused while its socket is open."""
        with _locked_directory(self._path):
            for path in (self._temporary, self._path):
                with suppress(OSError):
                    if self.sock.fileno() >= 0 and os.stat(path).st_ino == self._inode:
                        os.unlink(path)

    def stop_listening(self) -> None:
        """Nothing to do: all workers accept from this one socket, which is closed when each has closed it."""

    def _check_path(self) -> None:
        """Raises ResourceUnavailable for a file that must not be replaced. The socket of a dead server may be."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(self._path).st_mode):
                raise ResourceUnavailable(f"cannot listen on {self._path}: the file exists and is not a socket")
            if not self._replace_existing and _is_listening(self._path):
                raise ResourceUnavailable(f"cannot listen on {self._path}: another server is listening there")


@contextmanager
def bind_listeners(settings: Settings) -> Iterator[list[list[Listener]]]:
    """The listeners of each worker; withdrawn and closed when the block is left. Raises ResourceUnavailable.

    On a port each worker has its own sockets, so that connections in the queue of a worker that died are served by the
    worker that replaces it. All workers share the socket of a path.
    """
    where = f"{settings.host} port {settings.port}" if settings.uds is None else settings.uds
    with ExitStack() as owned:
        try:
            if settings.uds is None:
                listeners = _bind_host(owned, settings)
            else:
                sock = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                file = UnixListener(sock, settings.uds, replace_existing=settings.reuse_port)
                owned.callback(file.withdraw)
                listeners = [[file]] * settings.workers
        except OSError as exc:
            raise ResourceUnavailable(f"cannot listen on {where}: {exc.strerror or exc}") from exc
        except UnicodeError as exc:  # an invalid host name
            raise ResourceUnavailable(f"cannot listen on {where}: {exc}") from exc
        yield listeners


def _bind_host(owned: ExitStack, settings: Settings) -> list[list[Listener]]:
    """A socket for each address of the host and each worker, all on one port."""
    port = settings.port
    bound: list[list[socket.socket]] = []
    missing: list[OSError] = []
    found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            socks: list[socket.socket] = []
            for number in range(settings.workers):
                shared = settings.reuse_port or number > 0
                socks.append(_bind(owned, family, (address[0], port, *address[2:]), shared=shared))
                if settings.workers > 1:  # the first socket has found the port free; now it may be shared
                    socks[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = socks[0].getsockname()[1]
        except OSError as exc:
            if exc.errno not in _NO_SUCH_ADDRESS:
                raise
            missing.append(exc)
        else:
            bound.append(socks)
    if not bound:
        raise missing[0]
    group_size = settings.workers if settings.reuse_port else 0
    return [[Listener(sock, group_size) for sock in socks] for socks in zip(*bound, strict=True)]


def _bind(owned: ExitStack, family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    """`shared`: other sockets may bind the address too."""
    # asyncio sets TCP_NODELAY on an accepted socket only if the protocol is given here; without it tokens wait 40 ms.
    sock = owned.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    # Accepted sockets inherit the keepalive options. They detect a client whose machine or network is gone, even while
    # nothing is sent to it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_KEEPALIVE:
        if hasattr(socket, name):  # not every platform has all three
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) != errno.ECONNREFUSED


@contextmanager
def _locked_directory(path: str) -> Iterator[None]:
    """No other process of this service binds, renames or removes a socket in the directory of `path` meanwhile.

    Without a lock where the file system supports none.
    """
    with ExitStack() as owned:
        with suppress(OSError):
            directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            owned.callback(os.close, directory)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield


def steer(sock: socket.socket, place: int) -> None:
    """Send new connections to the socket at `place` in the SO_REUSEPORT group of `sock`; the oldest is at 0."""
    program = array("B", pack("HBBI", _BPF_RET_K, 0, 0, place))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pack("HP", 1, program.buffer_info()[0]))


def unsteer(sock: socket.socket) -> None:
    """Let the hash choose the socket again."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
