"""The bad engine: a server whose fault is chosen by the model name of each request."""

import json
import ssl as tls
from functools import partial
from typing import Final

from tests.checks.faults.response_faults import ANSWERS, delayed
from tests.checks.faults.stream_faults import PHASED, Exchange, Fault, healthy
from tests.support.upstream import ScriptedUpstream, Wire, json_answer

FAULTS: Final[dict[str, Fault]] = {"healthy": healthy, **PHASED, **ANSWERS}
LATER: Final = "later: "  # prefix of a model name: the fault comes after a delay, so that the service has sent a ping
_MODELS: Final = json_answer(200, {"data": [{"type": "model", "id": "m", "display_name": "m"}], "has_more": False})


class BadEngine(ScriptedUpstream):
    """`answering` is the number of connections on which a request is being answered."""

    def __init__(self, ssl: tls.SSLContext | None = None) -> None:
        super().__init__(self._answer, ssl=ssl)
        self.answering = 0

    async def _answer(self, wire: Wire) -> None:
        self.answering += 1
        try:
            await self._act(wire)
        finally:
            self.answering -= 1

    async def _act(self, wire: Wire) -> None:
        if wire.method == "GET":
            return await wire.send(_MODELS)
        name, _, phase = json.loads(wire.body)["model"].rpartition("/")
        fault = FAULTS[name.removeprefix(LATER)]
        if name.startswith(LATER):
            fault = partial(delayed, fault)
        return await fault(Exchange(wire, phase))
