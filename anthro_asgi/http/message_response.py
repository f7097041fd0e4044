"""The HTTP response to one `POST /v1/messages`: an event stream, or one Message as JSON. `answer` does the rest.

A stream:

    slot ─► answer.begin() ─► head and message_start ─► one send for each batch ─► message_delta, message_stop

The head waits for the engine's first output, so that a failure before it is reported with its own HTTP status. When the
first output takes longer than the ping interval, the head is sent without it, because clients give up on a silent
connection. From then on a failure is an `error` event.

Back-pressure: nothing is read from the engine while `send` waits.

Editors: `_pump` runs once for each batch of the engine, so for nearly every token of every stream.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final, TypeVar

from ..observability.metrics import Metrics
from ..wire.deltas import Delta
from ..wire.encoder import State, StreamEncoder
from ..wire.errors import Overloaded, SimulatedDisconnect
from ..wire.json_codec import dumps
from ..wire.large.cooperative import FREED_AT_ONCE, LARGE_BODY, run_with_yields
from ..wire.large.json_writer import dumps_in_steps
from .admission import Slot
from .answer import LARGE_BATCH, YIELD_EVERY, Answer, in_turns
from .direct_output import ClientOutput
from .disconnect import DisconnectWatch
from .engine_exceptions import as_exception, is_own
from .http_request import ClientDisconnected, HttpRequest
from .inline_driver import InlineDriver
from .ping import Pinger
from .prompt_tokens import PromptEstimate

_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
T = TypeVar("T")
_STREAM_HEADERS: Final = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))


class MessageResponse:
    """Sends `answer` as the response to `http_request`.

    Args:
        stream: whether the client asked for an event stream.
        slot: is acquired before the engine is asked.
        metrics: counts pings and the time between sends.
        estimate: the prompt's length where the engine has not reported it. It is released once it is no longer needed.
        ping_interval: seconds without a send after which a stream gets a ping.
        ignored: the paths of request fields without effect, for a response header. The engine may add to the list until
            its first output.
        headers: further headers. The engine may add to the list until its first output.
        direct: the client, if the engine may write to it directly.
    """

    def __init__(
        self,
        http_request: HttpRequest,
        answer: Answer,
        *,
        stream: bool,
        slot: Slot,
        metrics: Metrics,
        estimate: PromptEstimate,
        ping_interval: float,
        ignored: list[str],
        headers: list[tuple[str, str]],
        direct: ClientOutput | None = None,
    ) -> None:
        self._http_request = http_request
        self._answer = answer
        self._streams = stream
        self._slot = slot
        self._metrics = metrics
        self._estimate = estimate
        self._ping_interval = ping_interval
        self._ignored = ignored
        self._headers = headers
        self._direct = direct
        self._watch = DisconnectWatch(http_request)
        self._opening = b""  # `message_start`, until it has been sent
        self._send_times: list[float] = []  # not yet counted in the metrics
        self._time = asyncio.get_running_loop().time
        self._began = self._time()

    async def run(self) -> None:
        """Send the whole response.

        Raises ApiError only while no head has been sent, ClientDisconnected, and SimulatedDisconnect.
        """
        try:
            async with self._watch:
                await (self._stream() if self._streams else self._whole())
        finally:
            self._record_end()

    async def _ask(self, take: Callable[[], Awaitable[T]]) -> T:
        """Hold a slot and run the engine while `take` reads the answer. Returns its result. Raises Overloaded."""
        async with self._slot:
            self._http_request.record.queued = self._time() - self._began
            try:
                async with self._answer:
                    return await take()
            except BaseException as exc:
                if isinstance(exc, Exception) or is_own(exc):
                    raise
                raise as_exception(exc) from exc

    # one whole Message

    async def _whole(self) -> None:
        message = await self._ask(self._collect)
        self._http_request.record.stop_reason = self._answer.stop_reason
        if self._answer.collected > FREED_AT_ONCE:
            self._http_request.hold(message)
        if self._answer.collected > LARGE_BODY:
            body = await run_with_yields(dumps_in_steps(message), perf_counter)
        else:
            body = [dumps(message)]
        headers = (*self._http_request.report_ignored(self._ignored), *self._headers)
        await self._http_request.respond(200, body, headers=headers)

    async def _collect(self) -> dict[str, Any]:
        await self._answer.begin()
        self._record_first_output()
        return await self._answer.message()

    # a stream

    async def _stream(self) -> None:
        answer = self._answer
        self._encoder = encoder = StreamEncoder(answer.id, answer.model, self._estimate)
        encoder.usage = answer.usage
        encoder.fields = answer.fields
        try:
            with Pinger(self._ping_interval, self._ping) as self._pinger:
                last = await self._ask(self._send_deltas)
                await self._pinger.wait_ping()
            end = encoder.end(answer.counted)
            self._http_request.record.stop_reason = answer.stop_reason
            await self._send(last + end, more=False)
        except asyncio.CancelledError:
            # The server stops and no longer waits for this stream.
            if self._http_request.started and not self._watch.disconnected:
                await self._fail(Overloaded("the service is stopping", reason="stopping"))
            raise
        except Exception as exc:
            if isinstance(exc, ClientDisconnected | SimulatedDisconnect) or not self._http_request.started:
                raise
            if self._encoder.state is State.DONE:  # no event can follow, so the error boundary logs the exception
                raise
            await self._fail(exc)
        finally:
            if self._direct is not None:
                self._direct.close()

    async def _send_deltas(self) -> bytes:
        """Send what the engine yields. Returns the last bytes, which are sent with the end of the message."""
        last = await self._first()
        if self._answer.finish is not None:
            return last
        if self._direct is not None:
            self._direct.open(self._answer, self._encoder, self._pinger, self._send_times)
        return await InlineDriver(self._pump())

    async def _fail(self, exc: Exception) -> None:
        """End a stream that has begun with an `error` event."""
        if self._encoder.state is State.DONE:
            return
        if self._encoder.state is State.READY:  # the head was being sent
            self._opening = self._encoder.start()
        error = self._http_request.record_error(exc)
        await self._send(self._encoder.error(error, self._http_request.request_id), more=False)

    async def _first(self) -> bytes:
        """Wait for the first output and send it, after the head. Returns what is unsent if it was also the last."""
        await self._answer.begin()
        await self._pinger.wait_ping()
        self._record_first_output()
        self._pinger.sending = True
        if not self._http_request.started:
            await self._commit()
        data = self._encoder.feed(await anext(self._answer))
        if self._answer.finish is not None:
            return data
        await self._send(data)
        self._pinger.sent()
        return b""

    async def _pump(self) -> bytes:
        """Encode and send what the engine yields, one send for each batch, until the answer ends.

        Returns the last bytes, which are sent together with the end of the message.
        """
        answer = self._answer
        take = answer.take
        filters = answer.filters
        encoder = self._encoder
        text = encoder.text
        feed = encoder.feed
        pinger = self._pinger
        send = self._http_request.send
        channel = self._http_request.channel
        write = None if channel is None else channel.write
        time = self._time
        sent_at = self._send_times.append
        sent_at(pinger.last)
        until_yield = YIELD_EVERY
        async for batch in answer.batches:
            if type(batch) is str and not filters:
                answer.counted += 1
                data = text(batch)
            else:
                is_large = type(batch) is list and len(batch) > LARGE_BATCH
                data = await self._send_large(batch) if is_large else feed(take(batch))  # type: ignore[arg-type]  # list
                if answer.finish is not None:
                    return data
            until_yield -= 1
            if not until_yield:
                until_yield = YIELD_EVERY
                self._metrics.observe_gaps(self._send_times)
                await asyncio.sleep(0)
            if not data:
                continue
            if pinger.task is not None:
                await pinger.wait_ping()
            if write is None or not write(data):
                pinger.sending = True
                try:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                except OSError as exc:
                    raise ClientDisconnected from exc
                pinger.sending = False
            now = pinger.last = time()  # `Pinger.sent`, inlined
            sent_at(now)
        return feed(answer.ended())

    async def _send_large(self, batch: list[Delta]) -> bytes:
        """Send a list of many deltas in turns. Returns the bytes of the delta in which the answer ends, or none."""
        async for piece in in_turns(batch):
            data = self._encoder.feed(self._answer.take(piece))
            if self._answer.finish is not None:
                return data
            if data:
                await self._pinger.wait_ping()
                self._pinger.sending = True
                await self._send(data)
                self._pinger.sent()
        return b""

    async def _commit(self) -> None:
        """Send the head. `message_start` goes out with the next send."""
        headers = (*_STREAM_HEADERS, *self._http_request.report_ignored(self._ignored), *self._headers)
        await self._http_request.start_response(200, _EVENT_STREAM, headers)
        self._opening = self._encoder.start()
        self._estimate.release_request()

    async def _ping(self) -> None:
        if not self._http_request.started:
            await self._commit()
        await self._send(self._encoder.ping())
        self._metrics.note("ping", "")
        self._metrics.observe_gaps(self._send_times)

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        data, self._opening = self._opening + data, b""
        try:
            await self._http_request.send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError as exc:
            raise ClientDisconnected from exc

    # for the log

    def _record_first_output(self) -> None:
        self._http_request.record.ttft = self._time() - self._began

    def _record_end(self) -> None:
        """Record the tokens of the answer, also of one that was not completed: the engine has generated them."""
        self._metrics.observe_gaps(self._send_times)
        record, answer = self._http_request.record, self._answer
        if record.ttft is None:
            return
        usage = answer.usage
        record.input_tokens = usage.uncached_input_tokens
        record.output_tokens = answer.counted if usage.output_tokens is None else usage.output_tokens
        record.cached_tokens = usage.cache_read_input_tokens
