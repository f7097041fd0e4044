"""The bad engine: faults that strike in a phase of an answer. Which one a request meets, its model's name says.

A fault is `async def fault(play)`: it first says what is due before its phase, and then does its worst. What has no end
is paced, so that it costs the service's patience and not the machine.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tests.checks.faults.speech import Api, chunk, event, speech
from tests.support.upstream import Wire, raw_answer

MAX_EVENT: Final = 64 * 1024  # bytes; how the service is set up
TORRENT: Final = 200  # tokens of 60 KB
_PACE: Final = 0.01  # seconds between the pieces of what has no end
_DRIPS: Final = 45  # pieces of a slow answer
_DRIP: Final = 0.03  # seconds between them
_SSE: Final = ("content-type", "text/event-stream")
HEAD: Final = raw_answer(200, [_SSE, ("transfer-encoding", "chunked")])
LAST: Final = b"0\r\n\r\n"


class Play:
    """One request, and the answer that a fault makes of it."""

    def __init__(self, wire: Wire, phase: str) -> None:
        self.wire = wire
        self.api: Api = "messages" if wire.target.endswith("/messages") else "chat"
        self.before, self.after = speech(self.api, phase)
        self.speaks = phase != "before headers"
        self.send = wire.send
        self._start = wire.sent

    @property
    def answer(self) -> bytes:
        """All of a healthy answer."""
        return HEAD + b"".join(map(framed, self.before + self.after)) + LAST

    @property
    def unsaid(self) -> bytes:
        """What a healthy answer would still say."""
        return self.answer[self.wire.sent - self._start :]

    async def begin(self) -> None:
        """Say what comes before the fault."""
        if self.speaks:
            await self.send(HEAD + b"".join(map(framed, self.before)))

    async def forever(self, piece: bytes) -> None:
        """Until the service has had enough."""
        while True:
            await self.send(piece)
            await asyncio.sleep(_PACE)


Fault = Callable[[Play], Awaitable[None]]


def framed(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def healthy(play: Play) -> None:
    await play.send(play.answer)


# the connection


async def reset(play: Play) -> None:
    await play.begin()
    play.wire.reset()


async def closed(play: Play) -> None:
    await play.begin()
    play.wire.close()


async def half_closed(play: Play) -> None:
    await play.begin()
    play.wire._transport.write_eof()
    await play.wire.gone()


async def stalled(play: Play) -> None:
    await play.begin()
    await play.wire.gone()


async def slow_drip(play: Play) -> None:
    """From the phase on, all in all longer than the longest silence."""
    await play.begin()
    rest = play.unsaid
    size = len(rest) // _DRIPS + 1
    for at in range(0, len(rest), size):
        await play.send(rest[at : at + size])
        await asyncio.sleep(_DRIP)


# the framing of the body


async def truncated_chunk(play: Play) -> None:
    await play.begin()
    await play.send(b"fff\r\ndata: {")
    play.wire.close()


async def bad_chunk_size(play: Play) -> None:
    await play.begin()
    await play.send(b"5g\r\ndata: {}\n\n\r\n")
    await play.wire.gone()


async def short_length(play: Play) -> None:
    """The length that is told ends at the phase; all is said nevertheless."""
    await _with_length(play, len(b"".join(play.before)) + 9, play.before + play.after)
    await play.wire.gone()


async def long_length(play: Play) -> None:
    """The length that is told is that of more than is said."""
    await _with_length(play, 100_000, play.before)
    play.wire.close()


async def _with_length(play: Play, length: int, events: list[bytes]) -> None:
    await play.send(raw_answer(200, [_SSE, ("content-length", str(length))], b"".join(events)))


# the events


async def giant_line(play: Play) -> None:
    await play.begin()
    await play.forever(framed(b"data: " + b"x" * (MAX_EVENT // 4)))


async def broken_json(play: Play) -> None:
    await play.begin()
    await play.send(framed(b'data: {"choices": [{\n\n') + play.unsaid)


async def no_object(play: Play) -> None:
    await play.begin()
    await play.send(framed(b"data: [42]\n\n") + play.unsaid)


async def bad_utf8(play: Play) -> None:
    await play.begin()
    await play.send(framed(event({"x": "y"}).replace(b"y", b"\xff\xfe")) + play.unsaid)


async def error_event(play: Play) -> None:
    await play.begin()
    await play.send(framed(_error(play.api, 500, "api_error")))
    await play.wire.gone()


async def overloaded_event(play: Play) -> None:
    await play.begin()
    await play.send(framed(_error(play.api, 503, "overloaded_error")))
    await play.wire.gone()


def _error(api: Api, code: int, kind: str) -> bytes:
    named = {"type": kind, "message": "engine words"}
    return event({"type": "error", "error": named} if api == "messages" else {"error": {**named, "code": code}})


# without an end


async def endless(play: Play) -> None:
    """More of what is being said: text, input of a tool, or words behind the end."""
    await play.begin()
    words = "more " * 3000
    if play.api == "messages":
        calls = b"input_json_delta" in b"".join(play.before)
        delta = {"type": "input_json_delta", "partial_json": words} if calls else {"type": "text_delta", "text": words}
        said = {"type": "content_block_delta", "index": int(calls), "delta": delta}
        return await play.forever(framed(b"event: content_block_delta\n" + event(said)))
    if b"tool_calls" in b"".join(play.before):
        call = {"index": 0, "function": {"arguments": words}}
        return await play.forever(framed(chunk({"tool_calls": [call]})))
    return await play.forever(framed(chunk({"content": words})))


async def heartbeats(play: Play) -> None:
    """Never silent, and never a word."""
    await play.begin()
    await play.forever(framed(b": alive\n\n"))


async def torrent(play: Play) -> None:
    """More than all buffers between the engine and the client hold, as fast as it is taken."""
    await play.begin()
    token = framed(play.before[-1].replace(b"answer", b"answer" * 10_000))
    for _ in range(TORRENT):
        await play.send(token)
    await play.send(b"".join(map(framed, play.after)) + LAST)


PHASED: Final[dict[str, Fault]] = {
    "reset": reset,
    "closed": closed,
    "half-closed": half_closed,
    "stall": stalled,
    "slow drip": slow_drip,
    "truncated chunk": truncated_chunk,
    "bad chunk size": bad_chunk_size,
    "content-length too short": short_length,
    "content-length too long": long_length,
    "giant line": giant_line,
    "broken JSON": broken_json,
    "JSON that is no chunk": no_object,
    "invalid UTF-8": bad_utf8,
    "error 500 as an event": error_event,
    "error 503 as an event": overloaded_event,
    "endless": endless,
    "endless heartbeats": heartbeats,
    "torrent": torrent,
}
