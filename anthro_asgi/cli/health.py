"""`anthro-asgi health`: asks the server that the same options describe whether it is alive, or ready.

A container runs it every few seconds as its health check. So it imports little: most of its CPU time is that of
starting Python. It sends one request over a plain socket, and imports `ssl` only for a server with a certificate.
"""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ..settings.options import Settings

_TIMEOUT: Final = 3.0  # seconds for the whole check
_OURS: Final = '{"status":"'  # every response to a health check begins so
_MAYBE_TLS: Final = "if the server has a certificate, give --tls-cert and --tls-key here too"
_MAYBE_PLAIN: Final = "if the server has no certificate, leave out --tls-cert and --tls-key"
_LARGEST: Final = 1 << 16  # bytes of the response that are read; the server's own has less than 300


def health(settings: Settings) -> int:
    """Print the server's response. Returns the exit status: 0 when it is alive (or ready, with --ready), else 1.

    What is wrong is one line on stderr with the address that was asked.
    """
    path = "/readyz" if settings.ready else "/healthz"
    address = _address(settings) + path
    try:
        with _time_limit(_TIMEOUT):
            status, body = _get(settings, path)
    except (OSError, ValueError) as exc:  # ssl.SSLError and TimeoutError too
        print(f"no response from {address}: {_reason(exc)}", file=sys.stderr)
        return 1
    if not body.startswith(_OURS):
        print(f"{address} answers with status {status}, but it is another service", file=sys.stderr)
        return 1
    print(body)
    if status == 200:
        return 0
    print(f"{address} answers with status {status}", file=sys.stderr)
    return 1


def _address(settings: Settings) -> str:
    """The URL of the server without a path, or `unix:` and the path of its socket."""
    if settings.uds is not None:
        return f"unix:{settings.uds}:"
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{settings.port}"


def _reason(exc: OSError | ValueError) -> str:
    """Why there is no response, in the words of an operator."""
    if isinstance(exc, socket.gaierror):
        return f"the host name has no address: {exc.strerror}"
    if isinstance(exc, ConnectionResetError):
        return f"{exc.strerror}; {_MAYBE_TLS}"
    if isinstance(exc, OSError) and hasattr(exc, "reason"):  # ssl.SSLError
        return f"no TLS: {str(exc.reason).lower().replace('_', ' ')}; {_MAYBE_PLAIN}"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds. A socket's own timeout starts again with each byte."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"timed out after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _get(settings: Settings, path: str) -> tuple[int, str]:
    """Status and body of the response. Raises OSError, and ValueError for a response that is not HTTP."""
    with _connect(settings) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        response = b""
        while not _is_complete(response) and (data := sock.recv(_LARGEST)):
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    version, status, *_ = (*head.split(b"\r\n", 1)[0].split(b" ", 2), b"")
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or len(status) != 3 or not status.isdigit():
        raise ValueError(_not_http(response))
    return int(status), body.decode(errors="replace")


def _not_http(response: bytes) -> str:
    """What is wrong with a response that is not HTTP."""
    if response.startswith(b"\x15\x03"):  # an alert of TLS (RFC 8446 section 5.1)
        return "the server uses TLS; give --tls-cert and --tls-key to this command, too"
    if not response:
        return f"the server closed the connection; {_MAYBE_TLS}"
    return "the server does not speak HTTP"


def _is_complete(response: bytes) -> bool:
    """Whether no more bytes need to be read. Without a length, the response ends with the connection."""
    head, end, body = response.partition(b"\r\n\r\n")
    return len(response) >= _LARGEST or (bool(end) and len(body) >= _length(head))


def _length(head: bytes) -> float:
    """The value of `content-length`, infinite without one."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 10:
            return int(value)
    return float("inf")


def _connect(settings: Settings) -> socket.socket:
    if settings.uds is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(settings.uds)
        except BaseException:
            sock.close()
            raise
    else:
        # For a wildcard address such as 0.0.0.0, Linux connects to the loopback address. A host name as bytes is not
        # encoded by the `idna` codec, whose import takes as long as the whole request.
        host = settings.host.encode() if settings.host.isascii() else settings.host
        sock = socket.create_connection((host, settings.port))  # type: ignore[arg-type]  # `getaddrinfo` takes bytes
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
