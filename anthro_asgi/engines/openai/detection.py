"""Which engine is there, and so which dialect it speaks: as chosen, or by what it says of itself.

It is asked at the start, and again after it was away, for another may have taken its place. Every model list that
comes along tells it too, whatever it was asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ...wire.errors import ApiError
from ..shared.fetch import FetchResult
from ..shared.single_flight import SingleFlight
from .dialects import PLAIN, PROBES, Dialect, recognise

UNAVAILABLE: Final = frozenset({429, 502, 503, 504, 529})  # a response that says nothing about the engine
_PROBING: Final = 5.0  # seconds for all the addresses that only one of the engines has


class EngineDetector:
    """`dialect` is what is known, None for nobody known. `list_models` asks for the list and has it noted here, `probe`
    asks for what is at a path beside `/v1`; both raise ApiError.
    """

    def __init__(
        self,
        chosen: Dialect | None,
        list_models: Callable[[], Awaitable[FetchResult]],
        probe: Callable[[str], Awaitable[FetchResult]],
    ) -> None:
        self.dialect = self.chosen = chosen
        self._list_models = list_models
        self._probe = probe
        self._by_list = False
        self._detecting = SingleFlight(self._detect)

    async def detect(self) -> Dialect:
        """Ask. Those who do so at one time share the answer. Raises ApiError when the engine is not reachable.

        One that is reached but not itself yet, as while it loads its model, is asked again by the next request.
        """
        if self.chosen is not None:
            return self.chosen
        return await self._detecting.result()

    async def _detect(self) -> Dialect:
        answer = await self._list_models()
        if answer.status in UNAVAILABLE:
            return self.dialect or recognise(None, answer.server) or PLAIN
        if self.dialect is None:  # and the list, which was noted when it came, did not tell
            self.dialect = await self._by_probes() or PLAIN
        return self.dialect

    async def _by_probes(self) -> Dialect | None:
        try:
            async with asyncio.timeout(_PROBING):
                for path, read in PROBES:
                    answer = await self._probe(path)
                    known = read(answer.json()) if answer.status == 200 else None
                    if known is not None:
                        return known
        except (ApiError, TimeoutError):
            pass
        return None

    def note(self, answer: FetchResult) -> None:
        """Learn from an answer to `GET /v1/models`."""
        if self.chosen is not None or answer.status in UNAVAILABLE:
            return
        whole = answer.status == 200
        known = recognise(answer.json() if whole else None, answer.server)
        if known is not None:
            self.dialect, self._by_list = known, True
        elif whole and self._by_list:  # the list does not tell any more: somebody else's
            self.forget()

    def forget(self) -> None:
        """Whoever is there next time may be another."""
        self.dialect, self._by_list = self.chosen, False

    async def close(self) -> None:
        """Ask no more."""
        await self._detecting.close()
