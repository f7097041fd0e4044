"""One answer's life, in chat completions: the engine's first batch → start → chunks → the end, or one whole.

Like `http.message_response`, as far as it goes: the head waits for the engine's first output, so a failure before it
has a status of its own, and nothing is asked of the engine while `send` waits. Engines of this tongue send no pings.

Editors: `_pump` runs once for each thing an engine yields, for every token of every stream.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from ..engines.base import BaseEngine
from ..http.disconnect import DisconnectWatch
from ..http.http_request import ClientDisconnected, HttpRequest
from ..http.inline_driver import InlineDriver
from ..wire.deltas import Batch
from ..wire.errors import BadUpstream, SimulatedDisconnect
from ..wire.stop_sequences import StopSequenceFilter
from .chat_encoder import ChunkEncoder, Completion, CompletionCounts
from .chat_request import CompletionRequest

_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
_HEADERS: Final = (("cache-control", "no-cache"),)
_YIELD_EVERY: Final = 32  # batches after which other tasks get a turn


class CompletionResponse:
    """Answers one `POST /v1/chat/completions` from `engine`. `run` raises ApiError only before the head is sent."""

    def __init__(self, http_request: HttpRequest, engine: BaseEngine, completion_request: CompletionRequest) -> None:
        self._http_request = http_request
        self._engine = engine
        self._completion_request: CompletionRequest | None = (
            completion_request  # until the engine is asked: a prompt is large
        )
        self._streams = completion_request.request.stream
        self._usage = completion_request.usage
        self._model = completion_request.request.model
        self._stops = (
            StopSequenceFilter(completion_request.request.stop_sequences)
            if completion_request.request.stop_sequences
            else None
        )
        self._began = time.monotonic()

    async def run(self) -> None:
        async with DisconnectWatch(self._http_request.receive):
            await (self._stream() if self._streams else self._whole())

    def _ask(self) -> AsyncIterator[Batch]:
        completion_request, self._completion_request = self._completion_request, None
        assert completion_request is not None  # noqa: S101 - for the type checker
        return self._engine.stream(completion_request.request)

    def _identity(self) -> tuple[str, str, int]:
        return f"chatcmpl-{secrets.token_hex(16)}", self._model, int(time.time())

    async def _whole(self) -> None:
        completion = Completion(*self._identity())
        turn = 0
        async with aclosing(self._ask()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                self._note_first()
                completion.feed(self._passing(batch))
                if completion.counted.finish is not None:
                    break
                turn += 1
                if turn % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            else:
                raise BadUpstream("the engine broke off before it had finished")
        self._note_end(completion.counted)
        await self._http_request.respond(200, completion.body())

    async def _stream(self) -> None:
        encoder = ChunkEncoder(*self._identity(), usage=self._usage)
        try:
            async with aclosing(self._ask()) as batches:  # type: ignore[type-var]
                last = await InlineDriver(self._pump(encoder, batches))
            self._note_end(encoder.counted)
            await self._send(last + encoder.end(), more=False)
        except Exception as exc:
            if isinstance(exc, (ClientDisconnected, SimulatedDisconnect)) or not self._http_request.started:
                raise
            await self._send(encoder.error(self._http_request.record_error(exc)), more=False)

    async def _pump(self, encoder: ChunkEncoder, batches: AsyncIterator[Batch]) -> bytes:
        """Sends what the engine yields, one send a batch, until it has finished; what is still unsent."""
        opening = encoder.start()
        filters = self._stops is not None
        turn = _YIELD_EVERY
        async for batch in batches:
            data = encoder.feed(self._passing(batch) if filters else batch)
            if not self._http_request.started and (data or encoder.counted.finish):
                self._note_first()
                await self._http_request.start_response(200, _EVENT_STREAM, _HEADERS)
                data = opening + data
            if encoder.counted.finish is not None:
                return data
            if data:
                await self._send(data)
            turn -= 1
            if not turn:
                turn = _YIELD_EVERY
                await asyncio.sleep(0)
        raise BadUpstream("the engine broke off before it had finished")

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        try:
            await self._http_request.send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError as exc:
            raise ClientDisconnected from exc

    def _passing(self, batch: Batch) -> Batch:
        """The batch, cut off at a stop sequence."""
        return batch if self._stops is None else self._stops.feed(batch)

    def _note_first(self) -> None:
        if self._http_request.record.ttft is None:
            self._http_request.record.ttft = time.monotonic() - self._began

    def _note_end(self, counted: CompletionCounts) -> None:
        record = self._http_request.record
        record.stop_reason = counted.finish.stop_reason if counted.finish else None
        record.input_tokens = counted.usage.input_tokens
        record.output_tokens = counted.tokens
