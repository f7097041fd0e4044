"""One streamed answer of a server, read whole and held against the contract before the server is timed.

The grammar stops at the first fault of a stream; here it is led past it, so that each rule a peer breaks is said once.
"""

import re
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import orjson

from anthro_asgi.conformance.grammar import FOLLOWS, Event, Grammar, GrammarError, parse_events

from .driving import Server
from .peer import Api, Missing

TOKENS: Final = 32
_SECONDS: Final = 60.0  # for the whole answer
_PATHS: Final[dict[Api, str]] = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}


def probe(server: Server, tokens: int = TOKENS) -> list[str]:
    """What is wrong with the stream of `server`, one line each. Raises Missing when there is no stream at all."""
    body = _ask(server, tokens)
    faults = stream_faults(body) if server.api == "messages" else []
    arrived = len(re.findall(r" [0-9]{6,}", _text(body)))
    if arrived == 0:
        raise Missing(f"its stream holds no token: {body[:200]!r}")
    if arrived != tokens:
        faults.append(f"{arrived} tokens arrived of {tokens}")
    return faults


def _ask(server: Server, tokens: int) -> bytes:
    request = {
        "model": server.model,
        "max_tokens": tokens,
        "stream": True,
        "messages": [{"role": "user", "content": "Count."}],
    }
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    address = urlsplit(server.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=_SECONDS)
    try:
        connection.request("POST", _PATHS[server.api], orjson.dumps(request), headers)
        response = connection.getresponse()
        body = _read(response, monotonic() + _SECONDS)
    except (OSError, HTTPException) as exc:
        raise Missing(f"does not answer: {type(exc).__name__}: {exc}") from exc
    finally:
        connection.close()
    if response.status != 200:
        raise Missing(f"answers {response.status}: {body[:200]!r}")
    return body


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """The whole body. Raises TimeoutError: each read has its own time-out, and a server may send a byte for each."""
    pieces = []
    while piece := response.read1(65536):
        pieces.append(piece)
        if monotonic() > deadline:
            raise TimeoutError(f"the stream goes on after {_SECONDS:g} s")
    return b"".join(pieces)


def stream_faults(body: bytes) -> list[str]:
    """Each rule of the grammar that a Messages stream breaks, with the first event that does."""
    try:
        events = parse_events(body)
    except GrammarError as exc:
        return [str(exc)]
    return [f"event {index}: {rule}" for rule, index in _broken(events).items()]


def _broken(events: Iterable[Event]) -> dict[str, int]:
    """Rules and where they were first broken."""
    grammar, index = Grammar(), 0
    broken: dict[str, int] = {}
    for index, event in enumerate(events):  # where the stream ends is needed after the loop
        try:
            grammar.feed(event)
        except GrammarError as exc:
            broken.setdefault(exc.rule, index)
            grammar.state = FOLLOWS[grammar.state].get(event.type, grammar.state)
    try:
        grammar.end()
    except GrammarError as exc:
        broken.setdefault(exc.rule, index + 1)
    return broken


def _text(body: bytes) -> str:
    """The content of either API's stream, as far as it can be read."""
    texts: list[str] = []
    for line in body.splitlines():
        try:
            data = orjson.loads(line.removeprefix(b"data:").strip()) if line.startswith(b"data:") else {}
        except orjson.JSONDecodeError:
            continue  # [DONE]
        if isinstance(data, dict):
            deltas = [data.get("delta"), *(choice.get("delta") for choice in data.get("choices") or [])]
            texts += [str(delta.get("text") or delta.get("content") or "") for delta in deltas if delta]
    return "".join(texts)
