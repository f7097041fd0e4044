"""What is asked, and of whom: a base URL on this machine, and requests as bytes, made as cheaply as they can be.

A prompt is short words, about one token each, drawn from a seed. Its first word is the request's number, so that no two
prompts begin alike and a cache of prefixes helps no server more than another.
"""

import ipaddress
import random
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from ..counting import Api

_TEXT: Final = (
    "a an and are as at be but by can do for from get go had has he her his how I if in is it its just like me my no "
    "not now of on one or our out over say she so some than that the them then they this time to two up us use was we "
    "well what when who will with work year you"
)
_PATHS: Final[dict[Api, str]] = {"messages": "/v1/messages", "chat": "/v1/chat/completions"}
_MARK: Final = "\x00"


class BadRun(ValueError):
    """What was asked for cannot be: the URL is none, or is not of this machine; options contradict each other."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect (`hosts` are addresses to try in turn), and what the request line and `host` header say."""

    name: str
    hosts: tuple[str, ...]
    port: int
    path: str
    authority: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, api: Api) -> "Target":
        """A base URL, with or without `/v1`. Raises BadRun: load goes to loopback addresses only."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadRun(f"{url} is no http:// or https:// URL")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        base = parts.path.rstrip("/").removesuffix("/v1")
        hosts = _loopback(parts.hostname, port)
        return cls(parts.hostname, hosts, port, base + _PATHS[api], parts.netloc.rpartition("@")[2], tls)


def _loopback(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise BadRun(f"{host} is not known: {exc}") from exc
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadRun(f"{host} is not a loopback address, and load is for this machine only")
    return addresses


@dataclass(frozen=True, slots=True)
class Wording:
    """What the requests say. `extra` is merged into the body."""

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
    choices = _TEXT.split()
    words = [_MARK, *(draw.choice(choices) for _ in range(wording.prompt_tokens - 1))]
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
