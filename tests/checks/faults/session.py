"""One client of the matrix: its connections to the service, and what it can see of the engine."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from tests.checks.faults.bad_engine import BadEngine
from tests.checks.faults.client import Answer, Client, body_of, outcome, request_of
from tests.checks.faults.service import ServiceThread
from tests.checks.faults.service_process import ServiceProcess

_BOUND: Final = 15.0  # seconds within which a service on a busy machine releases a client that left
_LARGE: Final = 1 << 20  # bytes of a body that is read in a thread


class ClientSession:
    """The connections of one client. `streams`: it asks for streams. `model` selects the fault of the engine."""

    def __init__(self, service: ServiceThread | ServiceProcess, engine: BadEngine, model: str, streams: bool) -> None:
        self.service = service
        self.engine = engine
        self.model = model
        self.streams = streams
        self.answers: list[Answer] = []
        self._clients: list[Client] = []
        self._logged = len(service.log)
        self._asked = len(engine.requests)

    async def open(self, data: bytes = b"", *, rcvbuf: int | None = None) -> Client:
        """Open a connection and send `data`."""
        client = Client(self.service, rcvbuf)
        self._clients.append(client)
        await client.connect()
        if data:
            await client.send(data)
        return client

    def body(self, model: str | None = None, **fields: Any) -> bytes:
        return body_of(model or self.model, fields.pop("stream", self.streams), **fields)

    def request(self, model: str | None = None, **fields: Any) -> bytes:
        return request_of(self.body(model, **fields))

    async def outcome_of(self, data: bytes) -> str:
        """Send `data` on a new connection, and return the outcome."""
        client = await self.open()
        with suppress(ConnectionError):  # the response may come before all is sent
            await client.send(data)
        return await self.read_outcome(client)

    async def read_outcome(self, client: Client, method: str = "POST") -> str:
        answer = await client.answer(method)
        self.answers.append(answer)
        if len(answer.body) < _LARGE:
            answer.outcome = outcome(answer, self.service)
        else:  # this takes up to seconds, in which the engines, on this event loop, would not respond
            answer.outcome = await asyncio.to_thread(outcome, answer, self.service)
        return answer.outcome

    async def start_request(self, *, rcvbuf: int | None = None, requests: int = 1, **fields: Any) -> Client:
        """Open a connection, send a request, and wait until it has reached the engine."""
        client = await self.open(self.request(**fields), rcvbuf=rcvbuf)
        await self.engine.until(lambda: len(self.engine.requests) >= self._asked + requests)
        return client

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log lines of its requests."""
        return [line for line in self.service.log[self._logged :] if line["event"] == "request"]

    async def wait_until_released(self, left: int = 1, held: int = 0) -> str:
        """Wait until the log has `left` clients that left, and the service has `held` engine connections in use."""

        def noticed() -> bool:
            gone = [line for line in self.lines if line.get("client_left")]
            return len(gone) >= left and self.engine.open <= self.service.idle + held

        await self.engine.until(noticed, within=_BOUND)
        async with asyncio.timeout(_BOUND):
            for client in self._clients:
                if client.sending_ended:
                    await client.ended()
        return "released"

    def close(self) -> None:
        for client in self._clients:
            client.close()
