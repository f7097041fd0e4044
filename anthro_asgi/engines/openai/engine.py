"""An OpenAI-compatible engine behind a URL. Requests and responses are converted by `chat_request` and `chunk_reader`.

The engine is always asked for a stream, also when the client wants a whole Message: only for streams does every engine
stop generating when the connection is closed, so that a client that leaves frees its slot.

An engine may reject a request before its first output. Then the request is sent again, if the engine's words say how to
change it (see `retry`): for a shorter answer, or without a field that the engine does not accept. It is also sent again
in another dialect, if another engine has taken the place of the one that was detected.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, Unpack

from ...upstream.errors import UpstreamError
from ...upstream.exchange import Exchange
from ...upstream.origin import Origin
from ...upstream.pool import Pool
from ...upstream.request import RequestHeaders
from ...wire.deltas import Batch, Delta
from ...wire.errors import ApiError, BadUpstream
from ...wire.large.cooperative import run_with_yields
from ...wire.request import MessagesRequest
from ..shared.fetch import FetchResult, fetch, is_json, raise_for_status, read_body
from ..shared.model_list import MAX_AGE, parse_models
from ..shared.remote import RemoteEngine, RemoteOptions, new_call_id, read_trailer
from .chat_request import call_ids, encode_in_steps, thinking_disabled, tool_names
from .chunk_reader import ChunkReader
from .count_tokens import PromptTokenCounter
from .detection import EngineDetector, health_path
from .dialects import DIALECTS, Dialect
from .encoded_request import EncodedRequest, chat_body
from .fast_path import FastChunkReader
from .read_coalescer import PAUSE, ReadCoalescer
from .retry import rejected_field, shorten_answer
from .think_tags import ThinkTagMode, think_tag_filter
from .tool_names import original_names

_DETECTION_VALID: Final = 5.0  # seconds after a detection in which the engine is taken to be the same
_MAX_TRIES: Final = (
    4  # first, with an answer that fits the model, then one that fits beside the prompt, without a field
)
_STREAM_HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"))


class OpenAIEngine(RemoteEngine):
    """The engine at `origin`. The key is sent as a bearer token. `dialect` names one of DIALECTS; None detects it.

    `late_system` says whether a system message may stand between turns; None leaves it to the dialect. `think_tags`
    says how `<think>` tags in the answer's text are read (see `think_tags`).

    Raises ValueError for an unknown dialect or a key that a header cannot carry.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        dialect: str | None = None,
        late_system: bool | None = None,
        think_tags: ThinkTagMode = "off",
        **options: Unpack[RemoteOptions],
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect {dialect!r}: known are {', '.join(DIALECTS)}")
        super().__init__(origin, **options)
        self._target = origin.target("/chat/completions")
        self._late_system = late_system
        self._think_tags = think_tags
        chosen = DIALECTS[dialect] if dialect is not None else None
        self._detector = EngineDetector(chosen, self._list_models, self._probe)
        self._counter = PromptTokenCounter(self._post_for_count)
        self._listed_at = float("-inf")  # when the model list was last requested, on the loop's clock
        self._rejected_fields: set[tuple[str, str]] = set()  # (model, field) that an engine refused

    def __repr__(self) -> str:
        dialect = self._detector.dialect
        return f"<OpenAIEngine {dialect.name if dialect else 'undetected'} {self._pool!r}>"

    def _key_headers(self, key: bytes | None) -> RequestHeaders:
        return () if key is None else ((b"authorization", b"Bearer " + key),)

    # life

    async def stop(self) -> None:
        await self._detector.close()
        await super().stop()

    async def detect(self) -> Dialect:
        """The dialect: as chosen, or as detected. Raises ApiError when the engine is not reachable."""
        return await self._detector.detect()

    def _health_path(self, models: FetchResult) -> str | None:
        return health_path(models)

    def _forget_engine(self) -> None:
        self._detector.forget()
        self._forget_learned()

    def _forget_learned(self) -> None:
        self._rejected_fields.clear()
        self._counter.forget()

    # small requests

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length, as the usage of its answer would have it.

        Raises NotImplementedError when the engine does not count, and ApiError.
        """
        dialect = self._detector.dialect or await self.detect()
        body = await self._body(request, dialect)
        try:
            return await self._counter.count(body, dialect)
        except (ApiError, TimeoutError, UpstreamError) as exc:
            error = self._fail(exc, "count_tokens", request_id=request.request_id).error
            raise error from error.__cause__

    async def _post_for_count(self, path: str, body: dict[str, Any]) -> FetchResult:
        """Raises UpstreamError and TimeoutError, which are not yet counted and logged."""
        encoded = await run_with_yields(encode_in_steps(body), perf_counter)
        return await fetch(self._pool, self._origin.target(path, api=False), self._headers, encoded)

    async def _probe(self, path: str) -> FetchResult:
        """GET a path outside the API. Raises ApiError, which is counted and logged already."""
        return await self._fetch("probe", self._origin.target(path, api=False))

    async def _list_models(self, pool: Pool | None = None) -> FetchResult:
        """As in the base class. Every list also tells which engine it is, and the context lengths of its models."""
        self._listed_at = asyncio.get_running_loop().time()
        result = await super()._list_models(pool)
        before = self._detector.dialect
        self._detector.note(result)
        if self._detector.dialect is not before:
            self._forget_learned()
        if result.status == 200:
            with suppress(BadUpstream):
                self._model_list.note(parse_models(result.json()))
        return result

    def _since_list(self) -> float:
        """Seconds since the model list was last requested."""
        return asyncio.get_running_loop().time() - self._listed_at

    # an answer

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The answer; what one read brings is one batch. Raises ApiError."""
        dialect = await self._known_dialect()
        encoded = EncodedRequest(request, await self._body(request, dialect))
        del request  # `encoded` owns it, and releases it
        for tries_left in reversed(range(_MAX_TRIES)):
            reader = self._reader(encoded.request, self._detector.dialect or dialect)
            exchange = await self._exchange(encoded)
            begun = False
            coalescer = ReadCoalescer(asyncio.get_running_loop().time)
            try:
                async with exchange as response:
                    await raise_for_status(response)
                    if is_json(response):
                        yield reader.whole(await read_body(response, self._limits))
                    else:
                        while data := await response.read():
                            batch = reader.read(data)
                            if batch:
                                yield batch
                                begun = begun or await encoded.release()
                                if coalescer.should_pause():
                                    response.pause_reading()
                                    await asyncio.sleep(PAUSE)
                                if type(batch) is str:  # a read that is text alone has neither finished nor failed
                                    continue
                            if reader.over():
                                break
                        yield await read_trailer(response, reader.read, reader) + reader.rest()
                    response.drain_on_exit()
            except UpstreamError as exc:
                if not reader.finished:  # else the answer is complete
                    raise self._fail(exc, "messages", exchange.status, encoded.request_id).error from exc
            except ApiError as exc:
                failure = self._fail(exc, "messages", exchange.status, encoded.request_id)
                may_retry = failure.may_retry and tries_left > 0 and not begun
                body = await self._changed_body(encoded.request, encoded.body, failure.error) if may_retry else None
                if body is None:
                    raise failure.error from failure.error.__cause__
                encoded = EncodedRequest(encoded.request, body)
                continue
            finally:
                self._report_repairs(reader.repairs)
            break
        yield self._end(reader, encoded.request_id)

    def _end(self, reader: FastChunkReader, request_id: str) -> list[Delta]:
        """The last deltas, once the response is over. Raises ApiError."""
        try:
            return reader.end()
        except ApiError as exc:
            raise self._fail(exc, "messages", 200, request_id).error from exc.__cause__
        finally:
            self._report_repairs(reader.repairs)

    async def _known_dialect(self) -> Dialect:
        """The engine's dialect. Starts to refresh a model list that is old. Raises ApiError."""
        dialect = self._detector.dialect or await self.detect()
        if not self._detector.chosen and self._since_list() >= MAX_AGE:
            self._model_list.refresh()
        return dialect

    async def _body(self, request: MessagesRequest, dialect: Dialect) -> dict[str, Any]:
        """The body of the chat request, without what this engine is known not to accept."""
        model = request.engine_model
        if self._late_system is not None:
            dialect = replace(dialect, late_system=self._late_system)
        body = await chat_body(request, dialect)
        for field in [field for field in body if (model, field) in self._rejected_fields]:
            value = body.pop(field)
            if field == "max_tokens":
                body["max_completion_tokens"] = value
        window = self._model_list.window(model) if dialect.bounds_answers else None
        if window is not None and window < body.get("max_tokens", 0):
            body["max_tokens"] = window
        return body

    async def _exchange(self, encoded: EncodedRequest) -> Exchange:
        """The exchange that sends this request once it is entered. Raises InvalidRequest."""
        headers = (*_STREAM_HEADERS, *self._headers, *encoded.request.trace_headers)
        return self._pool.exchange("POST", self._target, headers, await encoded.encoded())

    def _reader(self, request: MessagesRequest, dialect: Dialect) -> FastChunkReader:
        """The reader of the response to this request."""
        names = original_names(tool_names(request, dialect))
        tags = think_tag_filter(self._think_tags, thinking_disabled=thinking_disabled(request, dialect))
        reader = ChunkReader(
            request.stop_sequences, new_call_id, call_ids(request), names=names, tags=tags, limits=self._limits
        )
        return FastChunkReader(reader, self._limits.max_event)

    async def _changed_body(
        self, request: MessagesRequest, body: dict[str, Any], error: ApiError
    ) -> dict[str, Any] | None:
        """What to send instead of the rejected `body`; None if no change may help. Raises ApiError."""
        shorter = shorten_answer(body, error.message)
        if shorter is not None:
            if "max_tokens" not in shorter:
                self._rejected_fields.add((request.engine_model, "max_tokens"))
            return shorter
        field = rejected_field(body, error.message)
        if field is not None:
            self._rejected_fields.add((request.engine_model, field))
            return {key: value for key, value in body.items() if key != field}
        before = self._detector.dialect
        if self._detector.chosen or self._since_list() < _DETECTION_VALID:
            return None
        self._detector.forget()
        dialect = await self.detect()
        return await self._body(request, dialect) if dialect is not before else None
