"""The client of `anthro-asgi health`: asks the server that the same options describe how it is.

A container's health check runs it every few seconds, so it must cost little: one request, by hand, over a socket.
"""

import socket
import sys
import time
from contextlib import closing
from typing import Final

from ..settings.options import Settings

_PATIENCE: Final = 3.0  # seconds for all of it
_LARGEST: Final = 1 << 16  # bytes of an answer; ours are under 300


def ask(settings: Settings) -> int:
    """Print what the server says; 0 if it lives (or is ready, where that was asked), else 1."""
    path = "/readyz" if settings.ready else "/healthz"
    try:
        status, body = _get(settings, path, time.monotonic() + _PATIENCE)
    except OSError as exc:  # ssl.SSLError is one; a TimeoutError of socket's has no strerror
        print(f"no answer: {exc.strerror or exc}", file=sys.stderr)
        return 1
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(body)
    return 0 if status == 200 else 1


def _get(settings: Settings, path: str, until: float) -> tuple[int, str]:
    """Status and body of the answer. Raises OSError, and ValueError for an answer that is no HTTP."""
    with closing(_connect(settings, until)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _LARGEST:
            sock.settimeout(max(until - time.monotonic(), 1e-3))
            part = sock.recv(_LARGEST)
            if not part:
                break
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("no answer: what answers there does not speak HTTP")
    return int(words[1]), body.decode(errors="replace")


def _connect(settings: Settings, until: float) -> socket.socket:
    if settings.uds is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(until - time.monotonic())
        try:
            sock.connect(settings.uds)
        except BaseException:
            sock.close()
            raise
    else:
        # To an address that stands for all, Linux connects by loopback.
        sock = socket.create_connection((settings.host, settings.port), until - time.monotonic())
    return sock if settings.tls_cert is None else _under_tls(sock)


def _under_tls(sock: socket.socket) -> socket.socket:
    """Whoever answers is believed: it is told nothing, and its certificate need not name this address.

    Nor may the certificate be compared with the file: a renewed one, which the server takes on SIGHUP, would look like
    an illness until then.
    """
    import ssl  # most servers behind an ingress speak none

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise
