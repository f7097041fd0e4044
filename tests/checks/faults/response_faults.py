"""Faults of the engine that concern the whole response: bad heads, error statuses, wrong bodies."""

import asyncio
import gzip
import json
from collections.abc import Iterable
from functools import partial
from typing import Final
from weakref import WeakSet

from tests.checks.faults.healthy_response import CANARY, Json, content
from tests.checks.faults.stream_faults import HEAD, LAST, Exchange, Fault
from tests.support.upstream import Wire, raw_answer

UPSTREAM_KEY: Final = f"sk-{CANARY}-upstream"
REJECTED: Final = (
    *(400, 402, 405, 406, 407, 409, 410, 411, 412, 414, 415, 416, 417, 418),
    *(421, 422, 423, 424, 425, 426, 428, 431, 451, 499),
)
FAILED: Final = (500, 501, 505, 506, 507, 508, 510, 511, 520, 521, 522, 523, 524, 525, 599)
REDIRECTED: Final = (300, 301, 302, 303, 307, 308)
BODILESS: Final = (204, 205, 304)
OTHERS: Final = (201, 206, 401, 403, 404, 408, 413, 429, 502, 503, 504, 529)
RETRY_AFTER: Final = 7  # seconds
MOST_OF_USER: Final = 8  # characters
_WORDS: Final = f"engine words, and {UPSTREAM_KEY}"  # some engines quote the key
_ERROR: Final = json.dumps({"type": "error", "error": {"type": "engine_error", "message": _WORDS}}).encode()
_JSON: Final = ("content-type", "application/json")


def _head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return (
        b"\r\n".join([start, *lines, b"content-type: text/event-stream", b"transfer-encoding: chunked"]) + b"\r\n\r\n"
    )


# Bad heads. A healthy body follows, and then the end of the connection.
HEADS: Final[dict[str, bytes]] = {
    "status line: bytes": bytes(range(256)),
    "status line: a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "status line: SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "status line: HTTP/2": b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00",
    "status line: none": b"",
    "status line: no status": _head(start=b"HTTP/1.1 "),
    "status line: letters": _head(start=b"HTTP/1.1 abc OK"),
    "status line: version 9.9": _head(start=b"HTTP/9.9 200 OK"),
    "status line: status 99": _head(start=b"HTTP/1.1 99 OK"),
    "headers: no colon": _head(b"gibberish"),
    "headers: no name": _head(b": nameless"),
    "headers: NUL": _head(b"x-nul: a\x00b"),
    "headers: two lengths": _head(b"content-length: 9", b"content-length: 10"),
    "headers: the same length twice": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "headers: chunked twice": _head(b"transfer-encoding: chunked"),
    "headers: folded": _head(b"x-a: b\r\n folded"),
    "headers: a line that ends with LF": _head(b"x-a: b\nx-c: d"),
    "headers: length and chunks": _head(b"content-length: 9"),
    "headers: negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "headers: length in words": b"HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n",
    "headers: length beyond 64 bit": b"HTTP/1.1 200 OK\r\ncontent-length: 1" + b"0" * 30 + b"\r\n\r\n",
    "headers: unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: rot13\r\n\r\n",
    "oversized: one header": _head(b"x-large: " + b"x" * 100_000),
    "oversized: many headers": _head(*(b"x-many-%d: x" % number for number in range(10_000))),
    "101 switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
}
# Unusual heads that the service must accept.
FORGIVEN: Final[dict[str, bytes]] = {
    "100, 102, 103 before it": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + HEAD,
    "an event stream called text/plain": HEAD.replace(b"text/event-stream", b"text/plain"),
    "an event stream without a type": HEAD.replace(b"content-type: text/event-stream\r\n", b""),
}


async def _after_head(head: bytes, exchange: Exchange) -> None:
    await exchange.send(head + exchange.answer.removeprefix(HEAD))
    exchange.wire.close()


def _whole(status: int, kind: str, body: bytes, *fields: tuple[str, str]) -> Fault:
    body = b"" if status in BODILESS else body
    length = [] if status in (204, 304) else [("content-length", str(len(body)))]
    data = raw_answer(status, [("content-type", kind), *length, *fields], body)

    async def respond(exchange: Exchange) -> None:
        await exchange.send(data)

    return respond


def _status(status: int) -> Fault:
    fields = [("location", f"http://{CANARY}.invalid/")] if status // 100 == 3 else [("retry-after", str(RETRY_AFTER))]
    return _whole(status, "application/json", _ERROR, *fields)


# bodies


async def json_message(exchange: Exchange) -> None:
    """One JSON value in answer to a streaming request."""
    text = content("")[0]["text"]
    if exchange.api == "messages":
        value: Json = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
        value |= {"content": content(""), "stop_reason": "end_turn", "usage": {"input_tokens": 7, "output_tokens": 5}}
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        value = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    await _whole(200, "application/json", json.dumps(value).encode())(exchange)


async def compressed(exchange: Exchange) -> None:
    body = gzip.compress(b"".join(exchange.before + exchange.after))
    await _whole(200, "text/event-stream", body, ("content-encoding", "gzip"))(exchange)


async def two_answers(exchange: Exchange) -> None:
    """A second response that must not reach the next client."""
    await exchange.send(exchange.answer + raw_answer(200, [_JSON, ("content-length", "2")], b"{}"))


async def surplus(exchange: Exchange) -> None:
    """Bytes a few milliseconds after the end of its answer, and nothing more."""
    await exchange.send(exchange.answer)
    await asyncio.sleep(0.005)
    await exchange.send(_SURPLUS)
    await exchange.wire.gone()


async def one_behind(exchange: Exchange) -> None:
    """An error before each answer but the first on a connection: each client would get the answer to the one before."""
    if exchange.wire in _BEHIND:
        await exchange.send(_SURPLUS)
        await asyncio.sleep(0.05)  # the next request arrives meanwhile, if it comes on this connection
    _BEHIND.add(exchange.wire)
    await exchange.send(exchange.answer)


async def in_close_delimited(exchange: Exchange) -> None:
    head = raw_answer(200, [("content-type", "text/event-stream")]).replace(b"HTTP/1.1", b"HTTP/1.0")
    await exchange.send(head + b"".join(exchange.before + exchange.after))
    exchange.wire.close()


async def trailers(exchange: Exchange) -> None:
    await exchange.send(exchange.answer.removesuffix(LAST) + b"0\r\nx-trailer: a\r\nx-other: b\r\n\r\n")


async def endless_trailers(exchange: Exchange) -> None:
    await exchange.send(exchange.answer.removesuffix(LAST) + b"0\r\n")
    await exchange.repeat_forever(b"x-trailer: " + b"x" * 1000 + b"\r\n")


async def endless_extension(exchange: Exchange) -> None:
    await exchange.send(HEAD + b"5;x=")
    await exchange.repeat_forever(b"x" * 8000)


async def endless_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    await exchange.repeat_forever(b"x-more: " + b"x" * 8000 + b"\r\n")


async def endless_interim(exchange: Exchange) -> None:
    await exchange.repeat_forever(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 400)


async def slow_interim(exchange: Exchange) -> None:
    """Interim responses, too few to exceed a limit."""
    await exchange.repeat_forever(b"HTTP/1.1 102 Processing\r\n\r\n")


async def stale(exchange: Exchange) -> None:
    """Closes an idle connection when the next request arrives on it."""
    if exchange.wire.sent:
        exchange.wire.close()
    else:
        await exchange.send(exchange.answer)


# error bodies


async def _error_then(end: str, exchange: Exchange) -> None:
    await exchange.send(raw_answer(503, [_JSON, ("content-length", "9999999")], _ERROR[:20]))
    if end == "closed":
        exchange.wire.close()
    elif end == "stalled":
        await exchange.wire.gone()
    else:
        await exchange.repeat_forever(b" " * 4000)


async def delayed(fault: Fault, exchange: Exchange) -> None:
    """The fault after a delay in which the service has sent a ping."""
    await asyncio.sleep(0.2)
    await fault(exchange)


_SURPLUS: Final = raw_answer(500, [_JSON, ("content-length", str(len(_ERROR)))], _ERROR)
_BEHIND: Final[WeakSet[Wire]] = WeakSet()  # connections that have had a response of `one_behind`


async def refuses_value(exchange: Exchange) -> None:
    """Accepts a `user` of at most eight characters."""
    if len(json.loads(exchange.wire.body).get("user", "")) <= MOST_OF_USER:
        return await exchange.send(exchange.answer)
    words = f"Invalid 'user': string too long. Expected a string with maximum length {MOST_OF_USER}."
    body = json.dumps({"error": {"message": words, "type": "invalid_request_error", "param": "user"}}).encode()
    return await _whole(400, "application/json", body)(exchange)


def _each(faults: Iterable[tuple[str, Fault]]) -> dict[str, Fault]:
    return dict(faults)


ANSWERS: Final[dict[str, Fault]] = {
    **{name: partial(_after_head, head) for name, head in (HEADS | FORGIVEN).items()},
    **{f"status {code}": _status(code) for code in (*REJECTED, *FAILED, *REDIRECTED, *BODILESS, *OTHERS)},
    "error body: closed": partial(_error_then, "closed"),
    "error body: stalled": partial(_error_then, "stalled"),
    "error body: endless": partial(_error_then, "endless"),
    "HTML": _whole(200, "text/html", b"<!doctype html><html><body>" + CANARY.encode() + b"</body></html>"),
    "HTML called an event stream": _whole(200, "text/event-stream", b"<!doctype html><html></html>\n\n"),
    "plain text": _whole(200, "text/plain", b"OK\n"),
    "a picture": _whole(200, "image/png", bytes(range(256)) * 40),
    "nothing": _whole(200, "text/event-stream", b""),
    "JSON cut short": _whole(200, "application/json", b'{"choices": [{'),
    "JSON of another kind": _whole(200, "application/json", b'{"status": "ok"}'),
    "JSON that is too large": _whole(200, "application/json", b'{"x": "' + b"x" * 300_000 + b'"}'),
    "an error as JSON, with 200": _whole(200, "application/json", _ERROR),
    "compressed": compressed,
    "a whole JSON answer": json_message,
    "HTTP/1.0, ended by its close": in_close_delimited,
    "trailers": trailers,
    "closed while idle": stale,
    "two answers to one request": two_answers,
    "endless trailers": endless_trailers,
    "endless chunk extension": endless_extension,
    "endless head": endless_head,
    "endless 1xx": endless_interim,
    "slow 1xx without an end": slow_interim,
    "bytes a few milliseconds after its answer": surplus,
    "an error before each answer but its first": one_behind,
    "a value that it refuses": refuses_value,
}
