"""An OpenAI-compatible engine behind a URL: the conversion of `chat` and `chunks`, over a pool of `upstream`.

It always streams from the engine, also for a client that does not: a stream is the only call that every engine stops
when the connection is closed, so that a client that left frees its slot.

A request that the engine refuses before its first word is asked again where its words say how: for an answer that
fits, without a field it does not like (see `amends`), or in another dialect, if another engine has taken its place.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, Unpack

from ...upstream.errors import PoolExhausted, TooLarge, UpstreamError
from ...upstream.origin import Origin
from ...upstream.pool import Exchange, Pool
from ...upstream.request import RequestHeaders
from ...wire.deltas import Batch, Delta
from ...wire.errors import ApiError, BadUpstream, ContextTooLong, InvalidRequest, NotFound
from ...wire.large.cooperative import run_with_yields
from ...wire.request import MessagesRequest
from ..shared.fetch import FetchResult, is_json, kind_of, raise_for_status, read_body
from ..shared.model_list import MAX_AGE, parse_models
from ..shared.remote import RemoteEngine, RemoteOptions, new_call_id, read_trailer
from .chat_request import call_ids, encode_in_steps, thinking_disabled, tool_names
from .chunk_reader import ChunkReader
from .count_tokens import PromptTokenCounter
from .detection import EngineDetector
from .dialects import DIALECTS, Dialect
from .encoded_request import EncodedRequest, chat_body
from .fast_path import FastChunkReader
from .read_coalescer import PAUSE, ReadCoalescer
from .retry import rejected_field, shorten_answer
from .think_tags import ThinkTagMode, think_tag_filter
from .tool_names import original_names

_SURE: Final = 5.0  # seconds for which an engine that said who it is, is still the same
_TRIES: Final = 4  # of one request: an answer too long for the model, then beside the prompt, and a field refused
_STREAM_HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"))


class OpenAIEngine(RemoteEngine):
    """The engine at `origin`. `key` is sent as a bearer token. `dialect` names one of DIALECTS; None is to detect it.

    `late_system` says whether a system message may stand between turns; None leaves it to the dialect. `think_tags`
    finds `<think>` in the answer's text: not at all, as a block, or as one that the template opens (see `think`).

    Raises ValueError for a dialect that does not exist or a key that cannot stand in a header.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        dialect: str | None = None,
        late_system: bool | None = None,
        think_tags: ThinkTagMode = "off",
        **how: Unpack[RemoteOptions],
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect {dialect!r}: known are {', '.join(DIALECTS)}")
        super().__init__(origin, **how)
        self._target = origin.target("/chat/completions")
        self._late_system = late_system
        self._think_tags = think_tags
        chosen = DIALECTS[dialect] if dialect is not None else None
        self._detector = EngineDetector(chosen, self._list_models, self._fetch_beside_api)
        self._counter = PromptTokenCounter(self._fetch_beside_api)
        self._asked_at = float("-inf")  # on the loop's clock
        self._rejected_fields: set[tuple[str, str]] = set()  # (model, field) that an engine refused

    def __repr__(self) -> str:
        dialect = self._detector.dialect
        return f"<OpenAIEngine {dialect.name if dialect else 'undetected'} {self._pool!r}>"

    def _signed(self, key: bytes | None) -> RequestHeaders:
        return () if key is None else ((b"authorization", b"Bearer " + key),)

    # life

    async def stop(self) -> None:
        await self._detector.close()
        await super().stop()

    async def detect(self) -> Dialect:
        """The dialect: as chosen, or by what the engine says. Raises ApiError when the engine is not reachable."""
        return await self._detector.detect()

    # what it has

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The prompt's length, as its answer's usage will have it. Raises NotImplementedError where nobody counts."""
        dialect = self._detector.dialect or await self.detect()
        try:
            return await self._counter.count(await self._body(request, dialect), dialect)
        except ApiError as exc:
            raise self._redact(exc) from exc.__cause__

    async def _list_models(self, pool: Pool | None = None) -> FetchResult:
        """Ask for the list, and learn from it."""
        self._asked_at = asyncio.get_running_loop().time()
        answer = await super()._list_models(pool)
        before = self._detector.dialect
        self._detector.note(answer)
        if self._detector.dialect is not before:
            self._forget_habits()
        if answer.status == 200:
            with suppress(BadUpstream):
                self._model_list.note(parse_models(answer.json()))
        return answer

    async def _fetch_beside_api(self, path: str, body: dict[str, Any] | None = None) -> FetchResult:
        encoded = None if body is None else await run_with_yields(encode_in_steps(body), perf_counter)
        return await self._fetch(self._origin.target(path, api=False), encoded)

    # one answer

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The answer, read by read. Raises ApiError."""
        dialect = await self._known()
        asked = EncodedRequest(request, await self._body(request, dialect))
        del request  # it is let go of with `asked`
        for left in reversed(range(_TRIES)):
            reader = self._reader(asked.request, self._detector.dialect or dialect)
            exchange = await self._exchange(asked)
            begun = False
            coalescer = ReadCoalescer(asyncio.get_running_loop().time)
            try:
                async with exchange as response:
                    await raise_for_status(response)
                    if is_json(response):
                        yield reader.whole(await read_body(response, self._limits))
                    else:
                        while data := await response.read():
                            said = reader.read(data)
                            if said:
                                yield said
                                begun = begun or await asked.release()
                                if coalescer.should_pause():
                                    response.pause_reading()
                                    await asyncio.sleep(PAUSE)
                                if type(said) is str:  # text alone, behind which nothing ended or failed
                                    continue
                            if reader.over():
                                break
                        yield await read_trailer(response, reader.read, reader) + reader.rest()
                    response.drain_on_exit()
            except ApiError as exc:
                asked = await self._again(asked, exc, exchange.status, may=bool(left) and not begun)
                continue
            except UpstreamError as exc:
                if not reader.finished:
                    raise self._lost(exc) from exc
            finally:
                self._report(reader.repairs)
            break
        yield self._ended(reader)

    async def _known(self) -> Dialect:
        """The engine's dialect; what else is known of it is learned anew if it is old. Raises ApiError."""
        dialect = self._detector.dialect or await self.detect()
        if not self._detector.chosen and self._asked_ago() >= MAX_AGE:
            self._model_list.refresh()
        return dialect

    async def _body(self, request: MessagesRequest, dialect: Dialect) -> dict[str, Any]:
        """What to ask, as far as it is known what this engine takes."""
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

    async def _exchange(self, asked: EncodedRequest) -> Exchange:
        """To be made by entering it. Raises InvalidRequest."""
        headers = (*_STREAM_HEADERS, *self._headers, *asked.request.trace_headers)
        return self._pool.exchange("POST", self._target, headers, await asked.encoded())

    def _reader(self, request: MessagesRequest, dialect: Dialect) -> FastChunkReader:
        """Who reads the answer to that body."""
        names = original_names(tool_names(request, dialect))
        tags = think_tag_filter(self._think_tags, thinking_disabled=thinking_disabled(request, dialect))
        reader = ChunkReader(
            request.stop_sequences, new_call_id, call_ids(request), names=names, tags=tags, limits=self._limits
        )
        return FastChunkReader(reader, self._limits.max_event)

    async def _again(self, asked: EncodedRequest, error: ApiError, status: int, *, may: bool) -> EncodedRequest:
        """What to ask instead of what failed with `error`, behind an answer's `status`. Raises that where there is
        nothing, or it `may` not be.
        """
        self.observe("upstream_error", kind_of(error, status))
        instead = await self._instead(asked.request, asked.body, error) if may else None
        if instead is None:
            raise self._redact(error) from error.__cause__
        return EncodedRequest(asked.request, instead)

    async def _instead(self, request: MessagesRequest, body: dict[str, Any], error: ApiError) -> dict[str, Any] | None:
        """What to ask instead of what was refused with `error`, if anything. Raises ApiError."""
        if isinstance(error, ContextTooLong) or not isinstance(error, (InvalidRequest, NotFound)):
            return None
        fits = shorten_answer(body, error.message)
        if fits is not None:
            if "max_tokens" not in fits:
                self._rejected_fields.add((request.engine_model, "max_tokens"))
            return fits
        field = rejected_field(body, error.message)
        if field is not None:
            self._rejected_fields.add((request.engine_model, field))
            return {key: value for key, value in body.items() if key != field}
        before = self._detector.dialect
        if self._detector.chosen or self._asked_ago() < _SURE:
            return None
        self._detector.forget()
        dialect = await self.detect()
        return await self._body(request, dialect) if dialect is not before else None

    # who is not there

    def _forget(self) -> None:
        """Whoever is there next time may be another."""
        self._detector.forget()
        self._forget_habits()

    def _forget_habits(self) -> None:
        self._rejected_fields.clear()
        self._counter.forget()

    def _asked_ago(self) -> float:
        """Seconds since the engine was last asked who it is."""
        return asyncio.get_running_loop().time() - self._asked_at

    def _ended(self, reader: FastChunkReader) -> list[Delta]:
        """What is left at last. Raises ApiError."""
        if not reader.finished:
            self._forget()
        try:
            return reader.end()
        except ApiError as exc:
            self.observe("upstream_error", kind_of(exc))
            raise self._redact(exc) from exc.__cause__
        finally:
            self._report(reader.repairs)

    def _lost(self, exc: UpstreamError | TimeoutError) -> ApiError:
        if not isinstance(exc, (PoolExhausted, TooLarge)):
            self._forget()
        return super()._lost(exc)
