"""The sockets a server listens on, bound before it starts, so that what the machine refuses is one clear line."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from ..options import Refused, Settings

# A name may have an address this machine has not: localhost is ::1 too where IPv6 is off.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """Sockets bound as the settings say; closed at the end, and the file of a Unix socket removed."""
    where = f"{settings.host} port {settings.port}" if settings.uds is None else settings.uds
    with ExitStack() as owned:
        try:
            if settings.uds is None:
                sockets = _bind_host(owned, settings.host, settings.port)
            else:
                sockets = [_bind_path(owned, settings.uds)]
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that is none
            raise Refused(f"cannot listen on {where}: {getattr(exc, 'strerror', None) or exc}") from exc
        yield sockets


def _bind_host(owned: ExitStack, host: str, port: int) -> list[socket.socket]:
    """One socket for each address of `host`, all on one port."""
    bound: list[socket.socket] = []
    missing: list[OSError] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            # asyncio sets TCP_NODELAY on what it accepts only where the protocol is said; without it tokens wait 40 ms
            sock = owned.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address[0], port, *address[2:]))
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise
            missing.append(exc)
        else:
            bound.append(sock)
            port = sock.getsockname()[1]
    if not bound:
        raise missing[0]
    return bound


def _bind_path(owned: ExitStack, path: str) -> socket.socket:
    """The file a dead server left is removed first; at the end ours is, unless another server has taken its place."""
    sock = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise Refused(f"cannot listen on {path}: it exists and is no socket")
        if _answers(path):
            raise Refused(f"cannot listen on {path}: another server answers there")
        os.unlink(path)
    sock.bind(path)
    owned.callback(_unlink, path, os.stat(path).st_ino)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _unlink(path: str, inode: int) -> None:
    with suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def address_of(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
