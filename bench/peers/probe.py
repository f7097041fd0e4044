"""One streamed answer of a server, read whole and checked against the contract before the server is timed.

The grammar raises at the first fault of a stream. Here it is led past it, so that each broken rule is reported once.
"""

import re
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from time import monotonic
from typing import Final

import orjson

from anthro_asgi.bench.counting import PATHS, Api
from anthro_asgi.conformance.grammar import FOLLOWS, Event, Grammar, GrammarError, parse_events

from .peer import Unavailable

TOKENS: Final = 32
_SECONDS: Final = 60.0  # for the whole answer
_STAMP: Final = re.compile(rb'(?<=["0-9]) [0-9]{6,}')  # a token of the scripted engine, at the start of a text or in it


def probe(connection: HTTPConnection, api: Api, model: str, tokens: int = TOKENS) -> list[str]:
    """The faults of a stream of `tokens` tokens, one line each; closes `connection`.

    Raises Unavailable when there is no stream at all.
    """
    body = _ask(connection, api, model, tokens)
    faults = stream_faults(body) if api == "messages" else []
    arrived = len(_STAMP.findall(body))
    if arrived == 0:
        raise Unavailable(f"its stream holds no token: {body[:200]!r}")
    if arrived != tokens:
        faults.append(f"{arrived} tokens arrived of {tokens}")
    return faults


def _ask(connection: HTTPConnection, api: Api, model: str, tokens: int) -> bytes:
    message = {"role": "user", "content": "Count."}
    request = orjson.dumps({"model": model, "max_tokens": tokens, "stream": True, "messages": [message]})
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    deadline = monotonic() + _SECONDS
    pieces = []
    try:
        connection.request("POST", PATHS[api], request, headers)
        response = connection.getresponse()
        while piece := response.read1(65536):
            pieces.append(piece)
            if monotonic() > deadline:  # the socket's own timeout is per read
                raise TimeoutError(f"the stream goes on after {_SECONDS:g} s")
    except (OSError, HTTPException) as exc:
        raise Unavailable(f"does not answer: {type(exc).__name__}: {exc}") from exc
    finally:
        connection.close()
    body = b"".join(pieces)
    if response.status != 200:
        raise Unavailable(f"answers {response.status}: {body[:200]!r}")
    return body


def stream_faults(body: bytes) -> list[str]:
    """Each rule of the grammar that a Messages stream breaks, with the first event that does."""
    try:
        events = parse_events(body)
    except GrammarError as exc:
        return [str(exc)]
    return [f"event {index}: {rule}" for rule, index in _broken(events).items()]


def _broken(events: Iterable[Event]) -> dict[str, int]:
    """Rules and the index of the event that broke each first."""
    grammar, index = Grammar(), 0
    broken: dict[str, int] = {}
    for index, event in enumerate(events):  # the last index is needed after the loop
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
