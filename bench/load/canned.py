"""A server of the Messages API or of chat completions that sends bytes made beforehand, for this program's own ceiling.

    python -m bench.load.canned --together N

Each write has N tokens. It sends until the request's `max_tokens` are out, as fast as they are read, and prints
`listening on URL` first. It is no engine: no two answers differ.
"""

import argparse
import asyncio
import signal
import sys
from time import monotonic_ns
from typing import Any, Final

import httptools
import orjson
import uvloop

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_START: Final = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{}}\n\n'
_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _events(chat: bool) -> tuple[bytes, bytes, bytes]:
    """What comes before the tokens, one token, and what comes after."""
    text = b" %d" % monotonic_ns()  # looks like the scripted engine's, and is read like it
    if chat:
        return b"", b'data: {"choices":[{"index":0,"delta":{"content":"' + text + b'"}}]}\n\n', b"data: [DONE]\n\n"
    event = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"' + text + b'"}}'
    return _START, b"event: content_block_delta\ndata: " + event + b"\n\n", _STOP


class Canned(asyncio.Protocol):
    """One connection, one request at a time."""

    together = 1

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""
        self._block = self._last = b""
        self._left = 0
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = 0
        self._parser = None

    def pause_writing(self) -> None:
        self._held = True

    def resume_writing(self) -> None:
        self._held = False
        self._loop.call_soon(self._more)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        tokens = orjson.loads(self._body)["max_tokens"]
        self._body = b""
        first, event, last = _events(self._url.endswith(b"completions"))
        self._left = max(1, tokens // self.together)
        self._block = _chunk(event) * self.together
        self._last = _chunk(last) + b"0\r\n\r\n"
        self._transport.write(_HEAD + (_chunk(first) if first else b""))
        self._loop.call_soon(self._more)

    def _more(self) -> None:
        # One write a turn of the loop: the transport joins what is written in the same.
        if self._held or not self._left:
            return
        self._left -= 1
        self._transport.write(self._block)
        if self._left:
            self._loop.call_soon(self._more)
        else:
            self._transport.write(self._last)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Canned, "127.0.0.1", 0)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.load.canned")
    parser.add_argument("--together", type=int, default=1, help="tokens a write")
    Canned.together = parser.parse_args().together
    uvloop.run(_serve())
    sys.exit(0)
