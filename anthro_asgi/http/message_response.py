"""One answer's life: the engine's first batch → start → stream → the last frames, or one whole Message.

Until something has been sent, every failure keeps its own HTTP status; so the head waits for the engine's first output.
If that takes longer than the ping interval the stream is committed, for a client that hears nothing gives up: from then
on a failure is an `error` event. Back-pressure is by pulling: nothing is asked of the engine while `send` waits.

Editors: `_pump` runs once for each thing an engine yields, for every token of every stream.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from ..engines.base import BaseEngine
from ..observability.metrics import Metrics
from ..wire.answer_limits import AnswerLimits
from ..wire.deltas import Batch, Finish, Usage, deltas_of
from ..wire.encoder import State, StreamEncoder
from ..wire.errors import AnswerTooLarge, BadUpstream, Overloaded, SimulatedDisconnect
from ..wire.json_codec import dumps
from ..wire.message import MessageBuilder
from ..wire.request import MessagesRequest
from ..wire.stop_sequences import StopSequenceFilter
from ..wire.thinking_filter import ThinkingFilter
from .admission import Slot
from .disconnect import DisconnectWatch, Pinger
from .http_request import ClientDisconnected, HttpRequest
from .inline_driver import InlineDriver
from .prompt_tokens import PromptEstimate

_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
_STREAM_HEADERS: Final = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
_YIELD_EVERY: Final = (
    32  # batches after which other tasks get a turn: neither a fast engine nor `send` need ever suspend
)


class MessageResponse:
    """Answers one `POST /v1/messages` from `engine`. `run` raises ApiError only before the head is sent.

    `slot` is its slot at the engine, for which it waits; `metrics` count. `estimate` is the prompt's length where the
    engine has not told it. `ping_interval` in seconds. `hide_thinking` leaves out reasoning when the client had it
    disabled; `limits` are those of a whole Message. A stream is open for long, and a prompt is large: it is handed to
    the engine and not kept.
    """

    def __init__(
        self,
        http_request: HttpRequest,
        engine: BaseEngine,
        request: MessagesRequest,
        *,
        slot: Slot,
        metrics: Metrics,
        estimate: PromptEstimate,
        ping_interval: float,
        hide_thinking: bool,
        limits: AnswerLimits,
    ) -> None:
        self._http_request = http_request
        self._engine = engine
        self._request: MessagesRequest | None = request  # until the engine is asked
        self._model = request.model
        self._streams = request.stream
        self._slot = slot
        self._metrics = metrics
        self._limits = limits
        self._estimate = estimate
        self._ping_interval = ping_interval
        self._stops = StopSequenceFilter(request.stop_sequences) if request.stop_sequences else None
        self._thoughts = _thought_filter(request, hide_thinking)
        self._filters = self._stops is not None or self._thoughts is not None
        self._watch = DisconnectWatch(http_request.receive)
        self._opening = b""  # `message_start`, until it has been sent
        self._counted = 0  # deltas, for an engine that gives no usage
        self._usage = Usage()
        self._marks: list[float] = []  # when something was sent, until the time between is counted
        self._time = asyncio.get_running_loop().time
        self._began = self._time()

    async def run(self) -> None:
        try:
            async with self._watch:
                await (self._stream() if self._streams else self._whole())
        finally:
            self._note_end()

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[AsyncIterator[Batch]]:
        """What the engine yields, once it is this request's turn. Raises Overloaded."""
        async with self._slot:
            self._http_request.record.queued = self._time() - self._began
            request, self._request = self._request, None
            assert request is not None  # noqa: S101 - for the type checker
            batches = self._engine.stream(request)
            del request
            async with aclosing(batches):  # type: ignore[type-var]
                yield batches

    # one whole Message

    async def _whole(self) -> None:
        builder = MessageBuilder(*self._identity(), self._estimate, limits=self._limits)
        self._usage = builder.usage
        turn = 0
        async with self._asked() as batches:
            async for batch in batches:
                self._note_first()
                self._keep(builder, self._counting(batch))
                if builder.finish is not None:
                    break
                turn += 1
                if turn % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            else:
                self._keep(builder, self._ending())
        message = builder.message(self._counted)
        for kind in builder.repairs.elements():
            self._metrics.note("repair", kind)
        self._http_request.record.stop_reason = message["stop_reason"]
        await self._http_request.respond(200, dumps(message))

    def _keep(self, builder: MessageBuilder, batch: Batch) -> None:
        try:
            builder.feed(batch)
        except AnswerTooLarge:
            self._metrics.note("upstream_error", "too_large")
            raise

    # a stream

    async def _stream(self) -> None:
        self._encoder = encoder = StreamEncoder(*self._identity(), self._estimate)
        self._usage = encoder.usage
        try:
            with Pinger(self._ping_interval, self._ping) as self._pinger:
                async with self._asked() as batches:
                    last = await self._first(batches)
                    if encoder.finish is None:
                        last = await InlineDriver(self._pump(batches))
                await self._pinger.wait_ping()
            end = encoder.end(self._counted)
            assert encoder.finish is not None  # noqa: S101 - for the type checker
            self._http_request.record.stop_reason = encoder.finish.stop_reason
            await self._send(last + end, more=False)
        except asyncio.CancelledError:
            if self._http_request.started and not self._watch.disconnected:  # the server will wait no longer
                await self._fail(Overloaded("the service is stopping"))
            raise
        except Exception as exc:
            if isinstance(exc, (ClientDisconnected, SimulatedDisconnect)) or not self._http_request.started:
                raise
            await self._fail(exc)

    async def _fail(self, exc: Exception) -> None:
        """Ends a stream that has begun with an `error` event."""
        if self._encoder.state is State.DONE:
            return
        if self._encoder.state is State.READY:  # the head was on its way
            self._opening = self._encoder.start()
        error = self._http_request.record_error(exc)
        await self._send(self._encoder.error(error, self._http_request.request_id), more=False)

    async def _first(self, batches: AsyncIterator[Batch]) -> bytes:
        """Waits for the engine's first output and commits the stream; the last bytes if that was all there is."""
        encoder = self._encoder
        async for batch in batches:
            await self._pinger.wait_ping()
            batch = self._counting(batch)
            if not self._opens(batch):
                await asyncio.sleep(0)  # as below, where it is seldom
                continue
            self._note_first()
            self._pinger.sending = True
            if not self._http_request.started:
                await self._commit()
            data = encoder.feed(batch)
            if encoder.finish is not None:
                return data
            await self._send(data)
            self._pinger.sent()
            return b""
        batch = self._ending()
        self._pinger.sending = True
        if not self._http_request.started:
            await self._commit()
        return encoder.feed(batch)

    async def _pump(self, batches: AsyncIterator[Batch]) -> bytes:
        """Encodes and sends what the engine yields, one send a batch, until it has finished; what is still unsent."""
        encoder = self._encoder
        pinger = self._pinger
        send = self._http_request.send
        text = encoder.text
        time = self._time
        mark = self._marks.append
        mark(pinger.last)
        filters = self._filters
        turn = _YIELD_EVERY
        async for batch in batches:
            if type(batch) is str and not filters:
                self._counted += 1
                data = text(batch)
            else:
                data = encoder.feed(self._counting(batch))
                if encoder.finish is not None:
                    return data
            turn -= 1
            if not turn:
                turn = _YIELD_EVERY
                self._metrics.observe_gaps(self._marks)
                await asyncio.sleep(0)
            if not data:
                continue
            if pinger.task is not None:
                await pinger.wait_ping()
            pinger.sending = True
            try:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            except OSError as exc:
                raise ClientDisconnected from exc
            now = pinger.last = time()  # as `sent` does
            pinger.sending = False
            mark(now)
        return encoder.feed(self._ending())

    async def _commit(self) -> None:
        """Sends the head, and has `message_start` go out with what is sent next: from here on this is a stream."""
        await self._http_request.start_response(200, _EVENT_STREAM, _STREAM_HEADERS)
        self._opening = self._encoder.start()
        self._estimate.release_request()

    async def _ping(self) -> None:
        if not self._http_request.started:
            await self._commit()
        await self._send(self._encoder.ping())
        self._metrics.note("ping", "")
        self._metrics.observe_gaps(self._marks)

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        data, self._opening = self._opening + data, b""
        try:
            await self._http_request.send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError as exc:
            raise ClientDisconnected from exc

    # what the engine yields

    def _opens(self, batch: Batch) -> bool:
        """Whether there is output in the batch. Counts and empty texts are only noted: the engine may still fail."""
        output = False
        for delta in deltas_of(batch):
            if isinstance(delta, Usage) or delta == "":
                self._encoder.feed(delta)
            else:
                output = True
        return output

    def _counting(self, batch: Batch) -> Batch:
        """The same as `_passing`, and counts the deltas up to the stop sequence, however many came with it."""
        self._counted += len(batch) if isinstance(batch, list) else 1
        passing = self._passing(batch)
        if self._stops is not None:
            self._counted -= self._stops.unread
        return passing

    def _passing(self, batch: Batch) -> Batch:
        """The batch as the client shall have it: cut off at a stop sequence, without thinking it did not want."""
        if self._thoughts is not None:
            batch = self._thoughts.feed(batch)
        return batch if self._stops is None else self._stops.feed(batch)

    def _ending(self) -> Batch:
        """The Finish of an engine that has returned without one, where that is how it ends its turn."""
        if not self._engine.returning_ends_turn:
            raise BadUpstream("the engine broke off before it had finished")
        return self._passing([Finish("end_turn")])

    def _identity(self) -> tuple[str, str]:
        return f"msg_{secrets.token_urlsafe(18)}", self._model

    # for the log

    def _note_first(self) -> None:
        if self._http_request.record.ttft is None:
            self._http_request.record.ttft = self._time() - self._began

    def _note_end(self) -> None:
        """What the answer came to, or would have: an engine that was left has worked too."""
        self._metrics.observe_gaps(self._marks)
        if self._stops is not None and self._stops.matched is not None:
            self._metrics.note("repair", "stop_sequence")
        record, usage = self._http_request.record, self._usage
        if record.ttft is None and record.stop_reason is None:
            return
        record.input_tokens = usage.input_tokens
        record.output_tokens = self._counted if usage.output_tokens is None else usage.output_tokens
        record.cached_tokens = usage.cache_read_input_tokens


def _thought_filter(request: MessagesRequest, hide_thinking: bool) -> ThinkingFilter | None:
    thinking = request.thinking
    if thinking is None:
        return None
    if hide_thinking and thinking.type == "disabled":
        return ThinkingFilter(keep_signatures=False)
    return ThinkingFilter(keep_signatures=True) if thinking.display == "omitted" else None
