"""The sockets a server listens on, bound before it starts, so that what the machine refuses is one clear line.

    bound ──► it listens ──► published ──► withdrawn: nobody new finds it ──► nobody waits at it ──► closed

A Unix socket is bound under a name beside its own and published by renaming it, so that its path never leads to a
server that does not listen, and a server that takes over leaves no gap.

The sockets that listen on one port with SO_REUSEPORT are a group, in the order in which they began to. Linux draws one
for each connection by a hash, and resets the connections that wait at a socket when it is closed. So a server that is
about to close steers what comes to the first socket behind its own, and closes once nothing waits at its own any more.
A group stays steered until someone undoes it; while there is no such socket, the hash draws as before.
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

# A name may have an address this machine has not: localhost is ::1 too where IPv6 is off.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes

# asm-generic/socket.h, and linux/filter.h: the one instruction "return K"
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
_BPF_RET_K: Final = 0x06


class Listener:
    """A bound socket.

    `peers` is 0, or how many sockets on its port are of this service where other services may have theirs beside them.
    """

    def __init__(self, sock: socket.socket, peers: int = 0) -> None:
        self.sock = sock
        self.peers = peers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address('tcp')}{' closed' * (self.sock.fileno() < 0)}>"

    def address(self, scheme: str) -> str:
        """Where it is reached. Not once it is closed."""
        host, port = self.sock.getsockname()[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def publish(self) -> None:
        """Let clients find it, now that it listens. Raises ResourceUnavailable."""
        self.maintain()

    def maintain(self) -> None:
        """Once in a while, while it serves: what a service that is gone has steered for itself is over."""
        if self.peers:
            unsteer(self.sock)

    def withdraw(self) -> None:
        """Have new clients go elsewhere, if there is an elsewhere."""
        if self.peers:
            steer(self.sock, self.peers)

    def has_pending(self) -> bool:
        """Whether a client waits at it to be accepted."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.sock.close()


class UnixListener(Listener):
    """A Unix socket, found at `path`. `replace_existing`: a server that listens there may be replaced."""

    def __init__(self, sock: socket.socket, path: str, *, replace_existing: bool) -> None:
        super().__init__(sock)
        self._path = path
        self._replace_existing = replace_existing
        self._beside = f"{path}~{os.urandom(2).hex()}"
        with _alone_beside(path):
            self._look()
            sock.bind(self._beside)
            self._inode = os.stat(self._beside).st_ino

    def address(self, scheme: str) -> str:
        return f"unix:{self._path}"

    def publish(self) -> None:
        with _alone_beside(self._path):
            self._look()
            try:
                os.rename(self._beside, self._path)
            except OSError as exc:
                raise ResourceUnavailable(f"cannot listen on {self._path}: {exc.strerror}") from exc

    def withdraw(self) -> None:
        """Remove the file, if it is still ours: a file's number is not given to another while its socket is open."""
        with _alone_beside(self._path):
            for path in (self._beside, self._path):
                with suppress(OSError):
                    if self.sock.fileno() >= 0 and os.stat(path).st_ino == self._inode:
                        os.unlink(path)

    def _look(self) -> None:
        """Raises ResourceUnavailable for what must not be replaced. The file that a dead server left may be."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(self._path).st_mode):
                raise ResourceUnavailable(f"cannot listen on {self._path}: it exists and is no socket")
            if not self._replace_existing and _answers(self._path):
                raise ResourceUnavailable(f"cannot listen on {self._path}: another server answers there")


@contextmanager
def bind_listeners(settings: Settings) -> Iterator[list[list[Listener]]]:
    """The listeners of each worker; withdrawn and closed at the end. Raises ResourceUnavailable.

    On a port each has its own, so that what waits at a worker that died waits for its successor; a path has but one.
    """
    where = f"{settings.host} port {settings.port}" if settings.uds is None else settings.uds
    with ExitStack() as owned:
        try:
            if settings.uds is None:
                shares = _bind_host(owned, settings)
            else:
                sock = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                file = UnixListener(sock, settings.uds, replace_existing=settings.reuse_port)
                owned.callback(file.withdraw)
                shares = [[file]] * settings.workers
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that is none
            raise ResourceUnavailable(f"cannot listen on {where}: {getattr(exc, 'strerror', None) or exc}") from exc
        yield shares


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
                if settings.workers > 1:  # the first has found the port free; now it may be shared
                    socks[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = socks[0].getsockname()[1]
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise
            missing.append(exc)
        else:
            bound.append(socks)
    if not bound:
        raise missing[0]
    peers = settings.workers if settings.reuse_port else 0
    return [[Listener(sock, peers) for sock in share] for share in zip(*bound, strict=True)]


def _bind(owned: ExitStack, family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    """`shared`: others may have the address as well."""
    # asyncio sets TCP_NODELAY on what it accepts only where the protocol is said; without it tokens wait 40 ms
    sock = owned.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    # What is accepted inherits it: a client whose machine or network is gone is noticed, though nothing is sent to it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) != errno.ECONNREFUSED


@contextmanager
def _alone_beside(path: str) -> Iterator[None]:
    """While no other server of this kind binds, renames or removes a socket there; not where that can't be had."""
    with ExitStack() as owned:
        with suppress(OSError):
            directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            owned.callback(os.close, directory)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield


def steer(sock: socket.socket, place: int) -> None:
    """Have connections go to the socket at `place` in the group of `sock`, which is 0 for the oldest."""
    program = array("B", pack("HBBI", _BPF_RET_K, 0, 0, place))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pack("HP", 1, program.buffer_info()[0]))


def unsteer(sock: socket.socket) -> None:
    """Let the hash draw again."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
