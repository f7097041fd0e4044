"""An upstream that serves the Messages API itself. Its stream is read, repaired and encoded again.

The request body is sent as the client wrote it, except for:

- the model's name, with an alias resolved;
- `stream`, which is always true: only a stream can be cancelled;
- `stop_sequences`, which are matched by this service: most such servers stop, but report `end_turn`;
- `thread`, which this service answers itself;
- the engine's own switch for thinking, where it is known;
- `max_tokens`, if the server has refused it as too large.

The client's `anthropic-beta` and `anthropic-version` are sent too. The server's headers about limits and the account go
back to the client. A request that the server refuses is sent again if another server has taken its place, or if its
words tell how long an answer may be.

The response is read as deltas, so whatever it violates of the contract ends in `event_reader` and the encoder.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Unpack

from ...upstream.errors import UpstreamError
from ...upstream.origin import Origin
from ...upstream.request import RequestHeaders
from ...wire.deltas import Batch, has_output
from ...wire.errors import ApiError, BadUpstream, InvalidRequest
from ...wire.estimate import estimate_tokens
from ...wire.request import MessagesRequest
from ..openai.chat_request import add_thinking
from ..openai.detection import health_path, recognise_models
from ..openai.dialects import LLAMACPP, PLAIN, Dialect
from ..openai.encoded_request import EncodedRequest
from ..openai.learned import LearnedDialects
from ..openai.learning import remember
from ..openai.refusals import changes_between
from ..shared.answer_length import accepted_length
from ..shared.event_pieces import LARGE
from ..shared.fetch import FetchResult, fetch
from ..shared.model_list import parse_models
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
from ..shared.single_flight import SingleFlight
from ..shared.upstream_errors import account_headers
from .event_reader import EventReader
from .event_stream import EventStreamReader

_NOT_SENT: Final = ("stop_sequences", "thread")
_VERSION: Final = (b"anthropic-version", b"2023-06-01")
_MAX_WAIT: Final = 1.0  # seconds that an answer waits for the model list when an earlier dialect is known
_DETECTION_VALID: Final = 5.0  # seconds after a model list in which the server is taken to be the same
_MAX_TRIES: Final = 4  # as asked, with an answer that fits the model, one that fits beside the prompt, in a new dialect
_JSON: Final = (b"content-type", b"application/json")


class MessagesEngine(RemoteEngine):
    """The Messages server at `origin`. The key is sent as `x-api-key` and as a bearer token, because servers differ."""

    accepts_server_tools = True

    def __init__(self, origin: Origin, **options: Unpack[RemoteOptions]) -> None:
        super().__init__(origin, **options)
        self._target = origin.target("/messages")
        self._dialect: Dialect | None = None
        self._last_dialect: Dialect | None = None
        self._detecting = SingleFlight(self._detect)
        self._learned = LearnedDialects()

    takes_cuts = True

    def __repr__(self) -> str:
        return f"<MessagesEngine {self._pool!r}>"

    def _key_headers(self, key: bytes | None) -> RequestHeaders:
        return (_VERSION,) if key is None else (_VERSION, (b"x-api-key", key), (b"authorization", b"Bearer " + key))

    async def detect(self) -> Dialect:
        """Which engine it is, by its model list. Raises ApiError when it is not reachable."""
        return await self._detecting.result()

    async def _detect(self) -> Dialect:
        models = await self._list_models()
        recognised = recognise_models(models)
        if recognised is None and models.status != 200 and self._last_dialect is not None:
            return self._last_dialect
        self._dialect = self._last_dialect = recognised or PLAIN
        if models.status == 200:
            with suppress(BadUpstream):
                self._model_list.note(parse_models(models.json()))
        return self._dialect

    def describe(self) -> str | None:
        """The engine's name; None until its model list was read."""
        if self._dialect is None:
            return None
        return "a Messages API server" if self._dialect is PLAIN else f"{self._dialect.title}, by its Messages API"

    async def _known_dialect(self) -> Dialect:
        """The dialect for an answer, which waits at most a second for the list if an earlier dialect is known."""
        if self._dialect is not None:
            return self._dialect
        if self._last_dialect is not None:
            return await self._detecting.result_within(_MAX_WAIT, self._last_dialect)
        return await self.detect()

    async def stop(self) -> None:
        await self._detecting.close()
        await super().stop()

    async def is_messages_server(self) -> bool | None:
        """Whether the model list has the shape of the Messages API; None if there is no list with a model.

        Raises ApiError when the upstream is not reachable.
        """
        result = await self._list_models()
        body = result.json() if result.status == 200 else None
        listed = body.get("data") if isinstance(body, dict) else None
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        models = [entry for entry in entries if isinstance(entry.get("id"), str)]
        return any(entry.get("type") == "model" for entry in models) if models else None

    def _health_path(self, models: FetchResult) -> str | None:
        return health_path(models)

    def _forget_engine(self) -> None:
        self._dialect = None
        self._learned.forget()

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The server's own count. Raises NotImplementedError when it does not count, and ApiError."""
        request.ignored.clear()  # the server receives every field
        request.context_edits = ()  # and edits the context itself
        body = _body(request, await self._known_dialect())  # what the answer is asked with changes the prompt
        try:
            return await self._count(request, body)
        except (ApiError, TimeoutError, UpstreamError) as exc:
            error = self._fail(exc, "count_tokens", request_id=request.request_id).error
            raise error from error.__cause__

    async def _count(self, request: MessagesRequest, body: dict[str, Any]) -> int:
        """The length of the prompt of `body`. Raises NotImplementedError, ApiError, TimeoutError and UpstreamError."""
        counted = {key: value for key, value in body.items() if key not in ("stream", "max_tokens")}
        encoded = await EncodedRequest(request, counted).encoded()
        result = await fetch(self._pool, f"{self._target}/count_tokens", self._request_headers(request), encoded)
        tokens = _token_count(result)
        request.response_headers[:] = account_headers(result.headers)
        return tokens

    def _request_headers(self, request: MessagesRequest) -> RequestHeaders:
        """The headers of a request: those of the client take the place of our own."""
        names = {name.encode() for name, _ in request.relay_headers}
        return (*(header for header in self._headers if header[0] not in names), *request.relay_headers)

    # an answer

    async def stream(  # noqa: C901 - the whole life of a request
        self, request: MessagesRequest, *, may_hand_over: bool = True
    ) -> AsyncIterator[Batch]:
        """The answer; what one read brings is one batch. Raises ApiError."""
        dialect = self._dialect_for(request, await self._known_dialect())
        model = self._model_list.listed_name(request.engine_model)
        refused = dialect  # the last dialect in which the server refused the request
        request.ignored.clear()  # the server receives every field
        request.applied_edits.clear()  # and edits the context itself
        may_call = request.tool_choice is None or request.tool_choice.type != "none"
        headers = (_JSON, *self._request_headers(request), *request.trace_headers)
        response_headers = request.response_headers
        encoded = EncodedRequest(request, _body(request, dialect))
        del request  # `encoded` owns it, and releases it
        for tries_left in reversed(range(_MAX_TRIES)):
            exchange = self._pool.exchange("POST", self._target, headers, await encoded.encoded())
            reader = EventReader(new_call_id, calls=may_call, limits=self._limits)
            body = EventStreamReader(reader, self._limits.max_event)
            begun = False
            successor = None
            try:
                async with exchange as response:
                    await raise_for_status(response)
                    response_headers[:] = account_headers(response.headers)
                    if is_json(response):
                        message = await read_body(response, self._limits)
                        whole = partial(reader.whole, message)
                        yield await in_thread(whole) if len(message) > LARGE else whole()
                        begun = True
                    else:
                        response.await_output()
                        while not reader.finished and (data := await response.read()):
                            deltas = body.read(data)
                            if deltas:
                                yield deltas
                                if not begun and has_output(deltas):
                                    begun = await encoded.release()
                                    response.output_began()
                                reader.feed(())  # raises an error that came after them in the same read
                            if body.unread:
                                async with aclosing(read_on(body)) as batches:
                                    async for batch in batches:
                                        yield batch
                                        if not begun and has_output(batch):
                                            begun = await encoded.release()
                                            response.output_began()
                                        reader.feed(())
                        body.paced = False
                        trailer = await read_trailer(response, body.read, reader)
                        yield trailer + (await in_thread(body.rest) if body.is_heavy else body.rest())
                    response.drain_on_exit() if reader.finished else response.distrust()
                ending = await in_thread(reader.end) if body.is_heavy else reader.end()
            except ApiError as exc:
                failure = self._fail(exc, "messages", exchange.status, encoded.request_id)
                may_retry = failure.may_retry and tries_left > 0 and not begun
                before = dialect
                error = failure.error
                del failure
                try:
                    successor = await self._hand_over(error, may_hand_over=may_hand_over and not begun)
                    if successor is None:
                        encoded, dialect = await self._retry(encoded, dialect, error, may_retry=may_retry, begun=begun)
                finally:
                    del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise
                if successor is None:
                    refused = before if dialect is not before else refused
                    continue
            except UpstreamError as exc:
                if not reader.finished:  # else the answer is complete
                    raise self._fail(exc, "messages", exchange.status, encoded.request_id).error from exc
                ending = reader.end()
            finally:
                self._report_repairs(reader.repairs)
            break
        if successor is not None:
            answer = successor.stream(encoded.request, may_hand_over=False)
            del encoded
            async with aclosing(answer):  # type: ignore[type-var]
                async for taken in answer:
                    yield taken
            return
        changes = changes_between(refused, dialect) if refused.name == dialect.name else {}
        if changes:
            remember(self._learned, model, changes, self.observe, self.name)
        yield ending

    def _dialect_for(self, request: MessagesRequest, dialect: Dialect) -> Dialect:
        """`dialect` with the limits that the server has told for this model."""
        model = self._model_list.listed_name(request.engine_model)
        return self._learned.apply(model, dialect, asyncio.get_running_loop().time())

    async def _retry(
        self, encoded: EncodedRequest, dialect: Dialect, error: ApiError, *, may_retry: bool, begun: bool
    ) -> tuple[EncodedRequest, Dialect]:
        """The request to send instead of the refused one, and its dialect. Raises ApiError if there is none."""
        try:
            if begun or not (may_retry or isinstance(error, InvalidRequest)):
                raise error from error.__cause__
            request, body = encoded.request, encoded.body
            count = partial(self._counted_within, partial(self._count, request, body), encoded.request_id)
            estimate = partial(estimate_tokens, request)
            mended = await self._mended_length(body["max_tokens"], error, count, estimate, may_retry=may_retry)
            if mended is not None:
                shorter, limits = mended
                return EncodedRequest(request, body | {"max_tokens": shorter}), replace(dialect, **limits)
            if not may_retry or self._since_list() < _DETECTION_VALID:
                raise error from error.__cause__
            self._dialect = None
            detected = await self.detect()
            if detected.name == dialect.name:
                raise error from error.__cause__
            return EncodedRequest(request, _body(request, detected)), detected
        finally:
            del error  # its traceback refers to this frame: a cycle for the garbage collector otherwise


def _body(request: MessagesRequest, dialect: Dialect) -> dict[str, Any]:
    """The body for the server.

    llama.cpp calls tools although `tool_choice` is none, and any tool although one is named. So it receives no tools,
    or only the named one. A tool that only a message defines is not in the list, which then stays as it is.
    """
    body = {key: value for key, value in request.raw.items() if key not in _NOT_SENT}
    choice = request.tool_choice
    if dialect is LLAMACPP and choice is not None and choice.type == "none":
        body = {key: value for key, value in body.items() if key not in ("tools", "tool_choice")}
    elif dialect is LLAMACPP and choice is not None and choice.type == "tool":
        named = [tool for tool in body.get("tools") or () if tool.get("name") == choice.name]
        if named:
            body["tools"] = named
            body["tool_choice"] = {**body["tool_choice"], "type": "any"}
            del body["tool_choice"]["name"]
    add_thinking(body, request, dialect)
    if "max_tokens" in body:
        body["max_tokens"] = accepted_length(
            body["max_tokens"],
            partial(estimate_tokens, request),
            longest=dialect.longest_answer,
            window=dialect.reserved_window,
            scale=dialect.prompt_scale,
        )
    return {**body, "model": request.engine_model, "stream": True}


def _token_count(result: FetchResult) -> int:
    """Raises NotImplementedError when the server does not count, and ApiError."""
    if result.status in (404, 405, 501):
        raise NotImplementedError
    value = result.json() if result.status == 200 else None
    tokens = value.get("input_tokens") if isinstance(value, dict) else None
    if type(tokens) is not int:
        raise result.error()
    return tokens
