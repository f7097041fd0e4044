"""The longest time for which the bytes of one client hold the event loop.

A connection class of the service runs on a real socket in this process, and a thread is the hostile client. A ticker
runs in every iteration of the event loop. It reads the CPU time of the loop's thread, so that neither the client nor
other processes of the machine count. The garbage collector is off: its pauses depend on the whole process.

Meanwhile the stream of another client has a token every 20 ms. A timer that is due waits for the current iteration
only, so a token comes at most one hold late: holds of 5 ms keep the stream within 25 ms. That is measured, too: the
median of the times between two tokens, on the wall clock. It shows clients that delay the loop again and again; a
single delay shows as a hold. A maximum would show other processes of the machine, which take the processor for longer.
They only add to a hold and to a gap, so each is the smallest of several repetitions.

    python -m tests.checks.hold                 every attack, with the holds in CPU time and the gaps in wall time
    python -m tests.checks.hold --many          the same from many connections at the same moment
    python -m tests.checks.hold --matrix        the same for each client of the fault matrix
    python -m tests.checks.hold --bodies MIB    request bodies of the hostile shapes of `tests.checks.memory`
    python -m tests.checks.hold --fuzz SECONDS  request bodies and answers that hold the loop for as long as possible
"""

import asyncio
import gc
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from statistics import median
from typing import Any, Final, NamedTuple

import trustme
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from anthro_asgi import MessagesApp, MessagesRequest
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.server.acceptor import Acceptor
from anthro_asgi.server.http_protocol import StrictProtocolMixin, h11_class, protocol_class
from anthro_asgi.server.listeners import Listener
from anthro_asgi.server.read_control import Turns
from anthro_asgi.settings.loader import load_settings
from tests.server.engines import large

BAR: Final = 0.005  # seconds of CPU
LATE: Final = 0.025  # seconds of wall time between two tokens of a stream that has one every 20 ms; their median
REPETITIONS: Final = 3
_MOST: Final = 10  # repetitions, as long as the best ones are beyond the bounds
_LONGEST: Final = 1.0  # seconds for one attack
_SETTINGS: Final = load_settings({}, {})
_METRICS: Final = Metrics(())
_MEMBERS: Final = {"settings": _SETTINGS, "metrics": _METRICS}

PARSERS: Final[dict[str, Callable[[], type[StrictProtocolMixin]]]] = {
    "httptools": lambda: protocol_class(_SETTINGS, _METRICS),
    "h11": lambda: type("H11", (h11_class(),), {**_MEMBERS, "turns": Turns()}),
}
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}

_HOST: Final = b"Host: a\r\n"
_CHUNKED: Final = b"POST %s HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n%s\r\n"
_SIZE: Final = 800_000  # bytes
_KEY: Final = b"x-api-key: secret\r\n"
_HEAD: Final = 30_000  # bytes, below the largest head
ATTACKS: Final[dict[str, bytes]] = {
    "chunks of one byte without a key": _CHUNKED % (b"/v1/messages", b"") + b"1\r\na\r\n" * (_SIZE // 6),
    "chunks of one byte with a key": _CHUNKED % (b"/v1/messages", _KEY) + b"1\r\na\r\n" * (_SIZE // 6),
    "chunks of one byte to no path": _CHUNKED % (b"/nowhere", b"") + b"1\r\na\r\n" * (_SIZE // 6),
    "chunks of eight bytes with a key": _CHUNKED % (b"/v1/messages", _KEY) + b"8\r\naaaaaaaa\r\n" * (_SIZE // 13),
    "chunks with extensions": _CHUNKED % (b"/v1/messages", _KEY) + b"9;a\r\naaaaaaaaa\r\n" * (_SIZE // 16),
    "trailers": _CHUNKED % (b"/v1/messages", _KEY) + b"0\r\n" + b"A:\r\n" * (_SIZE // 4),
    "empty lines": b"\r\n" * (_SIZE // 2),
    "many header fields": b"GET / HTTP/1.1\r\n" + _HOST + b"a:\r\n" * (_HEAD // 4) + b"\r\n",
    "many keys": b"GET /v1/models HTTP/1.1\r\n" + _HOST + b"x-api-key:a\r\n" * 250 + b"\r\n",
    "an endless head": b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (_SIZE // 4),
    "one large field": b"GET / HTTP/1.1\r\n" + _HOST + b"a: " + b"b " * (_HEAD // 2) + b"\r\n\r\n",
    "an escaped target": b"GET /" + b"%41" * (_HEAD // 3) + b" HTTP/1.1\r\n" + _HOST + b"\r\n",
    "pipelined requests": (b"GET / HTTP/1.1\r\n" + _HOST + b"\r\n") * (_SIZE // 27),
    "a body that is not wanted": b"POST /nowhere HTTP/1.1\r\n"
    + _HOST
    + b"Content-Length: 9999999\r\n\r\n"
    + b"a" * _SIZE,
}


RECORDS: Final = 40_000
"""TLS records of one byte that are sent in the attack `tiny TLS records`."""
TINY_RECORDS: Final = "tiny TLS records"
HANDSHAKES: Final = "TLS handshakes"
"""An attack for many connections alone: each begins a handshake, for which the service signs with an RSA key."""
MANY: Final = 60
"""Connections that send an attack at the same moment."""
_PACE: Final = 0.02  # seconds between two tokens of the other client


class Held(NamedTuple):
    """Seconds of CPU of the longest iteration of the event loop, and the `usual_gap` of another client's stream."""

    hold: float
    gap: float

    def or_better(self, other: "Held") -> "Held":
        """The better of two repetitions, in each respect."""
        return Held(min(self.hold, other.hold), min(self.gap, other.gap))

    def is_within_bounds(self, scale: float) -> bool:
        """Whether both are short enough for a machine that is `scale` times slower than a usual one."""
        return self.hold <= BAR * scale and self.gap <= _PACE + (LATE - _PACE) * scale


def longest_hold(parser: str, loop: str, attack: str, scale: float = 1.0, connections: int = 1) -> Held:
    """What a client that sends `attack` does, at best. With several connections, it sends it on all at once."""
    best = Held(inf, inf)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, no_collection():
        for repetition in range(_MOST):
            if repetition < REPETITIONS or not best.is_within_bounds(scale):
                best = best.or_better(runner.run(_attack(PARSERS[parser](), attack, connections)))
    return best


async def _attack(kind: type[asyncio.Protocol], attack: str, connections: int) -> Held:
    sent = _client_hello() if attack == HANDSHAKES else ATTACKS.get(attack, b"")
    app = MessagesApp(large, keys=("secret",))
    config = Config(app, http=kind, ws="none", interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = Listener(socket.create_server(("127.0.0.1", 0)))
    acceptor = Acceptor(
        [listener],
        lambda: kind(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]  # uvicorn's classes
        _server_tls() if attack in (TINY_RECORDS, HANDSHAKES) else None,
        5.0,
    )
    acceptor.open()
    gaps: list[float] = []
    other = loop.create_task(paced_stream(gaps))
    await asyncio.sleep(0)
    ticker = Ticker(loop)
    address = listener.sock.getsockname()
    if connections > 1:
        await asyncio.to_thread(_send_at_once, address, sent, connections)
        gaps.clear()  # so many clients in a thread of this process take the GIL for longer than the service does
    elif attack == TINY_RECORDS:
        await asyncio.to_thread(_send_records, address)
    else:
        await asyncio.to_thread(_send, address, sent)
    await asyncio.sleep(3 * _PACE)  # the other client has had some tokens
    ticker.stop()
    acceptor.close_now()
    other.cancel()
    await asyncio.wait({other})
    for connection in list(state.connections):
        connection.transport.abort()
    if state.tasks:
        await asyncio.wait(state.tasks)
    return Held(ticker.longest, usual_gap(gaps))


def usual_gap(gaps: list[float]) -> float:
    """The median of these seconds; 0 if there are none."""
    return median(gaps) if gaps else 0.0


async def paced_stream(gaps: list[float]) -> None:
    """Another client's stream on the same loop; notes the seconds between two sends."""

    async def engine(request: MessagesRequest) -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(_PACE)
            yield "token "

    body = b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    last = 0.0

    async def receive() -> dict[str, Any]:
        nonlocal body
        piece, body = body, b""
        if not piece:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        if last:
            gaps.append(now - last)
        last = now

    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "query_string": b"", "headers": []}
    await MessagesApp(engine)(scope, receive, send)


def _send(address: tuple[str, int], sent: bytes) -> None:
    """Send everything, until the service hangs up or the time is over, and read what it says."""
    end = time.monotonic() + _LONGEST
    with socket.create_connection(address) as client, suppress(OSError):
        client.settimeout(_LONGEST)
        client.sendall(sent)
        client.settimeout(0.2)
        while client.recv(65536) and time.monotonic() < end:
            pass


def _send_at_once(address: tuple[str, int], sent: bytes, connections: int) -> None:
    """Send the same on many connections at the same moment, as much as the kernel takes, and read what they get."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(connections)]
        for client in clients:
            client.setblocking(False)
        for client in clients:
            with suppress(OSError):
                client.send(sent)
        end = time.monotonic() + _LONGEST
        while time.monotonic() < end and (readable := select.select(clients, (), (), 0.2)[0]):
            for client in readable:
                with suppress(OSError):
                    if not client.recv(65536):
                        clients.remove(client)


_AUTHORITY: Final = trustme.CA()


def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _AUTHORITY.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).configure_cert(context)
    return context


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def _send_records(address: tuple[str, int]) -> None:
    """Send a body of which each byte is a record. The records are encrypted first, and then sent at once."""
    context = ssl.create_default_context()
    _AUTHORITY.configure_trust(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(address) as client, suppress(OSError):
        client.settimeout(_LONGEST)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(65536))
        session.write(b"POST /v1/messages HTTP/1.1\r\n" + _HOST + _KEY + b"Content-Length: %d\r\n\r\n" % (RECORDS + 1))
        for _byte in range(RECORDS):
            session.write(b"a")
        client.sendall(outgoing.read())
        client.settimeout(0.2)
        client.recv(65536)


class Ticker:
    """Runs in each iteration of `loop`, and keeps the largest CPU time of one: `longest`, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.longest = 0.0
        self._loop = loop
        self._last = time.thread_time()
        self._handle = loop.call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()

    def _tick(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._tick)


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection runs: its pauses depend on the whole process."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
