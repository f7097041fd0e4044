"""`anthro-asgi health`: asks the server that the same options describe whether it is alive, or ready.

A container runs it every few seconds as its health check, so it imports little and sends one request.
"""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import Final

from ..settings.options import Settings

_TIMEOUT: Final = 3.0  # seconds for the whole check
_LARGEST: Final = 1 << 16  # bytes of the response that are read; the server's own has less than 300


def health(settings: Settings) -> int:
    """Print the server's response. Returns the exit status: 0 when it is alive (or ready, with --ready), else 1."""
    try:
        with _time_limit(_TIMEOUT):
            status, body = _get(settings, "/readyz" if settings.ready else "/healthz")
    except OSError as exc:  # ssl.SSLError and TimeoutError too
        print(f"no response: {exc.strerror or exc}", file=sys.stderr)
        return 1
    except HTTPException:
        print("no response: the process at this address does not speak HTTP", file=sys.stderr)
        return 1
    print(body)
    return 0 if status == 200 else 1


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds. A socket's own timeout starts again with each byte."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("timed out")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _get(settings: Settings, path: str) -> tuple[int, str]:
    """Status and body of the response. Raises OSError or HTTPException."""
    with closing(HTTPConnection("localhost")) as connection:
        connection.sock = _connect(settings)
        connection.request("GET", path, headers={"connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_LARGEST).decode(errors="replace")


def _connect(settings: Settings) -> socket.socket:
    if settings.uds is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(settings.uds)
        except BaseException:
            sock.close()
            raise
    else:
        # For a wildcard address such as 0.0.0.0, Linux connects to the loopback address.
        sock = socket.create_connection((settings.host, settings.port))
    return sock if settings.tls_cert is None else _start_tls(sock)


def _start_tls(sock: socket.socket) -> socket.socket:
    """The certificate is not verified: the request holds no secret, and the certificate need not name this address.

    It is not compared with the file either: the server takes a renewed file only on SIGHUP, and is healthy until then.
    """
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise
