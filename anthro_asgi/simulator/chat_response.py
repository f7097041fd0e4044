"""The HTTP response to one `POST /v1/chat/completions`: chunks of a stream, or one completion as JSON.

It is to chat completions what `http.message_response` is to messages, and stands on the same `Answer`. An engine that
speaks this API sends no pings, so a head waits for the engine's first output however long that takes.

Editors: `_pump` runs once for each batch of the engine, so for every token of every stream.
"""

import asyncio
import secrets
import time
from typing import Final

from ..http.answer import YIELD_EVERY, Answer
from ..http.disconnect import DisconnectWatch
from ..http.http_request import ClientDisconnected, HttpRequest
from ..http.inline_driver import InlineDriver
from ..wire.errors import Overloaded, SimulatedDisconnect
from .chat_encoder import ChunkEncoder, completion_body

_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
_HEADERS: Final = (("cache-control", "no-cache"),)


class CompletionResponse:
    """Sends `answer` as the response to `http_request`.

    Args:
        stream: whether the client asked for a stream.
        usage: whether it asked for the token counts in the last chunk.
    """

    def __init__(self, http_request: HttpRequest, answer: Answer, *, stream: bool, usage: bool) -> None:
        self._http_request = http_request
        self._answer = answer
        self._streams = stream
        self._id = f"chatcmpl-{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._encoder = ChunkEncoder(self._id, answer.model, self._created, usage=usage)
        self._watch = DisconnectWatch(http_request)
        self._began = time.monotonic()

    async def run(self) -> None:
        """Send the whole response.

        Raises ApiError only while no head has been sent, ClientDisconnected, and SimulatedDisconnect.
        """
        try:
            async with self._watch:
                await (self._stream() if self._streams else self._whole())
        finally:
            self._record_end()

    async def _whole(self) -> None:
        answer = self._answer
        async with answer:
            await answer.begin()
            self._record_first_output()
            message = await answer.message()
        body = completion_body(message, self._id, self._created, answer.thinking_counted)
        self._http_request.record.stop_reason = answer.stop_reason
        await self._http_request.respond(200, body)

    async def _stream(self) -> None:
        answer = self._answer
        try:
            async with answer:
                last = await InlineDriver(self._pump())
            assert answer.finish is not None  # noqa: S101 - for the type checker
            end = self._encoder.end(answer.finish, answer.usage, answer.thinking_counted)
            self._http_request.record.stop_reason = answer.stop_reason
            await self._send(last + end, more=False)
        except asyncio.CancelledError:
            # The server stops and no longer waits for this stream.
            if self._http_request.started and not self._watch.disconnected:
                await self._fail(Overloaded("the service is stopping"))
            raise
        except Exception as exc:
            if isinstance(exc, ClientDisconnected | SimulatedDisconnect) or not self._http_request.started:
                raise
            await self._fail(exc)

    async def _fail(self, exc: Exception) -> None:
        """End a stream that has begun with an error chunk."""
        if not self._encoder.ended:
            await self._send(self._encoder.error(self._http_request.record_error(exc)), more=False)

    async def _pump(self) -> bytes:
        """Send the head and what the engine yields, one send for each batch, until the answer ends.

        Returns the last bytes, which are sent together with the end of the stream.
        """
        answer = self._answer
        take = answer.take
        filters = answer.filters
        encoder = self._encoder
        text = encoder.text
        await answer.begin()
        self._record_first_output()
        await self._http_request.start_response(200, _EVENT_STREAM, _HEADERS)
        data = encoder.start() + encoder.feed(await anext(answer))
        if self._answer.finish is not None:
            return data
        await self._send(data)
        until_yield = YIELD_EVERY
        async for batch in answer.batches:
            if type(batch) is str and not filters:
                answer.counted += 1
                data = text(batch)
            else:
                data = encoder.feed(take(batch))
                if answer.finish is not None:
                    return data
            if data:
                await self._send(data)
            until_yield -= 1
            if not until_yield:
                until_yield = YIELD_EVERY
                await asyncio.sleep(0)
        return encoder.feed(answer.ended())

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        try:
            await self._http_request.send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError as exc:
            raise ClientDisconnected from exc

    # for the log

    def _record_first_output(self) -> None:
        self._http_request.record.ttft = time.monotonic() - self._began

    def _record_end(self) -> None:
        """Record the tokens of the answer, also of one that was not completed."""
        record, answer = self._http_request.record, self._answer
        if record.ttft is None:
            return
        usage = answer.usage
        record.input_tokens = usage.uncached_input_tokens
        record.output_tokens = answer.counted if usage.output_tokens is None else usage.output_tokens
        record.cached_tokens = usage.cache_read_input_tokens
