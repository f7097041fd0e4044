"""Where the requests of a run go, and when they are due in the open loop."""

import ipaddress
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final
from urllib.parse import urlsplit

from ...upstream.connect_errors import connection_error, is_signed_by_unknown
from ..counting import PATHS, Api

_TRUST: Final = "; name a file with the CA's certificate in SSL_CERT_FILE"


class BadRun(ValueError):
    """The URL is invalid or not on this machine, or options contradict each other."""


class Unreachable(Exception):
    """No connection to the server. The text names its address and the reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and the request's path and `host` header.

    `hosts` are addresses to try in turn; with port 0 it is the path of a Unix socket.
    """

    name: str
    hosts: tuple[str, ...]
    port: int
    path: str
    authority: str
    tls: ssl.SSLContext | None

    @property
    def address(self) -> str:
        """The server in an error text."""
        return self.authority if self.port else f"unix:{self.hosts[0]}"

    @classmethod
    def parse(cls, url: str, api: Api, *, remote: bool = False) -> "Target":
        """A base URL, with or without `/v1` or the whole path of the API, or `unix:/path`.

        Raises BadRun unless it is on this machine, or `remote` is true; Unreachable if its name has no address.
        """
        try:
            parts = urlsplit(url)
            given = parts.port
        except ValueError as exc:
            raise BadRun(f"{url!r} is not a URL: {exc}") from exc
        if parts.scheme == "unix" and parts.path.startswith("/"):
            return cls("localhost", (parts.path,), 0, PATHS[api], "localhost", None)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadRun(f"{url!r} is not a URL of http://, https:// or unix:/path")
        if "@" in parts.netloc:
            raise BadRun("a URL with a user and a password is not supported; --key sends an API key")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = given or (443 if tls else 80)
        base = parts.path.rstrip("/").removesuffix(PATHS[api]).removesuffix("/v1")
        hosts = _addresses(parts.hostname, port, remote)
        return cls(parts.hostname, hosts, port, base + PATHS[api], parts.netloc, tls)


def _addresses(host: str, port: int, remote: bool) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise Unreachable(f"{host} cannot be resolved: {(exc.strerror or str(exc)).lower()}") from exc
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not remote and not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadRun(f"{host} is not on this machine; --allow-remote sends load to other machines")
    return addresses


def reason(exc: OSError) -> str:
    """Why no connection could be opened, and what helps."""
    return connection_error(exc) + (_TRUST if is_signed_by_unknown(exc) else "")


# arrivals in the open loop: endless offsets in seconds from the start, the same for the same seed


def constant(rate: float, burst: int, seed: int) -> Iterator[float]:
    """At equal intervals."""
    return (number / rate for number in count())


def poisson(rate: float, burst: int, seed: int) -> Iterator[float]:
    """Independent of each other, as from very many clients."""
    draw = random.Random(seed)  # noqa: S311 (nothing secret)
    now = 0.0
    while True:
        now += draw.expovariate(rate)
        yield now


def bursts(rate: float, burst: int, seed: int) -> Iterator[float]:
    """`burst` at once, at intervals that give `rate` on average."""
    return (number // burst * burst / rate for number in count())


ARRIVALS: Final[dict[str, Callable[[float, int, int], Iterator[float]]]] = {
    "poisson": poisson,
    "constant": constant,
    "bursts": bursts,
}
