"""The requests of a run: the target, a loopback URL; the bytes of each request; and when they are due in the open loop.

A prompt consists of short words, about one token each, drawn from a seed. It begins with the request's number, so that
no two prompts share a prefix and no server gains from a prefix cache.
"""

import ipaddress
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from ..counting import PATHS, Api

_TEXT: Final = (
    "a an and are as at be but by can do for from get go had has he her his how I if in is it its just like me my no "
    "not now of on one or our out over say she so some than that the them then they this time to two up us use was we "
    "well what when who will with work year you"
)
_WORDS: Final = _TEXT.split()
_MARK: Final = "\x00"


class BadRun(ValueError):
    """The URL is invalid or not on this machine, or options contradict each other."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect (`hosts` are addresses to try in turn), and the request's path and `host` header."""

    name: str
    hosts: tuple[str, ...]
    port: int
    path: str
    authority: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, api: Api) -> "Target":
        """A base URL, with or without `/v1`. Raises BadRun: load is sent to loopback addresses only."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadRun(f"{url!r} is not an http:// or https:// URL")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        base = parts.path.rstrip("/").removesuffix("/v1")
        hosts = _loopback(parts.hostname, port)
        return cls(parts.hostname, hosts, port, base + PATHS[api], parts.netloc.rpartition("@")[2], tls)


def _loopback(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise BadRun(f"{host} cannot be resolved: {exc}") from exc
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadRun(f"{host} is not a loopback address; load is sent to this machine only")
    return addresses


@dataclass(frozen=True, slots=True)
class Wording:
    """The content of the requests. `extra` is merged into the body."""

    api: Api
    model: str
    key: str | None
    stream: bool
    prompt_tokens: int
    output_tokens: int
    seed: int
    extra: dict[str, Any]


class Requests:
    """Makes whole HTTP requests, by number."""

    def __init__(self, target: Target, wording: Wording) -> None:
        body = orjson.dumps(_body(wording))
        self._before, self._after = body.split(orjson.dumps(_MARK)[1:-1])
        self._head = _head(target, wording)

    def make(self, number: int) -> bytes:
        """The bytes of request `number`."""
        word = b"%d" % number
        size = len(self._before) + len(word) + len(self._after)
        return b"%b%d\r\n\r\n%b%b%b" % (self._head, size, self._before, word, self._after)


def _body(wording: Wording) -> dict[str, Any]:
    draw = random.Random(wording.seed)  # noqa: S311 (nothing secret)
    words = [_MARK, *(draw.choice(_WORDS) for _ in range(wording.prompt_tokens - 1))]
    body: dict[str, Any] = {
        "model": wording.model,
        "max_tokens": wording.output_tokens,
        "stream": wording.stream,
        "messages": [{"role": "user", "content": " ".join(words)}],
    }
    if wording.api == "chat" and wording.stream:
        body["stream_options"] = {"include_usage": True}
    return body | wording.extra


def _head(target: Target, wording: Wording) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"host: {target.authority}", "content-type: application/json"]
    lines.append(f"accept: {'text/event-stream' if wording.stream else 'application/json'}")
    if wording.api == "messages":
        lines.append("anthropic-version: 2023-06-01")
    if wording.key:
        lines.append(f"{'x-api-key: ' if wording.api == 'messages' else 'authorization: Bearer '}{wording.key}")
    return "\r\n".join([*lines, "content-length: "]).encode()


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
