"""`python -m tests.checks.soak.engine`: the scripted engine, which also commits the faults that prompts ask for.

The first line on stdout is `listening on http://HOST:PORT`. Each stream writes `--rate` tokens a second. An idle
connection is closed after `--rest` seconds without notice, as servers do.
"""

import argparse
import asyncio
import gc
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

import orjson
import uvloop

from anthro_asgi.bench.processes import many_files
from bench.scripted import styles
from bench.scripted.serving import Engine, Settings, Stream, Wire

from .faults import NONE, Fault, asked

_BACKLOG: Final = 4096
_TOKENIZE: Final = b"/tokenize"
_MODELS: Final = b"/models"
_SLOW: Final = 3.0  # seconds; the deadline of the service for the first byte is 5
_STATUSES: Final = {"bad-request": 400, "too-many": 429, "failure": 500, "away": 503}
_PAGE: Final = b"<!DOCTYPE html><html><body>It works!</body></html>"


class SoakEngine(Engine):
    """Closes idle connections after `rest` seconds. With `slow_lists` every second model list takes seconds."""

    def __init__(self, settings: Settings, rest: float, *, slow_lists: bool = False) -> None:
        super().__init__(settings)
        self.rest = rest
        self.slow_lists = slow_lists
        self.lists = 0

    def delay(self, path: bytes) -> float:
        """Seconds before the answer to a request."""
        if not self.slow_lists or not path.endswith(_MODELS):
            return 0.0
        self.lists += 1
        return _SLOW if self.lists % 2 == 0 else 0.0

    def connect(self) -> "Faulty":
        return Faulty(self)


class _Faulting(Stream):
    """Commits the fault of its connection after `after` tokens."""

    __slots__ = ("_after", "_go_wrong")

    def __init__(
        self, wire: "Faulty", script: styles.Script, tokens: int, usage: bool, after: int, go_wrong: Callable[[], None]
    ) -> None:
        super().__init__(wire, script, tokens, usage)
        self._after = after
        self._go_wrong = go_wrong

    def step(self) -> None:
        if self._after:
            self._after -= 1
            super().step()
        else:
            self.done = True
            self._go_wrong()


class Faulty(Wire):
    """One connection."""

    def __init__(self, engine: SoakEngine) -> None:
        super().__init__(engine)
        self._idle_for = engine.rest
        self._delay = engine.delay
        self._fault: tuple[Fault, int] = (NONE, 0)
        self._timer: asyncio.TimerHandle | None = None

    # ---- idle connections

    def _next(self) -> None:
        self._stay()
        if self._asked[0][1] == _TOKENIZE:
            _, _, body, self._keep, self._bare = self._asked.pop(0)
            self._send(200, orjson.dumps({"count": max(1, len(body) // 4), "max_model_len": 131072, "tokens": []}))
        elif delay := self._delay(self._asked[0][1]):
            self._timer = asyncio.get_running_loop().call_later(delay, super()._next)
        else:
            super()._next()

    def answered(self, last: bytes) -> None:
        super().answered(last)
        if not self._busy and not self.transport.is_closing():
            self._timer = asyncio.get_running_loop().call_later(self._idle_for, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay()
        super().connection_lost(exc)

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- faults

    def _complete(self, body: bytes) -> None:
        self._fault = fault, _ = asked(body)
        if fault.early:
            self._fail(fault.name)
        else:
            super()._complete(body)

    def _streaming(self, script: styles.Script, tokens: int, usage: bool) -> Stream:
        fault, after = self._fault
        if fault is NONE:
            return super()._streaming(script, tokens, usage)

        def go_wrong() -> None:
            self._go_wrong(fault.name, script, usage)

        return _Faulting(self, script, tokens, usage, after, go_wrong)

    def _fail(self, name: str) -> None:
        """Instead of an answer."""
        match name:
            case "mute":
                pass
            case "refuse":
                self._reset()
            case "hang-up":
                self.transport.close()
            case "no-http":
                self.transport.write(b"SSH-2.0-soak\r\n\r\n")
                self.transport.close()
            case "html":
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
                self.answered(head % len(_PAGE) + _PAGE)
            case _:
                error = {"message": "as it was asked to", "type": "soak", "code": _STATUSES[name]}
                self._send(_STATUSES[name], orjson.dumps({"error": error}))

    def _go_wrong(self, name: str, script: styles.Script, usage: bool) -> None:
        """In the middle of an answer."""
        write = self.transport.write
        match name:
            case "stall":
                pass
            case "reset":
                self._reset()
            case "cut":
                self.transport.close()
            case "bad-chunk":
                write(b"zz\r\n")
            case "no-json":
                self.answered(_chunk(b'data: {"choices":[{"delta":\n\n') + b"0\r\n\r\n")
            case "told":
                self.answered(_chunk(b'data: {"error":{"message":"soak","code":503}}\n\n') + b"0\r\n\r\n")
            case "unfinished":
                self.answered(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            case "no-end":
                write(script.ending(usage).removesuffix(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"))
            case "extra":
                write(script.ending(usage) + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
                self.transport.close()

    def _reset(self) -> None:
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    engine = SoakEngine(Settings(styles.VLLM, rate=options.rate), options.rest, slow_lists=options.slow_lists)
    server = await loop.create_server(engine.connect, "127.0.0.1", 0, backlog=_BACKLOG)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    gc.freeze()
    try:
        await stop.wait()
    finally:
        engine.pace.close()
        server.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.checks.soak.engine", description="Scripted engine.")
    parser.add_argument("--rate", type=float, default=5.0, help="tokens/s of each stream (default 5)")
    parser.add_argument("--rest", type=float, default=3.0, help="idle seconds before a close (default 3)")
    parser.add_argument("--slow-lists", action="store_true", help="take seconds for every second model list")
    return parser.parse_args()


if __name__ == "__main__":
    many_files()
    uvloop.run(_serve(_options()))
    sys.exit(0)
