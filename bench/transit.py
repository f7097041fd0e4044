"""`python -m bench transit`: how long a token is on its way through the thread of the native path, and through a relay.

This process writes a token as the engine, reads it as the client, and waits a moment, as in a paced stream. So a token
waits for nothing but the two hops. The thread converts it; the byte relay (`relay.py`, in a process of its own) passes
it on. Both get tokens in turn, so that a disturbance of the machine affects both. *added* is the difference of their
medians in a turn: what the thread adds to a relay that parses nothing.
"""

import argparse
import socket
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from anthro_asgi._native import Pump, new_pump, new_thread
from anthro_asgi.bench.options import positive

from .peers.harness import pause
from .process import serving

BAR: Final = 5e-6  # seconds that the thread may add
_ROUNDS: Final = 12
_TOKENS: Final = 200  # of a turn
_BETWEEN: Final = 0.0015  # seconds between two tokens: with less, the stream of the thread would be a fast one
_PATIENCE: Final = 20.0  # seconds
_BEFORE: Final = (
    b'data: {"id":"chatcmpl-3f8c9a","object":"chat.completion.chunk","created":1764500000,"model":"scripted",'
    b'"choices":[{"index":0,"delta":{"content":'
)
_AFTER: Final = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_FRAME: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":',
    b"}}\n\n",
)
_EVENT: Final = _BEFORE + b'" token"' + _AFTER
_TOKEN: Final = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)


class Way:
    """Two sockets, `engine` and `client`, with a server between them. `size` is the number of bytes of a token."""

    def __init__(self, engine: socket.socket, client: socket.socket, size: int) -> None:
        self._engine = engine
        self._client = client
        self._size = size

    def transit(self) -> float:
        """The seconds that one token takes."""
        began = perf_counter()
        self._engine.sendall(_TOKEN)
        left = self._size
        while left:
            left -= len(self._client.recv(left))
        return perf_counter() - began


class _Owner:
    """Takes what the pump reports. The thread returns the stream only at the end."""

    def __init__(self) -> None:
        self.pump: Pump | None = None

    def sync(self) -> None:
        if self.pump is not None:
            self.pump.take()

    def hand_back(self, data: bytes) -> None:
        raise AssertionError("the thread has returned a steady stream")

    def connection_lost(self, error: Exception | None) -> None:
        raise AssertionError("a thread has no transport")

    def slow_down(self) -> None:
        raise AssertionError("a thread has no transport")

    eof_received = pause_writing = resume_writing = slow_down


def _connected(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = stack.enter_context(socket.create_connection(server.getsockname()))
        theirs = stack.enter_context(server.accept()[0])
    _prepare(ours, theirs)
    return ours, theirs


def _prepare(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_PATIENCE)


@contextmanager
def through_thread() -> Iterator[tuple[Way, Callable[[], None]]]:
    """A way through the thread, and a function that takes what it has noted. Raises SystemExit without the module."""
    if new_pump is None or new_thread is None:
        sys.exit("the extension module of the native path is not built here")
    with ExitStack() as stack:
        engine, up = _connected(stack)
        client, down = _connected(stack)
        thread, owner = new_thread(), _Owner()
        stack.callback(thread.close)
        pump = new_pump(owner, None, down.sendall, lambda: 0, lambda: False, down.fileno())
        pump.arm(_BEFORE, _AFTER, b"", *_FRAME, 1 << 20)
        size = len(pump.convert(_TOKEN)[1])
        if not pump.leave_to(thread, up.fileno()):
            sys.exit("the system has no descriptor or memory left")
        owner.pump = pump
        stack.callback(pump.disarm)
        yield Way(engine, client, size), thread.collect


@contextmanager
def through_relay() -> Iterator[Way]:
    """A way through the byte relay."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        host, port = server.getsockname()
        command = [sys.executable, "-m", "bench.relay", f"{host}:{port}"]
        url, _ = stack.enter_context(serving(command))
        address = urlsplit(url)
        client = stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
        client.sendall(b"x")  # it connects to the engine, and passes this on
        server.settimeout(_PATIENCE)
        engine = stack.enter_context(server.accept()[0])
        _prepare(engine, client)
        engine.recv(1)
        yield Way(engine, client, len(_TOKEN))


def measure(rounds: int = _ROUNDS, tokens: int = _TOKENS) -> tuple[list[float], list[float]]:
    """For each round, the median seconds of a token through the thread, and through the relay."""
    found: tuple[list[float], list[float]] = ([], [])
    with through_thread() as (thread, collect), through_relay() as relay:
        for number in range(rounds + 1):
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(tokens):
                for way, took in zip((thread, relay), times, strict=True):
                    pause(_BETWEEN)
                    took.append(way.transit())
            collect()
            if number:  # the first round warms up
                for medians, took in zip(found, times, strict=True):
                    medians.append(statistics.median(took))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--rounds", type=positive, default=_ROUNDS, help=f"turns of each way (default {_ROUNDS})")


def main(options: argparse.Namespace) -> int:
    """Measure and print."""
    thread, relay = measure(options.rounds)
    added = [one - other for one, other in zip(thread, relay, strict=True)]
    for name, times in (("thread", thread), ("byte relay", relay), ("added", added)):
        low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        print(f"{name:<10} p50 {middle * 1e6:7.1f} µs ({low * 1e6:.1f} to {high * 1e6:.1f} µs in {len(times)} turns)")
    print(f"bar: the thread adds {BAR * 1e6:.0f} µs to the relay at most: {_verdict(added)}")
    return 0


def _verdict(added: list[float]) -> str:
    return "met" if statistics.median(added) <= BAR else "not met"
