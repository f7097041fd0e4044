"""The application, called in this process, with an engine that plays recorded answers on a real socket."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from anthro_asgi import MessagesApp
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.upstream.origin import Origin
from tests.replay import Case, cases
from tests.replay.asking import messages_request
from tests.support.upstream import ScriptedUpstream, Wire, fragmented, framed, json_answer

Json = dict[str, Any]
CHAT = "POST /v1/chat/completions"
EVENTS_A_CHUNK = {"llamacpp": 3}  # one for the other engines
NOT_FOUND = json_answer(404, {"detail": "Not Found"})


class Replay:
    """Plays one case. `asked` holds the chat requests that the engine received, as JSON."""

    def __init__(self, engine: str) -> None:
        (listed,) = cases(engine.removesuffix("-noreason"), request="GET /v1/models")
        self._listed = as_bytes(listed)
        self._closes_after_list = listed.framing == "close"
        self._answer = b""
        self._cuts: Iterable[int] = ()
        self._closes = False
        self.app: MessagesApp
        self.driver: Driver
        self.asked: list[Json] = []

    def play(self, case: Case, cuts: Iterable[int] = ()) -> None:
        """From now on the engine answers with `case`, cut into several writes at `cuts`."""
        self._answer, self._cuts = as_bytes(case), cuts
        self._closes = case.end != "complete" or case.framing == "close"

    async def ask(self, case: Case, *, stream: bool, **more: Any) -> Response:
        """The service's answer to the case's request; `more` goes over it."""
        body = json.dumps({**messages_request(case), "stream": stream, **more}).encode()
        return await self.driver.request("POST", "/v1/messages", body=body)

    async def answer(self, wire: Wire) -> None:
        if wire.target == "/v1/models":
            await wire.send(self._listed)
            if self._closes_after_list:
                wire.close()
        elif wire.target == "/v1/chat/completions":
            self.asked.append(json.loads(wire.body))
            await fragmented(self._answer, self._cuts)(wire)
            if self._closes:
                wire.close()
        else:
            await wire.send(NOT_FOUND)


@asynccontextmanager
async def replaying(case: Case, cuts: Iterable[int] = (), **options: Any) -> AsyncIterator[Replay]:
    """The service over the engine of this case, which it has found out about by itself. `options` are the engine's."""
    replay = Replay(case.engine)
    replay.play(case, cuts)
    async with ScriptedUpstream(replay.answer) as upstream:
        engine = OpenAIEngine(Origin.parse(f"{upstream.url}/v1"), **options)
        replay.app = MessagesApp(engine)
        replay.driver = Driver(replay.app)
        async with replay.driver.lifespan():
            yield replay
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"


def as_bytes(case: Case) -> bytes:
    """The whole response, framed as it was; one that broke off lacks its last chunk."""
    kind = case.content_type or "application/json"
    answer = framed(case.status, [("content-type", kind)], _pieces(case), case.framing)
    return answer if case.end == "complete" else answer.removesuffix(b"0\r\n\r\n")


def _pieces(case: Case) -> list[bytes]:
    if not case.streamed:
        return [case.content]
    events = [event + b"\n\n" for event in case.content.split(b"\n\n") if event]
    count = EVENTS_A_CHUNK.get(case.engine, 1)
    return [b"".join(events[start : start + count]) for start in range(0, len(events), count)]


def event_ends(case: Case) -> list[int]:
    """Where the events of the response end, for each to be a write of its own."""
    answer = as_bytes(case)
    return [match.end() for match in re.finditer(rb"\n\n", answer)]
