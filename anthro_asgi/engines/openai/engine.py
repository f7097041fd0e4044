"""An OpenAI-compatible engine behind a URL. Requests and responses are converted by `chat_request` and `chunk_reader`.

The engine is always asked for a stream, also when the client wants a whole Message: only for streams does every engine
stop generating when the connection is closed, so that a client that leaves frees its slot.

An engine may reject a request before its first output. Then the request is sent again, if the engine's words say how to
change it: for a shorter answer, or without a field that the engine does not accept (see `retry`), or in an amended
dialect (see `refusals`). The amended dialect is remembered if the request then succeeds. The request is also sent again
in another dialect, if another engine has taken the place of the one that was detected.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Final, Self, Unpack

from ..._native import NewPump
from ..._native.pump_thread import PumpThread
from ...upstream.errors import UpstreamError
from ...upstream.exchange import Exchange
from ...upstream.http_parsers import chunk_tracking_parser
from ...upstream.origin import Origin
from ...upstream.pool import Pool
from ...upstream.request import RequestHeaders
from ...wire.deltas import Batch, Delta, Deltas, has_output
from ...wire.direct_output import DirectOutput
from ...wire.errors import ApiError, BadUpstream, EngineFailed, InvalidRequest
from ...wire.estimate import estimate_tokens
from ...wire.large.cooperative import run_with_yields
from ...wire.large.cuts import Cuts
from ...wire.request import MessagesRequest
from ..shared.answer_length import accepted_length
from ..shared.event_pieces import LARGE
from ..shared.fetch import FetchResult, fetch
from ..shared.model_list import MAX_AGE, parse_models
from ..shared.paced_reading import in_thread, read_on
from ..shared.remote import (
    RemoteEngine,
    RemoteOptions,
    is_json,
    new_call_id,
    raise_for_status,
    read_body,
    read_trailer,
)
from ..shared.upstream_errors import EngineReport
from .chat_request import ignored_fields, thinking_disabled, tool_names, whole_answer_body
from .chunk_reader import ChunkReader
from .count_tokens import PromptTokenCounter
from .detection import EngineDetector, health_path
from .dialects import DIALECTS, Dialect, by_host
from .encoded_request import EncodedRequest, chat_body, earlier_call_ids, encoded_in_steps
from .fast_path import FastChunkReader
from .learned import LearnedDialects
from .learning import remember
from .read_coalescer import PAUSE, ReadCoalescer
from .refusals import amended_after_failure, amended_dialect, changes_between
from .retry import is_about_a_value, length_field, rejected_field, wants_new_length_field
from .sent_messages import SentMessages, look_in_steps
from .think_tags import ThinkTagMode, think_tag_filter
from .token_relay import TokenRelay
from .tool_names import original_names

_log = logging.getLogger(__name__)
_DETECTION_VALID: Final = 5.0  # seconds after a detection in which the engine is taken to be the same
_MAX_TRIES: Final = 4  # as asked, with an answer that fits the model, one that fits beside the prompt, without a field
_STREAM_HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is kept of a request, to learn from its answer: the request itself is released when the answer begins."""

    no_calls: bool
    thinking_off: bool
    stops: bool

    @classmethod
    def by(cls, request: MessagesRequest, dialect: Dialect) -> Self:
        choice = request.tool_choice
        no_calls = choice is not None and choice.type == "none"
        return cls(no_calls, thinking_disabled(request, dialect), bool(request.stop_sequences))


class OpenAIEngine(RemoteEngine):
    """The engine at `origin`. The key is sent as a bearer token. `dialect` names one of DIALECTS; None takes the
    dialect of a known host name, and detects it otherwise.

    `late_system` says whether a system message may stand between turns; None leaves it to the dialect. `think_tags`
    says how `<think>` tags in the answer's text are read (see `think_tags`). `new_pump` makes the pumps that relay
    steady streams (see `token_relay`); without it, they are read like all others. `pump_thread` is the thread that they
    leave their streams to.

    Raises ValueError for an unknown dialect or a key that a header cannot carry.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        dialect: str | None = None,
        late_system: bool | None = None,
        think_tags: ThinkTagMode = "off",
        new_pump: NewPump | None = None,
        pump_thread: PumpThread | None = None,
        **options: Unpack[RemoteOptions],
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect {dialect!r}: known are {', '.join(DIALECTS)}")
        if new_pump is not None:
            options["parser"] = chunk_tracking_parser()
        super().__init__(origin, **options)
        self._new_pump = new_pump
        self._pump_thread = pump_thread
        self._target = origin.target("/chat/completions")
        self._late_system = late_system
        self._think_tags = think_tags
        chosen = DIALECTS[dialect] if dialect is not None else by_host(origin.host)
        self._detector = EngineDetector(chosen, self._list_models, self._probe)
        self._counter = PromptTokenCounter(self._post_for_count)
        self._learned = LearnedDialects()
        self._single_slot = asyncio.Lock()  # for an engine that answers one request at a time

    takes_cuts = True

    def __repr__(self) -> str:
        dialect = self._detector.dialect
        return f"<OpenAIEngine {dialect.name if dialect else 'undetected'} {self._pool!r}>"

    def _key_headers(self, key: bytes | None) -> RequestHeaders:
        return () if key is None else ((b"authorization", b"Bearer " + key),)

    # life

    async def start(self) -> None:
        if self._pump_thread is not None:
            self._pump_thread.start()
        await super().start()

    async def stop(self) -> None:
        await self._detector.close()
        await super().stop()
        if self._pump_thread is not None:
            self._pump_thread.close()

    async def detect(self) -> Dialect:
        """The dialect: as chosen, or as detected. Raises ApiError when the engine is not reachable."""
        return await self._detector.detect()

    def describe(self) -> str | None:
        """The engine's name; None until it is detected."""
        return None if self._detector.dialect is None else self._detector.dialect.title

    def _health_path(self, models: FetchResult) -> str | None:
        return health_path(models)

    def _forget_engine(self) -> None:
        self._detector.forget()
        self._forget_learned()

    def _forget_learned(self) -> None:
        self._learned.forget()
        self._counter.forget()

    # small requests

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length, as the usage of its answer would have it.

        Raises NotImplementedError when the engine does not count, and ApiError.
        """
        dialect = self._dialect_for(request, self._detector.dialect or await self.detect())
        body = await self._body(request, dialect)
        try:
            return await self._counter.count(body, dialect, request.cuts)
        except (ApiError, TimeoutError, UpstreamError) as exc:
            error = self._fail(exc, "count_tokens", request_id=request.request_id).error
            raise error from error.__cause__

    async def _post_for_count(self, path: str, body: dict[str, Any], cuts: Cuts | None) -> FetchResult:
        """Raises UpstreamError and TimeoutError, which are not yet counted and logged."""
        encoded = await encoded_in_steps(body, cuts)
        return await fetch(self._pool, self._origin.target(path, api=False), self._headers, encoded)

    async def _probe(self, path: str) -> FetchResult:
        """GET a path outside the API. Raises ApiError, which is counted and logged already."""
        return await self._fetch("probe", self._origin.target(path, api=False))

    async def _list_models(self, pool: Pool | None = None) -> FetchResult:
        """As in the base class. Every list also tells which engine it is, and the context lengths of its models."""
        result = await super()._list_models(pool)
        before = self._detector.dialect
        self._detector.note(result)
        if self._detector.dialect is not before:
            self._forget_learned()
        if result.status == 200:
            with suppress(BadUpstream):
                self._model_list.note(parse_models(result.json()))
        return result

    # an answer

    async def stream(  # noqa: C901 - a helper costs per token
        self, request: MessagesRequest, *, may_hand_over: bool = True
    ) -> AsyncIterator[Batch]:
        """The answer; what one read brings is one batch. Raises ApiError."""
        dialect = self._dialect_for(request, await self._known_dialect())
        model = self._model_list.listed_name(request.engine_model)
        refused = dialect  # the last dialect that the engine has refused
        encoded = EncodedRequest(request, await self._body(request, dialect))
        asked = _Asked.by(request, dialect)
        stops_sent = "stop" in encoded.body
        output = None if self._new_pump is None else request.direct_output
        last: Deltas = ()  # the output that came together with the end
        del request  # `encoded` owns it, and releases it
        async with self._slot(dialect):
            for tries_left in reversed(range(_MAX_TRIES)):
                reader = await self._reader(encoded.request, dialect)
                exchange = await self._exchange(encoded)
                begun = False
                waits = True  # for the first output
                successor = None
                coalescer = ReadCoalescer(asyncio.get_running_loop().time)
                try:
                    async with exchange as response:
                        await raise_for_status(response)
                        if is_json(response):
                            yield await self._whole(reader, await read_body(response, self._limits))
                        else:
                            response.await_output()
                            read = response.read if output is None else self._relay(response, reader, output)
                            while data := await read():
                                batch = reader.read(data)
                                data = b""  # else it would be kept while nothing arrives
                                if type(batch) is list and reader.done and reader.finished and not reader.unread:
                                    last = batch
                                    break
                                if batch:
                                    yield batch
                                    if waits:
                                        begun = begun or await encoded.release()
                                        waits = not has_output(batch)
                                        if not waits:
                                            response.output_began()
                                    if coalescer.should_pause():
                                        response.pause_reading()
                                        await asyncio.sleep(PAUSE)
                                    if type(batch) is str:  # a read that is text alone has neither finished nor failed
                                        continue
                                if reader.unread:
                                    async with aclosing(read_on(reader)) as batches:
                                        async for batch in batches:
                                            yield batch
                                            begun = begun or await encoded.release()
                                    response.output_began()
                                    waits = False
                                if reader.over():
                                    break
                            rest = await self._rest(response, reader)
                            if rest:
                                yield rest
                        response.drain_on_exit() if reader.finished else response.distrust()
                except UpstreamError as exc:
                    if not reader.finished:  # else the answer is complete
                        raise self._fail(exc, "messages", exchange.status, encoded.request_id).error from exc
                except ApiError as exc:
                    failure = self._fail(exc, "messages", exchange.status, encoded.request_id)
                    may_retry = (failure.may_retry or failure.status == 500) and tries_left > 0 and not begun
                    error = failure.error
                    del failure
                    try:
                        successor = await self._hand_over(error, may_hand_over=may_hand_over and not begun)
                        if successor is None:
                            encoded, dialect, refused = await self._retry(
                                encoded, dialect, error, may_retry=may_retry, begun=begun
                            )
                    finally:
                        del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise
                    if successor is None:
                        continue
                finally:
                    self._report_repairs(reader.repairs)
                if successor is not None:
                    async with aclosing(successor.stream(encoded.request, may_hand_over=False)) as batches:  # type: ignore[type-var]
                        async for batch in batches:
                            yield batch
                    return
                if not reader.nothing_read or not self._hides_refusal(encoded, dialect):
                    break
                encoded = EncodedRequest(encoded.request, whole_answer_body(encoded.body))
        try:
            deltas = await self._end(reader, encoded.request_id)
            self._learn(model, asked, refused, dialect, reader)
            if stops_sent and reader.stopped_thinking:  # the next request keeps the stop sequences here
                error = BadUpstream("the engine matched a stop sequence inside its thinking")
                raise self._fail(error, "messages", 200, encoded.request_id).error
        except ApiError:
            if last:
                yield [*last]
            raise
        yield [*last, *deltas]

    def _relay(
        self, response: Exchange, reader: FastChunkReader, output: DirectOutput
    ) -> Callable[[], Coroutine[Any, Any, bytes]]:
        """The function that reads the body, with pumps for its steady parts."""
        assert self._new_pump is not None  # noqa: S101 - for the type checker
        return TokenRelay(response, reader, output, self._new_pump, self._limits.max_event, self._pump_thread).read

    def _slot(self, dialect: Dialect) -> AbstractAsyncContextManager[None]:
        """Held while the engine answers: one for all requests if the engine answers one at a time."""
        return self._single_slot if dialect.one_at_a_time else nullcontext()

    def _hides_refusal(self, encoded: EncodedRequest, dialect: Dialect) -> bool:
        """Whether an empty answer to this request is a refusal, whose words come only without a stream."""
        return dialect.empty_stream_is_refusal and bool(encoded.body["stream"])

    async def _whole(self, reader: FastChunkReader, body: bytes) -> list[Delta]:
        """The deltas of a response that is one JSON document. Raises ApiError."""
        return await in_thread(partial(reader.whole, body)) if len(body) > LARGE else reader.whole(body)

    async def _rest(self, response: Exchange, reader: FastChunkReader) -> list[Delta]:
        """The deltas of what follows the finish. Raises ApiError."""
        reader.paced = False
        trailer = await read_trailer(response, reader.read, reader)
        return trailer + (await in_thread(reader.rest) if reader.is_heavy else reader.rest())

    async def _end(self, reader: FastChunkReader, request_id: str) -> list[Delta]:
        """The last deltas, once the response is over. Raises ApiError."""
        try:
            return await in_thread(reader.end) if reader.is_heavy else reader.end()
        except ApiError as exc:
            raise self._fail(exc, "messages", 200, request_id).error from exc.__cause__
        finally:
            self._report_repairs(reader.repairs)
            if reader.unknown_finish_reason is not None:
                _log.warning(
                    "upstream: unknown finish reason %.40r request_id=%s", reader.unknown_finish_reason, request_id
                )

    async def _known_dialect(self) -> Dialect:
        """The engine's dialect. Starts to refresh a model list that is old. Raises ApiError."""
        dialect = self._detector.dialect or await self.detect()
        if not self._detector.chosen and self._since_list() >= MAX_AGE:
            self._model_list.refresh()
        return dialect

    def _dialect_for(self, request: MessagesRequest, dialect: Dialect) -> Dialect:
        """`dialect`, as the operator sets it and as this model's engine has shown to need it."""
        if self._late_system is not None:
            dialect = replace(dialect, late_system=self._late_system)
        model = self._model_list.listed_name(request.engine_model)
        if dialect.stops and request.stop_sequences:  # a model may think until an answer has shown that it does not
            dialect = replace(dialect, thinks=True, thinks_when_off=True)
        dialect = self._learned.apply(model, dialect, asyncio.get_running_loop().time())
        return dialect if self._think_tags == "off" else replace(dialect, thinks=True)

    def _learn(self, model: str, asked: "_Asked", refused: Dialect, accepted: Dialect, reader: FastChunkReader) -> None:
        """Remember what the answer shows of the engine: how it was asked successfully, and what it did.

        Only the last change before the success is known to have been needed: any earlier one may have been made for
        words that the engine quoted from the request. A field in which the engine once refused the reasoning of the
        history is not used again.
        """
        same = refused is accepted  # nearly always: the engine has accepted the first request
        changes = {} if same or accepted.name != refused.name else changes_between(refused, accepted)
        earlier = self._learned.changes(model)
        reasoning_refused = {"reasoning_key": None}.items() <= (earlier | changes).items()
        if reader.reasoning_key not in (None, accepted.reasoning_key) and not reasoning_refused:
            changes["reasoning_key"] = reader.reasoning_key
        if reader.called and asked.no_calls:
            changes["none_choice"] = False
        if accepted.stops:
            field = "thinks_when_off" if asked.thinking_off else "thinks"
            if reader.reasoning_key is not None:
                changes[field] = True
            elif asked.stops and reader.has_text and field not in earlier:
                changes[field] = False
        if "never" in changes:
            known = earlier.get("never", DIALECTS[accepted.name].never)
            changes["never"] = known | (accepted.never - refused.never)
        if not changes:
            return
        remember(self._learned, model, changes, self.observe, self.name)

    async def _body(self, request: MessagesRequest, dialect: Dialect) -> dict[str, Any]:
        """The body of the chat request, without what this engine is known not to accept."""
        body = await chat_body(request, dialect)
        ignored = ignored_fields(request, dialect)
        request.ignored.extend(path for path in ignored if path not in request.ignored)
        window = self._model_list.window(request.engine_model) if dialect.bounds_answers else None
        if window is not None and window < body.get(dialect.max_tokens_field, 0):
            body[dialect.max_tokens_field] = window
        if dialect.longest_answer is not None or dialect.reserved_window is not None:
            body[dialect.max_tokens_field] = accepted_length(
                body[dialect.max_tokens_field],
                partial(estimate_tokens, request),
                longest=dialect.longest_answer,
                window=dialect.reserved_window,
                scale=dialect.prompt_scale,
            )
        return body

    async def _exchange(self, encoded: EncodedRequest) -> Exchange:
        """The exchange that sends this request once it is entered. Raises InvalidRequest."""
        headers = (*_STREAM_HEADERS, *self._headers, *encoded.request.trace_headers)
        return self._pool.exchange("POST", self._target, headers, await encoded.encoded())

    async def _reader(self, request: MessagesRequest, dialect: Dialect) -> FastChunkReader:
        """The reader of the response to this request."""
        names = original_names(tool_names(request, dialect))
        mode: ThinkTagMode = "tags" if dialect.thinking_tags and self._think_tags == "off" else self._think_tags
        tags = think_tag_filter(mode, thinking_disabled=thinking_disabled(request, dialect))
        called = await earlier_call_ids(request)
        reader = ChunkReader(request.stop_sequences, new_call_id, called, names=names, tags=tags, limits=self._limits)
        return FastChunkReader(reader, self._limits.max_event, paced=True)

    async def _retry(
        self, encoded: EncodedRequest, dialect: Dialect, error: ApiError, *, may_retry: bool, begun: bool
    ) -> tuple[EncodedRequest, Dialect, Dialect]:
        """The request to send instead of the refused one, its dialect, and the dialect that the engine has refused.

        The two dialects are the same if the engine has refused no more than a value of this client. Raises ApiError if
        there is no such request.
        """
        try:
            if begun or not (may_retry or isinstance(error, InvalidRequest)):
                raise error from error.__cause__
            request, body = encoded.request, encoded.body
            length = length_field(body)
            # only asked after a refusal in vLLM's words, whatever stands between
            counting = dialect if dialect.counting != "no" else replace(dialect, counting="tokenize")
            counter = partial(self._counter.count, body, counting, encoded.request.cuts)
            count = partial(self._counted_within, counter, encoded.request_id)
            estimate = partial(estimate_tokens, request)
            mended = await self._mended_length(body[length], error, count, estimate, may_retry=may_retry)
            if mended is not None:
                shorter, limits = mended
                encoded = EncodedRequest(request, body | {length: shorter, "stream": True})
                return encoded, replace(dialect, **limits), dialect
            changed = await self._changed(encoded, dialect, error) if may_retry else None
            if changed is None:
                raise error from error.__cause__
            new_body, amended = changed
            left_out = amended.never - dialect.never | ({"top_k"} if dialect.top_k and not amended.top_k else set())
            one_value = any(is_about_a_value(body, field, error.message) for field in left_out)
            return EncodedRequest(request, new_body | {"stream": True}), amended, amended if one_value else dialect
        finally:
            del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise

    async def _changed(
        self, encoded: EncodedRequest, dialect: Dialect, error: ApiError
    ) -> tuple[dict[str, Any], Dialect] | None:
        """The body to send instead of the refused one, and its dialect; None if no change may help.

        Raises ApiError.
        """
        request, body = encoded.request, encoded.body
        if isinstance(error, EngineFailed):  # perhaps its template cannot render the history
            words = error.__cause__.message if isinstance(error.__cause__, EngineReport) else ""
            amended = amended_after_failure(dialect, body, await _look(body), words)
            return None if amended is None else await self._amended(encoded, amended)
        if wants_new_length_field(body, error.message):
            return await self._amended(encoded, replace(dialect, max_tokens_field="max_completion_tokens"))
        field = rejected_field(body, error.message)
        if field is not None:
            return await self._amended(encoded, replace(dialect, never=dialect.never | {field}))
        amended = amended_dialect(dialect, body, await _look(body), error.message)
        if amended is not None:
            return await self._amended(encoded, amended)
        if self._detector.chosen or self._since_list() < _DETECTION_VALID:
            return None
        self._detector.forget()
        detected = await self.detect()
        if detected.name == dialect.name:
            return None
        return await self._amended(encoded, self._dialect_for(request, detected))

    async def _amended(self, encoded: EncodedRequest, dialect: Dialect) -> tuple[dict[str, Any], Dialect]:
        """The request in another dialect. An answer that was shortened stays so."""
        body = await self._body(encoded.request, dialect)
        longest = encoded.body[length_field(encoded.body)]
        return body | {dialect.max_tokens_field: min(longest, body[dialect.max_tokens_field])}, dialect


async def _look(body: dict[str, Any]) -> SentMessages:
    """What the messages of a body that was sent have."""
    return await run_with_yields(look_in_steps(body["messages"]), perf_counter)
