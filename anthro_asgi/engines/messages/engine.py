"""An upstream that serves the Messages API itself. Its stream is read, repaired and encoded again.

The request body is sent as the client wrote it, except for:

- the model's name, with an alias resolved;
- `stream`, which is always true: only a stream can be cancelled;
- `stop_sequences`, which are matched by this service: most such servers stop, but report `end_turn`;
- `thread`, which this service answers itself;
- the engine's own switch for thinking, where it is known.

The response is read as deltas, so whatever it violates of the contract ends in `event_reader` and the encoder.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, Unpack

from ...upstream.errors import UpstreamError
from ...upstream.origin import Origin
from ...upstream.request import RequestHeaders
from ...wire.deltas import Delta
from ...wire.errors import ApiError, BadUpstream
from ...wire.request import MessagesRequest
from ..openai.chat_request import add_thinking
from ..openai.detection import health_path, recognise_models
from ..openai.dialects import LLAMACPP, PLAIN, Dialect
from ..openai.encoded_request import EncodedRequest
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
from .event_reader import EventReader
from .event_stream import EventStreamReader

_NOT_SENT: Final = ("stop_sequences", "thread")
_VERSION: Final = (b"anthropic-version", b"2023-06-01")
_MAX_WAIT: Final = 1.0  # seconds that an answer waits for the model list when an earlier dialect is known
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
        models = result.json() if result.status == 200 else None
        listed = models.get("data") if isinstance(models, dict) else None
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return any(entry.get("type") == "model" for entry in entries) if entries else None

    def _health_path(self, models: FetchResult) -> str | None:
        return health_path(models)

    def _forget_engine(self) -> None:
        self._dialect = None

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The server's own count. Raises NotImplementedError when it does not count, and ApiError."""
        request.ignored.clear()  # the server receives every field
        request.context_edits = ()  # and edits the context itself
        body = _body(request, await self._known_dialect())  # what the answer is asked with changes the prompt
        counted = {key: value for key, value in body.items() if key not in ("stream", "max_tokens")}
        encoded = await EncodedRequest(request, counted).encoded()
        try:
            return _token_count(await fetch(self._pool, f"{self._target}/count_tokens", self._headers, encoded))
        except (ApiError, TimeoutError, UpstreamError) as exc:
            error = self._fail(exc, "count_tokens", request_id=request.request_id).error
            raise error from error.__cause__

    # an answer

    async def stream(self, request: MessagesRequest) -> AsyncIterator[list[Delta]]:
        """The answer; what one read brings is one batch. Raises ApiError."""
        dialect = await self._known_dialect()
        request.ignored.clear()  # the server receives every field
        request.applied_edits.clear()  # and edits the context itself
        may_call = request.tool_choice is None or request.tool_choice.type != "none"
        encoded = EncodedRequest(request, _body(request, dialect))
        headers = (_JSON, *self._headers, *request.trace_headers)
        exchange = self._pool.exchange("POST", self._target, headers, await encoded.encoded())
        del request  # `encoded` owns it, and releases it
        reader = EventReader(new_call_id, calls=may_call, limits=self._limits)
        body = EventStreamReader(reader, self._limits.max_event)
        try:
            async with exchange as response:
                await encoded.release()
                await raise_for_status(response)
                if is_json(response):
                    message = await read_body(response, self._limits)
                    whole = partial(reader.whole, message)
                    yield await in_thread(whole) if len(message) > LARGE else whole()
                else:
                    while not reader.finished and (data := await response.read()):
                        deltas = body.read(data)
                        if deltas:
                            yield deltas
                            reader.feed(())  # raises an error that came after them in the same read
                        if body.unread:
                            async with aclosing(read_on(body)) as batches:
                                async for batch in batches:
                                    yield batch
                                    reader.feed(())
                    body.paced = False
                    trailer = await read_trailer(response, body.read, reader)
                    yield trailer + (await in_thread(body.rest) if body.is_heavy else body.rest())
                response.drain_on_exit()
            ending = await in_thread(reader.end) if body.is_heavy else reader.end()
        except ApiError as exc:
            raise self._fail(exc, "messages", exchange.status, encoded.request_id).error from exc.__cause__
        except UpstreamError as exc:
            if not reader.finished:  # else the answer is complete
                raise self._fail(exc, "messages", exchange.status, encoded.request_id).error from exc
            ending = reader.end()
        finally:
            self._report_repairs(reader.repairs)
        yield ending


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
