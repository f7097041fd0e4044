"""Detects which engine is at an address, and so which dialect it speaks.

The engine is asked at the start, and again after it was not reachable: another engine may have replaced it. Every model
list that is fetched for any purpose is read for it too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ...wire.errors import ApiError
from ..shared.fetch import FetchResult
from ..shared.model_list import has_model
from ..shared.single_flight import SingleFlight
from ..shared.upstream_errors import UNAVAILABLE
from .dialects import LLAMACPP, PLAIN, PROBES, Dialect, recognise

_PROBES_TIMEOUT: Final = 5.0  # seconds for all probes together
_MAX_WAIT: Final = 1.0  # seconds that an answer waits for a detection when an earlier dialect is known
_NO_LIST: Final = (404, 405)  # statuses of an engine without a model list


class EngineDetector:
    """`dialect` is the engine's dialect, None while it is unknown.

    `chosen` is the operator's choice, with which nothing is detected. `list_models` fetches the list and passes it
    to `note`. `probe` fetches a path outside the API. Both raise ApiError.
    """

    def __init__(
        self,
        chosen: Dialect | None,
        list_models: Callable[[], Awaitable[FetchResult]],
        probe: Callable[[str], Awaitable[FetchResult]],
    ) -> None:
        self.dialect = self.chosen = chosen
        self._last = chosen  # the last one that was known
        self._list_models = list_models
        self._probe = probe
        self._by_list = False
        self._detecting = SingleFlight(self._detect)

    async def detect(self) -> Dialect:
        """The dialect. Concurrent callers share one detection. Raises ApiError when the engine is not reachable.

        An engine that is not available yet, for example while it loads its model, is detected by the next request. If
        an earlier dialect is known, it is used as long as the engine does not say within a second which one it is.
        """
        if self.chosen is not None:
            return self.chosen
        if self._last is not None:
            return await self._detecting.result_within(_MAX_WAIT, self._last)
        return await self._detecting.result()

    async def _detect(self) -> Dialect:
        models = await self._list_models()
        if models.status in UNAVAILABLE:
            return self.dialect or recognise(None, models.server) or self._last or PLAIN
        if self.dialect is None:  # `note` did not recognise the list
            dialect = await self._probe_all()
            if dialect is None and self._last is not None and not _tells(models):
                return self._last
            self.dialect = self._last = dialect or PLAIN
        return self.dialect

    async def _probe_all(self) -> Dialect | None:
        try:
            async with asyncio.timeout(_PROBES_TIMEOUT):
                for path, read in PROBES:
                    result = await self._probe(path)
                    dialect = read(result.json()) if result.status == 200 else None
                    if dialect is not None:
                        return dialect
        except (ApiError, TimeoutError):
            pass
        return None

    def note(self, models: FetchResult) -> None:
        """Learn from a response to `GET /v1/models`."""
        if self.chosen is not None or models.status in UNAVAILABLE:
            return
        dialect = recognise_models(models)
        if dialect is not None:
            self.dialect = self._last = dialect
            self._by_list = True
        elif self._by_list and has_model(models):  # another engine has replaced the one that was recognised
            self.forget()

    def forget(self) -> None:
        """Forget the dialect: another engine may be at the address now."""
        self.dialect, self._by_list = self.chosen, False

    async def close(self) -> None:
        """Cancel a running detection."""
        await self._detecting.close()


def _tells(models: FetchResult) -> bool:
    """Whether the response comes from a working engine: a page or an empty list may come from something before it."""
    return models.status in _NO_LIST or has_model(models)


def recognise_models(models: FetchResult) -> Dialect | None:
    """The dialect of the engine with this model list; None when the list does not tell."""
    return recognise(models.json() if models.status == 200 else None, models.server)


def health_path(models: FetchResult) -> str | None:
    """The path of the health check of llama.cpp, which lists its model while it still loads it."""
    return "/health" if models.status == 200 and recognise_models(models) is LLAMACPP else None
