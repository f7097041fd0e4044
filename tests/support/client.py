"""A client of nothing but `http.client`, which sees every byte and leaves when it is told to."""

import http.client
import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from anthro_asgi.conformance.grammar import Event, message_from_events, parse_events

TIMEOUT = 20.0  # seconds
HELLO: dict[str, Any] = {
    "model": "one-sentence",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Hello?"}],
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. `headers` by their lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Event]:
        """The events of a stream; what is none of ours fails."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        return parse_events(self.body)


def connect(url: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection to `http://…`, to `https://…` (checked by `context`) or to `unix:/path`."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect(rest)
        return connection
    authority = rest.removeprefix("//")
    if scheme == "https":
        return http.client.HTTPSConnection(authority, timeout=TIMEOUT, context=context)
    return http.client.HTTPConnection(authority, timeout=TIMEOUT)


def post(connection: http.client.HTTPConnection, path: str = "/v1/messages", **body: Any) -> None:
    """Send a request; `body` over what HELLO asks."""
    headers = {"content-type": "application/json"}
    connection.request("POST", path, json.dumps({**HELLO, **body}), headers)


def ask(url: str, path: str = "/v1/messages", context: ssl.SSLContext | None = None, **body: Any) -> Answer:
    """The whole response to HELLO with `body` over it."""
    with closing(connect(url, context)) as connection:
        post(connection, path, **body)
        return _answer(connection.getresponse())


def get(url: str, path: str, context: ssl.SSLContext | None = None) -> Answer:
    with closing(connect(url, context)) as connection:
        connection.request("GET", path)
        return _answer(connection.getresponse())


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def ask_both_ways(url: str, **body: Any) -> dict[str, Any]:
    """The message that is answered, streaming and not: the same, but for what is drawn anew for each.

    The stream must keep the grammar, and both must have counted the same.
    """
    whole = ask(url, **body)
    streamed = ask(url, **body, stream=True)
    assert (whole.status, streamed.status) == (200, 200), (whole.body, streamed.body)
    assert comparable(message_from_events(streamed.events)) == comparable(whole.json)
    message: dict[str, Any] = whole.json
    return message


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """A message without its ids, and with the prompt's tokens as one sum: a cache may hold more of it by now."""
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    usage = message["usage"]
    counts = {"prompt": prompt_tokens(usage), "output": usage["output_tokens"]}
    return {**{key: message[key] for key in message if key != "id"}, "content": content, "usage": counts}


def prompt_tokens(usage: dict[str, Any]) -> int:
    """The prompt's length: read from a cache or not."""
    return int(usage["input_tokens"] + usage.get("cache_read_input_tokens", 0))
