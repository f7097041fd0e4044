"""The base class of the engines behind a URL: connections, key, limits, model list, readiness, failures.

At the end, the functions with which they read the response that is an answer.
"""

import asyncio
import logging
import re
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypedDict, Unpack

from ...upstream.errors import TooLarge, UpstreamError
from ...upstream.exchange import Exchange
from ...upstream.http_parsers import ParserFactory
from ...upstream.origin import Origin
from ...upstream.pool import Body, Deadlines, Pool
from ...upstream.request import RequestHeaders
from ...wire.answer_limits import DEFAULT_LIMITS, AnswerLimits
from ...wire.deltas import Batch, Delta, deltas_of
from ...wire.errors import AnswerTooLarge, ApiError, BadUpstream, ContextTooLong, InvalidRequest
from ...wire.json_codec import dumps
from ...wire.repairs import Repairs
from ...wire.request import MessagesRequest
from ..base import NOT_READY, ModelInfo, UpstreamEngine
from .answer_length import answer_beside, shorter_answer, told_limits
from .context_overflow import find_bound
from .fetch import FetchResult, fetch
from .model_list import ModelList, entries_by_id, has_model, model_page, next_page, parse_models
from .single_flight import SingleFlight
from .upstream_errors import (
    REMEDIES,
    UNAVAILABLE,
    EngineReport,
    UpstreamFailure,
    classify,
    error_from_response,
    remedy_for,
)

_TRAILER_TIMEOUT: Final = 5.0  # seconds after the finish in which an engine may send usage and the end of its stream
_READY_TIMEOUT: Final = 2.0  # seconds
_START_TIMEOUT: Final = 0.5  # seconds for which the start of the service waits for the engine
_COUNT_TIMEOUT: Final = 5.0  # seconds for the count that tells how long an answer may be
_MAX_PAGES: Final = 32  # of a model list
_MAX_ERROR_BODY: Final = 64 * 1024  # bytes
_ERROR_BODY_TIMEOUT: Final = 5.0  # seconds
_UNSPECIFIC_TYPES: Final = (b"text/plain", b"application/octet-stream")  # a stream may have them by mistake
_NO_MODELS: Final = "it answered status %d and no list of models: check that the URL is that of an inference engine"
_SAFE_TYPE: Final = re.compile(rb"(?:application|audio|image|multipart|text|video)/[a-z0-9.+-]{1,40}")
_KEY: Final = re.compile("[!-~]+")
_FAILURE: Final = (
    "upstream_error request_id=%(request_id)s operation=%(operation)s status=%(status)s reason=%(reason)s"
    " cause=%(cause)s"
)
_ENGINE_MESSAGE: Final = "upstream_error_message request_id=%(request_id)s engine_message=%(engine_message)s"
_log = logging.getLogger(__name__)


class RemoteOptions(TypedDict, total=False):
    """The options of every engine behind a URL: `key`, `limit` (the number of connections for answers, lists and
    counts), `deadlines` of a request, `limits` on the size of an answer, `reuse` of connections and the `parser`
    of their responses (see Pool); the `name` of the engine for the log, where there are several; the context `window`
    of its models in tokens, where the operator says it.
    """

    key: str | None
    limit: int
    deadlines: Deadlines
    limits: AnswerLimits
    reuse: bool
    parser: ParserFactory
    name: str | None
    window: int | None


class RemoteEngine(UpstreamEngine):
    """The engine at `origin`. Raises ValueError for a key that a header cannot carry."""

    def __init__(self, origin: Origin, **options: Unpack[RemoteOptions]) -> None:
        deadlines = options.get("deadlines")
        reuse = options.get("reuse", True)
        parser = options.get("parser")
        self._origin = origin
        self.name = options.get("name")
        self._limits = options.get("limits", DEFAULT_LIMITS)
        self._pool = Pool(origin, limit=options.get("limit", 1024), deadlines=deadlines, reuse=reuse, parser=parser)
        # answers may use every connection of the pool, and the readiness check must not wait for one
        self._readiness_pool = Pool(origin, limit=1, deadlines=deadlines, reuse=reuse)
        self._readiness = SingleFlight(self._check_ready)
        self._first_contact = SingleFlight(self._detect_at_start)
        self._keys: tuple[str, ...] = ()  # the earlier ones too: a running request was sent with one of them
        self._addresses = _addresses(origin)
        self._headers: RequestHeaders = ()
        self.replace_key(options.get("key"))
        self._model_list = ModelList(self._fetch_model_list, window=options.get("window"))
        self._list_status = 0  # of the response to the last request for the list
        self._has_models = False  # whether a response was a list with a model
        self._listed_at = float("-inf")  # when the model list was last requested, on the loop's clock
        self.on_engine_gone: Callable[[], None] = _do_nothing
        """Called when another engine may be at the address from now on."""
        self.find_successor: Callable[[], Awaitable[RemoteEngine | None]] = _no_successor
        """Called when the path of this API is missing: the engine for the API that the upstream has now, if any."""

    async def start(self) -> None:
        """Detect the engine. If it is not reachable, the first request detects it.

        An engine that does not respond within half a second does not delay the start: the detection goes on.
        """
        await start_within(self._first_contact)

    async def _detect_at_start(self) -> None:
        try:
            await self.detect()
            if self._list_status in (401, 403):
                values = {"reason": _why_not_ready(self._list_status), "engine": self.name}
                _log.warning("engine_not_ready reason=%(reason)s", values)
            elif self._list_status not in UNAVAILABLE and not self._has_models:
                values = {"reason": _NO_MODELS % self._list_status, "engine": self.name}
                _log.warning("engine_without_models reason=%(reason)s", values)
        except ApiError as exc:
            log_unreachable(exc, self.name)

    async def stop(self) -> None:
        await self._first_contact.close()
        await self._model_list.close()
        await self._readiness.close()
        await self._pool.aclose()
        await self._readiness_pool.aclose()

    def replace_key(self, key: str | None) -> None:
        """Use this key for new requests. Raises ValueError, and then keeps the old key."""
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the upstream key is empty or has characters that a header cannot carry")
        self._headers = self._key_headers(None if key is None else key.encode())
        if key is not None and key not in self._keys:
            self._keys += (key,)

    @abstractmethod
    def _key_headers(self, key: bytes | None) -> RequestHeaders:
        """The headers of every request."""

    @abstractmethod
    def _health_path(self, models: FetchResult) -> str | None:
        """The path, outside the API, of a health check that an engine with this model list needs."""

    def _forget_engine(self) -> None:
        """Forget what was learned about the engine: another one may be at the address now."""

    async def models(self) -> list[ModelInfo]:
        """The engine's list, at most 30 s old while the engine is reachable. Raises ApiError when there is none yet."""
        return await self._model_list.models()

    def known_models(self) -> list[ModelInfo] | None:
        """The list that was fetched last; None if there is none yet."""
        return self._model_list.known()

    async def _fetch_model_list(self) -> list[ModelInfo]:
        result = await self._list_models()
        try:
            if result.status != 200:
                raise result.error()
            return parse_models(result.json())
        except ApiError as exc:
            raise self._fail(exc, "models", result.status).error from exc.__cause__

    def connections(self) -> dict[str, int]:
        """The number of connections in each state, and of requests that wait for one."""
        readiness = self._readiness_pool.counts()
        return {state: count + readiness[state] for state, count in self._pool.counts().items()}

    # small requests

    async def _fetch(
        self, operation: str, target: str, body: Body | None = None, *, pool: Pool | None = None
    ) -> FetchResult:
        """A whole response. Raises ApiError, which is counted and logged already."""
        try:
            return await fetch(pool or self._pool, target, self._headers, body)
        except (TimeoutError, UpstreamError) as exc:
            raise self._fail(exc, operation).error from exc

    async def _list_models(self, pool: Pool | None = None) -> FetchResult:
        """Raises ApiError, which is counted and logged already."""
        self._listed_at = asyncio.get_running_loop().time()
        result = await self._fetch("models", self._origin.target("/models"), pool=pool)
        self._list_status = result.status
        if not self._has_models:  # a long list is not parsed again and again
            self._has_models = has_model(result)
        return await self._with_next_pages(result, pool) if b'"has_more"' in result.body else result

    async def _with_next_pages(self, first: FetchResult, pool: Pool | None) -> FetchResult:
        """The list with the models of all its pages. A page that cannot be read, or has no new model, ends it."""
        page = whole = model_page(first)
        known: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            if page is None or known.keys() >= (models := entries_by_id(page)).keys():
                break
            known |= {name: entry for name, entry in models.items() if name not in known}
            query = next_page(page)
            if query is None:
                break
            try:
                page = model_page(await self._fetch("models", f"{self._origin.target('/models')}?{query}", pool=pool))
            except ApiError:
                break
        if whole is None or not known:
            return first
        return first._replace(body=dumps(whole | {"data": list(known.values()), "has_more": False}))

    def _since_list(self) -> float:
        """Seconds since the model list was last requested."""
        return asyncio.get_running_loop().time() - self._listed_at

    async def ready(self) -> bool:
        """Whether the engine can answer: it does, within two seconds, and it is not loading its model.

        Concurrent callers share one check.
        """
        return await self.why_not_ready() is None

    async def why_not_ready(self) -> str | None:
        """Why the engine cannot answer now; None if it can. An engine that rejects the key cannot."""
        return await self._readiness.result()

    async def _check_ready(self) -> str | None:
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                result = await self._list_models(self._readiness_pool)
                path = self._health_path(result)
                if path is not None:
                    target = self._origin.target(path, api=False)
                    result = await self._fetch("health", target, pool=self._readiness_pool)
        except ApiError:
            return NOT_READY
        except TimeoutError as exc:
            self._fail(exc, "health")
            return NOT_READY
        return _why_not_ready(result.status)

    # a refused request

    @abstractmethod
    def stream(self, request: MessagesRequest, *, may_hand_over: bool = True) -> AsyncIterator[Batch]:
        """As in the base class. `may_hand_over`: if the path is missing, let the `find_successor` answer."""

    async def _hand_over(self, error: ApiError, *, may_hand_over: bool) -> "RemoteEngine | None":
        """The engine that can answer instead of this one, after the request failed with `error`; None if none can."""
        try:
            return await self.find_successor() if may_hand_over and error.reason == "route_not_found" else None
        finally:
            del error  # its traceback refers to the caller's frame: a cycle for the garbage collector otherwise

    async def _mended_length(
        self,
        asked: int,
        error: ApiError,
        count: Callable[[], Awaitable[int | None]],
        estimate: Callable[[], int],
        *,
        may_retry: bool,
    ) -> tuple[int, dict[str, Any]] | None:
        """How to repeat a request that the engine refused because prompt and answer together are too long.

        Returns the shorter length for the answer, in tokens, and the limits that the engine's refusal states
        (`told_limits`); None if `error` is not about lengths. Raises ContextTooLong if the prompt alone is too long.

        Args:
            asked: the length of the answer in the refused request.
            error: the refusal.
            count: counts the prompt's tokens; None if the engine cannot.
            estimate: estimates the prompt's tokens.
            may_retry: False after the last attempt.
        """
        try:
            if not isinstance(error, InvalidRequest):
                return None
            words = error.__cause__.message if isinstance(error.__cause__, EngineReport) else ""
            bound = find_bound(words)
            if bound is None:
                shorter = shorter_answer(asked, error.message) if may_retry else None
                return None if shorter is None else (shorter, told_limits(error.message, None, estimate()))
            if not may_retry and not bound.too_long:
                raise ContextTooLong(None, None) from error.__cause__
            prompt = await count()
            if not bound.too_long:
                guess = estimate()
                return answer_beside(bound, asked, prompt, guess), told_limits(words, prompt, guess)
            if prompt is None:
                raise error from error.__cause__
            raise ContextTooLong(max(prompt, bound.at_least), bound.window) from error.__cause__
        finally:
            del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise

    async def _counted_within(self, count: Callable[[], Awaitable[int]], request_id: str) -> int | None:
        """The result of `count`: the length in tokens of the prompt of a refused request; None if it does not tell.

        Raises ContextTooLong if the engine refuses to count a prompt this long.
        """
        try:
            async with asyncio.timeout(_COUNT_TIMEOUT):
                return await count()
        except NotImplementedError:
            return None
        except (ApiError, TimeoutError, UpstreamError) as exc:
            failure = self._fail(exc, "count_tokens", request_id=request_id)
            if isinstance(failure.error, ContextTooLong):
                raise failure.error from failure.error.__cause__
            return None

    # failures and repairs

    def _fail(
        self, exc: ApiError | UpstreamError | TimeoutError, operation: str, status: int = 0, request_id: str = ""
    ) -> UpstreamFailure:
        """Count and log a failure. To be called once for each failure.

        `operation` names the request in the log. `status` is that of the engine's response, 0 without one.
        """
        failure = classify(exc, secrets=(*self._keys, *self._addresses), status=status)
        if failure.engine_gone:
            self._forget_engine()
            self.on_engine_gone()
        self.observe("upstream_error", failure.kind)
        values = {
            "request_id": request_id or None,
            "operation": operation,
            "status": failure.status,
            "reason": failure.error.reason,
            "cause": failure.cause,
            "engine": self.name,
        }
        _log.warning(_FAILURE, values)
        if failure.engine_message is not None:
            _log.debug(_ENGINE_MESSAGE, {"request_id": request_id or None, "engine_message": failure.engine_message})
        return failure

    def remedy(self, error: ApiError) -> str | None:
        return remedy_for(error)

    def _report_repairs(self, repairs: Repairs) -> None:
        """Count the repairs, and empty the counter."""
        for kind in repairs.elements():
            self.observe("repair", kind)
        repairs.clear()


def _why_not_ready(status: int) -> str | None:
    """What the status of a model list or of a health check says."""
    if status in (401, 403):
        return f"the engine rejects this service's API key (status {status}): {REMEDIES['key_rejected']}"
    return f"the engine is not available (status {status})" if status in UNAVAILABLE else None


def _do_nothing() -> None:
    pass


async def _no_successor() -> None:
    return None


def _addresses(origin: Origin) -> tuple[str, ...]:
    """The ways in which an engine may write its own address."""
    names = [str(origin), origin.socket]
    host = origin.host
    if host:
        names += [f"{host}:{origin.port}", f"[{host}]:{origin.port}"]
        names += [host] if "." in host or ":" in host else []  # any other host name may be an ordinary word
    return tuple(filter(None, names))


async def start_within(work: SingleFlight[None]) -> None:
    """Begin `work`, and wait half a second for its end. Raises what it raises in that time."""
    task = work.start()
    await asyncio.wait({task}, timeout=_START_TIMEOUT)
    if task.done():
        await task


def log_unreachable(exc: ApiError, name: str | None) -> None:
    """`name` is that of the engine, where there are several."""
    _log.warning("engine_unreachable reason=%(reason)s", {"reason": exc.reason, "engine": name})


# the response that is an answer


async def raise_for_status(response: Exchange) -> None:
    """Raise ApiError for a response whose status is not 200."""
    if response.status == 200:
        return
    body = b""
    with suppress(UpstreamError, TimeoutError):  # the status alone is enough
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT):
            body = await response.read_all(_MAX_ERROR_BODY)
    raise error_from_response(response.status, body, response.headers)


def is_json(response: Exchange) -> bool:
    """Whether the response is one JSON value, although a stream was requested.

    Raises BadUpstream when it is neither JSON nor a stream: a web page might be long and never contain an event.
    """
    content_type = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if (response.header(b"content-encoding") or b"identity").lower() != b"identity":
        raise BadUpstream("the engine compressed its response, which was not requested")
    stream = b"event-stream" in content_type
    json = b"json" in content_type
    if content_type and not stream and not json and content_type not in _UNSPECIFIC_TYPES:
        found = content_type.decode() if _SAFE_TYPE.fullmatch(content_type) else "an unknown type"
        raise BadUpstream(f"the engine returned neither an event stream nor JSON, but {found}")
    return json and not stream


async def read_body(response: Exchange, limits: AnswerLimits) -> bytes:
    """The whole body of an answer. Raises AnswerTooLarge and UpstreamError."""
    try:
        return await response.read_all(limits.max_answer)
    except TooLarge as exc:
        raise AnswerTooLarge(f"it is larger than {limits.max_answer} bytes (max-answer)") from exc


class _Done(Protocol):
    @property
    def done(self) -> bool: ...


async def read_trailer(response: Exchange, read: Callable[[bytes], Batch], reader: _Done) -> list[Delta]:
    """What follows the finish, usually token counts: until `reader` is done, the body ends or five seconds are over."""
    out: list[Delta] = []
    if reader.done:  # the trailer came with the finish
        return out
    with suppress(TimeoutError):
        async with asyncio.timeout(_TRAILER_TIMEOUT):
            while not reader.done and (data := await response.read()):
                out += deltas_of(read(data))
    return out


def new_call_id() -> str:
    return f"toolu_{secrets.token_urlsafe(18)}"
