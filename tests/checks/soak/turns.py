"""The next turn of a client, drawn from a seed, and its request."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

import orjson

from bench.scripted.serving import CALLING

from .faults import FAULTS, NONE, Fault, asking

Kind = Literal["stream", "whole", "count", "models", "invalid"]

FAULTY: Final = 0.15  # of the answers
LEAVING: Final = 0.15  # of the clients that stream, or wait for a whole answer
CALLS: Final = 0.25  # of the answers: a tool call in place of a text
LARGE: Final = 0.005  # of the requests, which are processed in steps
_LARGE_AT_FIRST: Final = 0.05  # of the first requests of the clients, so that their memory is reserved at the beginning
_LARGE_BYTES: Final = 400_000
_OTHERS: Final[tuple[Kind, ...]] = ("whole", "whole", "whole", "count", "models", "invalid")
_INVALID: Final = (
    b"",
    b"{",
    b"[]",
    b'{"model":"scripted"}',
    b'{"model":"scripted","max_tokens":-1,"messages":[{"role":"user","content":"soak none 0"}]}',
    b'{"model":"scripted","max_tokens":9,"messages":[{"role":"user","content":[{"type":"nonsense"}]}]}',
    b"[" * 5000,
)
_PATHS: Final[dict[Kind, str]] = {
    "stream": "POST /v1/messages",
    "whole": "POST /v1/messages",
    "count": "POST /v1/messages/count_tokens",
    "models": "GET /v1/models",
    "invalid": "POST /v1/messages",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. `tokens` is the length of its answer. `leaves` is the number of tokens after which the client
    disconnects: 0 is before the response head, None is never. `pause` is the time before the request, in seconds. With
    `calls` the answer is a tool call.
    """

    kind: Kind
    tokens: int
    fault: Fault = NONE
    after: int = 0
    leaves: int | None = None
    padding: int = 0
    variant: int = 0
    pause: float = 0.0
    calls: bool = False

    def body(self) -> bytes:
        """The request's body."""
        if self.kind == "models":
            return b""
        if self.kind == "invalid":
            return _INVALID[self.variant % len(_INVALID)]
        said = asking(self.fault, self.after) + " word" * (self.padding // 5)
        model = CALLING if self.calls else "scripted"
        asked = {"model": model, "max_tokens": self.tokens, "messages": [{"role": "user", "content": said}]}
        return orjson.dumps(asked if self.kind == "count" else {**asked, "stream": self.kind == "stream"})

    def request(self, authority: str) -> bytes:
        """The whole request as it goes on the wire."""
        body = self.body()
        head = f"{_PATHS[self.kind]} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def streaming(rng: Random, first: bool, longest: int) -> Turn:
    """A turn of a streaming client: between a quarter of `longest` and `longest` tokens."""
    turn = Turn("stream", max(1, round(longest * 4 ** -rng.random())), calls=rng.random() < CALLS)
    return _perhaps_large(_perhaps_leaving(_perhaps_faulty(turn, rng), rng), rng, first)


def anything_else(rng: Random, first: bool, longest: int) -> Turn:
    """A turn of a client that sends all other requests, including invalid ones."""
    kind = rng.choice(_OTHERS)
    turn = Turn(kind, min(longest, rng.randint(1, 20)), variant=rng.randrange(100), pause=2 * rng.random())
    if kind == "whole":
        turn = replace(turn, calls=rng.random() < CALLS)
        turn = _perhaps_leaving(_perhaps_faulty(turn, rng), rng)
    return _perhaps_large(turn, rng, first)


def _perhaps_faulty(turn: Turn, rng: Random) -> Turn:
    if rng.random() >= FAULTY:
        return turn
    fault = rng.choice(tuple(FAULTS.values()))
    after = 0 if fault.early else rng.randint(2, max(2, turn.tokens - 1))
    return replace(turn, fault=fault, after=after, tokens=max(turn.tokens, after + 1))


def _perhaps_leaving(turn: Turn, rng: Random) -> Turn:
    if rng.random() >= LEAVING:
        return turn
    return replace(turn, leaves=0 if turn.kind == "whole" else rng.choice((0, 1, rng.randrange(turn.tokens))))


def _perhaps_large(turn: Turn, rng: Random, first: bool) -> Turn:
    large = rng.random() < (_LARGE_AT_FIRST if first else LARGE)
    return replace(turn, padding=_LARGE_BYTES if large else round(2000 * rng.random() ** 3))
