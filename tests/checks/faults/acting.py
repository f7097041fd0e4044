"""The bad engine as a server: each request meets the fault that its model's name says."""

import json
import ssl as tls
from functools import partial
from typing import Final

from tests.checks.faults.answers import ANSWERS, delayed
from tests.checks.faults.engine import PHASED, Fault, Play, healthy
from tests.support.upstream import ScriptedUpstream, Wire, json_answer

FAULTS: Final[dict[str, Fault]] = {"healthy": healthy, **PHASED, **ANSWERS}
LATER: Final = "later: "  # before the name of a fault that first lets its client wait
_MODELS: Final = json_answer(200, {"data": [{"type": "model", "id": "m", "display_name": "m"}], "has_more": False})


class Engine(ScriptedUpstream):
    """`answering` is on how many of its connections it has a request in hand."""

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
        return await fault(Play(wire, phase))
