"""The clients: each sends one request after the other over its own connection, and judges the answers.

Most of them always have an open stream; a few send all other requests. A client that leaves closes its connection in
the middle of an answer, and continues with a new connection.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from anthro_asgi.bench.client import Connection, Ending

from .judging import Answer, Wrong, judge
from .turns import Turn

_PATIENCE: Final = 90.0  # seconds for any answer; the longest takes 30
_SOON: Final = 0.3  # seconds within which a client leaves that has received nothing
_DIALLING: Final = 64  # connection attempts at once
_KEPT: Final = 20  # wrong answers that are shown in full

Draw = Callable[[Random, bool], Turn]
"""Draws a client's next turn; the flag tells whether it is the first."""


@dataclass(slots=True)
class Tally:
    """The number of turns by kind and outcome, and of wrong answers by their fault."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[Turn, Answer, str]] = field(default_factory=list)
    tokens: int = 0
    open: int = 0

    def note(self, turn: Turn, answer: Answer) -> None:
        """Count an answer that has ended."""
        try:
            self.outcomes[turn.kind, judge(turn, answer)] += 1
        except Wrong as exc:
            self.wrong[f"{turn.kind}, {turn.fault.name}: {exc}"] += 1
            if len(self.samples) < _KEPT:
                self.samples.append((turn, answer, str(exc)))


class _Asking:
    """A Receiver of one answer. `over` is set when it has ended, or when the client leaves."""

    def __init__(self, turn: Turn) -> None:
        self.over = asyncio.Event()
        self.ending: Ending | None = None
        self.tokens = 0
        self._turn = turn
        self._status = 0
        self._type = b""
        self._body = bytearray()

    def headed(self, status: int, content_type: bytes) -> None:
        self._status, self._type = status, content_type

    def took(self, data: bytes, now: int) -> None:
        self._body += data
        self.tokens += data.count(b"event: content_block_delta")
        if self._turn.leaves is not None and 0 < self._turn.leaves <= self.tokens:
            self.over.set()

    def ended(self, ending: Ending, now: int) -> None:
        self.ending = ending
        self.over.set()

    def answer(self) -> Answer:
        return Answer(self._status, self._type, bytes(self._body), self.ending)


class Crowd:
    """All the clients of the service at `host` and `port`. Made inside a running event loop."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self.tally = Tally()
        self._host = host
        self._port = port
        self._seed = seed
        self._dialling = asyncio.Semaphore(_DIALLING)
        self._clients: list[asyncio.Task[None]] = []
        self._closing = False

    def add(self, count: int, draw: Draw, ramp: float) -> None:
        """Add `count` clients whose turns `draw` draws. They start over `ramp` seconds."""
        for number in range(count):
            rng = Random(f"{self._seed} {len(self._clients)}")
            self._clients.append(asyncio.create_task(self._client(draw, rng, ramp * number / count)))

    async def close(self, patience: float) -> None:
        """Send no more requests; cancel clients that need more than `patience` seconds. Raises their errors."""
        self._closing = True
        _, late = await asyncio.wait(self._clients, timeout=patience)
        for client in late:
            client.cancel()
        for done in await asyncio.gather(*self._clients, return_exceptions=True):
            if isinstance(done, Exception):
                raise done

    async def _client(self, draw: Draw, rng: Random, delay: float) -> None:
        await asyncio.sleep(delay)
        connection: Connection | None = None
        first = True
        try:
            while not self._closing:
                turn, first = draw(rng, first), False
                await asyncio.sleep(turn.pause)
                if connection is None or not connection.usable:
                    connection = await self._connect()
                await self._turn(connection, turn, rng)
        finally:
            if connection is not None and connection.usable:
                connection.abort()

    async def _connect(self) -> Connection:
        async with self._dialling:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    async def _turn(self, connection: Connection, turn: Turn, rng: Random) -> None:
        asking = _Asking(turn)
        self.tally.open += 1
        connection.ask(turn.request(f"{self._host}:{self._port}"), asking)
        try:
            async with asyncio.timeout(_SOON * rng.random() if turn.leaves == 0 else _PATIENCE) as patience:
                await asking.over.wait()
        except TimeoutError:
            if turn.leaves != 0:
                self.tally.wrong[f"{turn.kind}, {turn.fault.name}: no end within {_PATIENCE:g} s"] += 1
        finally:
            self.tally.open -= 1
            self.tally.tokens += asking.tokens
            if asking.ending is None:
                connection.abort()
        if not patience.expired() or turn.leaves == 0:
            self.tally.note(turn, asking.answer())
