"""What every engine behind a URL has: connections, a key, limits, and somebody who is told what goes wrong."""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypedDict, Unpack

from ...upstream.errors import UpstreamError
from ...upstream.origin import Origin
from ...upstream.pool import Body, Deadlines, Exchange, Pool
from ...upstream.request import RequestHeaders
from ...wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ...wire.deltas import Batch, Delta, deltas_of
from ...wire.errors import ApiError
from ...wire.repairs import Repairs
from ..base import ModelInfo, UpstreamEngine
from ..openai.detection import UNAVAILABLE
from ..openai.dialects import LLAMACPP, Dialect, recognise
from .fetch import FetchResult, fetch, kind_of, lost, redact
from .model_list import ModelList, parse_models
from .single_flight import SingleFlight
from .upstream_errors import failure

TAIL: Final = 5.0  # seconds after its finish for an engine to tell the usage and to end its stream
_KEY: Final = re.compile("[!-~]+")
_QUICK: Final = 2.0  # seconds for a look at whether the engine is ready
_log = logging.getLogger(__name__)


class RemoteOptions(TypedDict, total=False):
    """How an engine is reached: its `key`, the most connections for answers, lists and counts, and their deadlines;
    the most that is kept of an answer.
    """

    key: str | None
    limit: int
    deadlines: Deadlines
    limits: AnswerLimits


class RemoteEngine(UpstreamEngine):
    """The engine at `origin`. Raises ValueError for a key that cannot stand in a header."""

    def __init__(self, origin: Origin, **how: Unpack[RemoteOptions]) -> None:
        deadlines = how.get("deadlines")
        self._origin = origin
        self._limits = how.get("limits", DEFAULT_LIMITS)
        self._pool = Pool(origin, limit=how.get("limit", 1024), deadlines=deadlines)
        self._aside = Pool(origin, limit=1, deadlines=deadlines)  # is it ready, though it has all the answers to give?
        self._readiness = SingleFlight(self._is_ready)
        self._keys: tuple[str, ...] = ()  # all there ever were: a request that is on its way has the one before
        self._headers: RequestHeaders = ()
        self.replace_key(how.get("key"))
        self._model_list = ModelList(self._listed)

    async def start(self) -> None:
        """Asks the engine who it is. One that is not up yet is asked again by the first request."""
        try:
            await self.detect()
        except ApiError:
            _log.warning("the engine does not answer yet")

    async def stop(self) -> None:
        await self._model_list.close()
        await self._readiness.close()
        await self._pool.aclose()
        await self._aside.aclose()

    def replace_key(self, key: str | None) -> None:
        """Ask with this key from now on. Raises ValueError, and changes nothing then."""
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the upstream key is empty or has characters that a header cannot carry")
        self._headers = self._signed(None if key is None else key.encode())
        if key is not None and key not in self._keys:
            self._keys += (key,)

    def _signed(self, key: bytes | None) -> RequestHeaders:
        """The headers of every request."""
        raise NotImplementedError

    async def detect(self) -> Dialect:
        """Which engine it is. Raises ApiError when it is not reachable."""
        raise NotImplementedError

    async def models(self) -> list[ModelInfo]:
        """The engine's own list, at most half a minute old if it is there. Raises ApiError when none was ever had."""
        return await self._model_list.models()

    async def _listed(self) -> list[ModelInfo]:
        answer = await self._list_models()
        if answer.status != 200:
            raise self._redact(failure(answer.status, None, answer.body))
        return parse_models(answer.json())

    def connections(self) -> dict[str, int]:
        """How many there are in each state, and how many requests wait for one."""
        aside = self._aside.counts()
        return {state: count + aside[state] for state, count in self._pool.counts().items()}

    # asking

    async def _fetch(self, target: str, body: Body | None = None, *, pool: Pool | None = None) -> FetchResult:
        """Raises ApiError."""
        try:
            return await fetch(pool or self._pool, target, self._headers, body)
        except (TimeoutError, UpstreamError) as exc:
            raise self._lost(exc) from exc

    async def _list_models(self, pool: Pool | None = None) -> FetchResult:
        """Raises ApiError."""
        return await self._fetch(self._origin.target("/models"), pool=pool)

    async def ready(self) -> bool:
        """Whether the engine answers, and not that it is away, as while it loads its model.

        It is known within two seconds, and asked once for all who want to know at one time.
        """
        return await self._readiness.result()

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_QUICK):
                answer = await self._list_models(self._aside)
                if answer.status == 200 and recognise(answer.json(), answer.server) is LLAMACPP:
                    # it lists the model that it still loads
                    answer = await self._fetch(self._origin.target("/health", api=False), pool=self._aside)
        except ApiError:
            return False
        except TimeoutError as exc:
            self._lost(exc)
            return False
        return answer.status not in UNAVAILABLE

    # what goes wrong

    def _lost(self, exc: UpstreamError | TimeoutError) -> ApiError:
        """What a client is told, once those have been told who count."""
        self.observe("upstream_error", kind_of(exc))
        return lost(exc)

    def _redact(self, exc: ApiError) -> ApiError:
        return redact(exc, self._keys, self._origin)

    def _report(self, repairs: Repairs) -> None:
        """Tells of the mends that have not been told yet."""
        for kind in repairs.elements():
            self.observe("repair", kind)
        repairs.clear()


async def read_trailer(response: Exchange, read: Callable[[bytes], Batch], reader: Any) -> list[Delta]:
    """What follows the finish, or nothing where the body has ended: counts, as a rule, until `reader` is done."""
    out: list[Delta] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(TAIL):
            while not reader.done and (data := await response.read()):
                out += deltas_of(read(data))
    return out


def new_call_id() -> str:
    return f"toolu_{secrets.token_urlsafe(18)}"
