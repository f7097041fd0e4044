"""What a client of the matrix has in hand: a house, its engine, and sockets that are closed behind it."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from tests.checks.faults.acting import Engine
from tests.checks.faults.command import Command
from tests.checks.faults.guest import Answer, Guest, body_of, outcome, request_of
from tests.checks.faults.house import House

_BOUND: Final = 1.5  # seconds within which one who left is noticed and let go


class Visit:
    """One client's stay. `streams` says what it asks for, `model` which fault its engine shall have."""

    def __init__(self, house: House | Command, engine: Engine, model: str, streams: bool) -> None:
        self.house = house
        self.engine = engine
        self.model = model
        self.streams = streams
        self.answers: list[Answer] = []
        self._guests: list[Guest] = []
        self._logged = len(house.log)
        self._asked = len(engine.requests)

    async def enter(self, data: bytes = b"", *, rcvbuf: int | None = None) -> Guest:
        """A new connection, and the first that it says."""
        guest = Guest(self.house, rcvbuf)
        self._guests.append(guest)
        await guest.connect()
        if data:
            await guest.send(data)
        return guest

    def body(self, model: str | None = None, **fields: Any) -> bytes:
        return body_of(model or self.model, fields.pop("stream", self.streams), **fields)

    def request(self, model: str | None = None, **fields: Any) -> bytes:
        return request_of(self.body(model, **fields))

    async def say(self, data: bytes) -> str:
        """Say it on a connection of its own, and what comes of it."""
        guest = await self.enter()
        with suppress(ConnectionError):  # an answer that does not wait for all of it
            await guest.send(data)
        return await self.hear(guest)

    async def hear(self, guest: Guest, method: str = "POST") -> str:
        answer = await guest.answer(method)
        self.answers.append(answer)
        answer.told = outcome(answer, self.house)
        return answer.told

    async def asks(self, *, rcvbuf: int | None = None, requests: int = 1, **fields: Any) -> Guest:
        """A connection whose request has reached the engine."""
        guest = await self.enter(self.request(**fields), rcvbuf=rcvbuf)
        await self.engine.until(lambda: len(self.engine.requests) >= self._asked + requests)
        return guest

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of its requests, in the log."""
        return [line for line in self.house.log[self._logged :] if line["event"] == "request"]

    async def let_go(self, left: int = 1, held: int = 0) -> str:
        """Wait until the service has noticed that so many left, and of the engine holds so much and no more."""

        def noticed() -> bool:
            gone = [line for line in self.lines if line.get("client_left")]
            return len(gone) >= left and self.engine.open <= self.house.idle + held

        await self.engine.until(noticed, within=_BOUND)
        async with asyncio.timeout(_BOUND):
            for guest in self._guests:
                if guest.listens:
                    await guest.ended()
        return "let go"

    def leave(self) -> None:
        for guest in self._guests:
            guest.close()
