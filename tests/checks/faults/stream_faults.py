"""Faults of the engine that occur in a phase of an answer. The model name of a request selects one.

A fault is `async def fault(exchange)`. It sends the healthy events up to its phase, and then misbehaves. Endless output
is paced, so that it does not load the machine.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tests.checks.faults.healthy_response import Api, chunk, event, healthy_events
from tests.support.upstream import Wire, raw_answer

MAX_EVENT: Final = 64 * 1024  # bytes; a limit of the service
TORRENT: Final = 140  # tokens of 60 KB
_PACE: Final = 0.01  # seconds between two pieces of endless output
_DRIPS: Final = 90  # pieces of a slow answer
_DRIP: Final = 0.03  # seconds between them
_SSE: Final = ("content-type", "text/event-stream")
HEAD: Final = raw_answer(200, [_SSE, ("transfer-encoding", "chunked")])
LAST: Final = b"0\r\n\r\n"


class Exchange:
    """One request and the response to it."""

    def __init__(self, wire: Wire, phase: str) -> None:
        self.wire = wire
        self.api: Api = "messages" if wire.target.endswith("/messages") else "chat"
        self.before, self.after = healthy_events(self.api, phase)
        self.sends_head = phase != "before headers"
        self.send = wire.send
        self._start = wire.sent

    @property
    def answer(self) -> bytes:
        """The bytes of a complete healthy response."""
        return HEAD + b"".join(map(framed, self.before + self.after)) + LAST

    @property
    def unsent(self) -> bytes:
        """The bytes of a healthy response that are not sent yet."""
        return self.answer[self.wire.sent - self._start :]

    async def send_start(self) -> None:
        """Send what comes before the fault."""
        if self.sends_head:
            await self.send(HEAD + b"".join(map(framed, self.before)))

    async def repeat_forever(self, piece: bytes) -> None:
        """Send `piece` until the service closes the connection."""
        while True:
            await self.send(piece)
            await asyncio.sleep(_PACE)


Fault = Callable[[Exchange], Awaitable[None]]


def framed(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def healthy(exchange: Exchange) -> None:
    await exchange.send(exchange.answer)


# the connection


async def reset(exchange: Exchange) -> None:
    await exchange.send_start()
    exchange.wire.reset()


async def closed(exchange: Exchange) -> None:
    await exchange.send_start()
    exchange.wire.close()


async def half_closed(exchange: Exchange) -> None:
    await exchange.send_start()
    exchange.wire._transport.write_eof()
    await exchange.wire.gone()


async def stalled(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.wire.gone()


async def slow_drip(exchange: Exchange) -> None:
    """Sends the rest slowly: in all longer than the silence deadline, but without a pause as long as that."""
    await exchange.send_start()
    rest = exchange.unsent
    size = len(rest) // _DRIPS + 1
    for at in range(0, len(rest), size):
        await exchange.send(rest[at : at + size])
        await asyncio.sleep(_DRIP)


# the framing of the body


async def truncated_chunk(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(b"fff\r\ndata: {")
    exchange.wire.close()


async def bad_chunk_size(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(b"5g\r\ndata: {}\n\n\r\n")
    await exchange.wire.gone()


async def short_length(exchange: Exchange) -> None:
    """The announced length ends at the phase; everything is sent nevertheless."""
    await _with_length(exchange, len(b"".join(exchange.before)) + 9, exchange.before + exchange.after)
    await exchange.wire.gone()


async def long_length(exchange: Exchange) -> None:
    """The announced length is larger than what is sent."""
    await _with_length(exchange, 100_000, exchange.before)
    exchange.wire.close()


async def _with_length(exchange: Exchange, length: int, events: list[bytes]) -> None:
    await exchange.send(raw_answer(200, [_SSE, ("content-length", str(length))], b"".join(events)))


# the events


async def giant_line(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.repeat_forever(framed(b"data: " + b"x" * (MAX_EVENT // 4)))


async def broken_json(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(framed(b'data: {"choices": [{\n\n') + exchange.unsent)


async def no_object(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(framed(b"data: [42]\n\n") + exchange.unsent)


async def bad_utf8(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(framed(event({"x": "y"}).replace(b"y", b"\xff\xfe")) + exchange.unsent)


async def error_event(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(framed(_error(exchange.api, 500, "api_error")))
    await exchange.wire.gone()


async def overloaded_event(exchange: Exchange) -> None:
    await exchange.send_start()
    await exchange.send(framed(_error(exchange.api, 503, "overloaded_error")))
    await exchange.wire.gone()


def _error(api: Api, code: int, kind: str) -> bytes:
    named = {"type": kind, "message": "engine words"}
    return event({"type": "error", "error": named} if api == "messages" else {"error": {**named, "code": code}})


# endless output


async def endless(exchange: Exchange) -> None:
    """Endless text, tool input, or text after the end, depending on the phase."""
    await exchange.send_start()
    words = "more " * 3000
    if exchange.api == "messages":
        calls = b"input_json_delta" in b"".join(exchange.before)
        delta = {"type": "input_json_delta", "partial_json": words} if calls else {"type": "text_delta", "text": words}
        said = {"type": "content_block_delta", "index": int(calls), "delta": delta}
        return await exchange.repeat_forever(framed(b"event: content_block_delta\n" + event(said)))
    if b"tool_calls" in b"".join(exchange.before):
        call = {"index": 0, "function": {"arguments": words}}
        return await exchange.repeat_forever(framed(chunk({"tool_calls": [call]})))
    return await exchange.repeat_forever(framed(chunk({"content": words})))


async def heartbeats(exchange: Exchange) -> None:
    """Heartbeats without content."""
    await exchange.send_start()
    await exchange.repeat_forever(framed(b": alive\n\n"))


async def torrent(exchange: Exchange) -> None:
    """More than all buffers between engine and client hold, as fast as the service reads it."""
    await exchange.send_start()
    token = framed(exchange.before[-1].replace(b"answer", b"answer" * 10_000))
    for _ in range(TORRENT):
        await exchange.send(token)
    await exchange.send(b"".join(map(framed, exchange.after)) + LAST)


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
    "JSON that is not a chunk": no_object,
    "invalid UTF-8": bad_utf8,
    "error 500 as an event": error_event,
    "error 503 as an event": overloaded_event,
    "endless": endless,
    "endless heartbeats": heartbeats,
    "torrent": torrent,
}
