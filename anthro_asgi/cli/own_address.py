"""Refuses an upstream whose address is the service's own: each request would be sent to the service again.

The check follows no redirect and no proxy, and it asks no DNS server: a name is looked up only if it is `localhost` or
the name of this machine. So it may miss a service that leads to itself, and it never refuses another server.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from ..server.listeners import Listener
from ..settings.options import ConfigError, Settings

_PORTS: Final = {"http": 80, "https": 443}
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - these are compared, not bound
_ANY_PORT: Final = 9  # the sockets that look for a route send nothing


def refuse_own_address(listeners: Sequence[Listener], settings: Settings) -> None:
    """Raises ConfigError if a URL of the settings leads to one of the bound `listeners`. The URLs are valid."""
    for where, url in _urls(settings):
        parts = urlsplit(url)
        if parts.scheme == "unix":
            path = parts.path.rstrip("/").removesuffix("/v1")
            if settings.uds is not None and os.path.realpath(path) == os.path.realpath(settings.uds):
                raise ConfigError(f"{where}: {path} is the socket of this service; name that of the engine")
            continue
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        bound = [listener.sock for listener in listeners if settings.uds is None]
        if any(sock.getsockname()[1] == port and _is_reached(sock, host) for sock in bound):
            shown = f"[{host}]" if ":" in host else host
            raise ConfigError(
                f"{where}: {shown}:{port} is the address of this service; name that of the engine, "
                "or choose another --port for the service"
            )


def _urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """The URLs to which the service sends requests, each with the words that name it in an error."""
    for named in settings.upstreams:
        url = settings.of(named).upstream
        if url is not None:
            yield f"engine {named.name}", url
    if settings.upstream is not None:
        yield "--upstream", settings.upstream
    if settings.web_search is not None and settings.web_search.startswith(("http://", "https://")):
        yield "--web-search", settings.web_search


def _is_reached(sock: socket.socket, host: str) -> bool:
    """Whether a client on this machine that connects to `host`, at the port of `sock`, reaches `sock`."""
    own = sock.getsockname()[0]
    both = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    for address in _local_addresses(host):
        same_family = (":" in address) == (sock.family == socket.AF_INET6)
        if address == own or (own in _WILDCARDS and (same_family or both)):
            return True
    return False


def _local_addresses(host: str) -> Iterator[str]:
    """The addresses of `host` that are addresses of this machine."""
    name = socket.gethostname().lower().partition(".")[0]
    is_local_name = host == "localhost" or host.partition(".")[0] == name
    try:
        found = socket.getaddrinfo(
            host, _ANY_PORT, type=socket.SOCK_DGRAM, flags=0 if is_local_name else socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            try:
                probe.connect(address)  # of a datagram socket: it only chooses the route
            except OSError:
                continue
            # where a client would be connected: a loopback address if `host` is 0.0.0.0
            peer, source = (pair[0].removeprefix("::ffff:") for pair in (probe.getpeername(), probe.getsockname()))
        if peer == source or peer.startswith("127."):
            yield peer
