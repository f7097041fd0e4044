"""Opens one connection: TCP, TLS over TCP, or a Unix socket."""

import asyncio
import socket

from .connection import Connection
from .errors import ConnectFailed
from .origin import Origin

_RETRY = 0.005  # seconds between two attempts at a Unix socket whose accept queue is full


async def dial(origin: Origin, connection: Connection) -> None:
    """Connect `connection` to `origin`. Raises ConnectFailed. There is no time limit; the caller sets one."""
    try:
        if origin.socket:
            await _dial_unix(origin.socket, connection)
        else:
            await _dial_tcp(origin, connection)
    except (OSError, UnicodeError) as exc:  # ssl.SSLError is an OSError; a label too long for DNS is a UnicodeError
        raise ConnectFailed(f"{origin}: {str(exc) or type(exc).__name__}") from exc


async def _dial_tcp(origin: Origin, connection: Connection) -> None:
    # asyncio and uvloop both set TCP_NODELAY.
    name = origin.host.partition("%")[0] if origin.tls else None
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, origin.host, origin.port, ssl=origin.tls, server_hostname=name)


async def _dial_unix(path: str, connection: Connection) -> None:
    # When a TCP server's accept queue is full (llama.cpp's holds 5), the client's kernel retries by itself. A Unix
    # socket fails with EAGAIN instead: uvloop raises it, and asyncio takes it for "in progress" and then for success.
    # So this function connects the socket itself.
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(_RETRY)
        except BaseException:
            sock.close()
            raise
        else:
            await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=sock)
            return
