"""What an engine writes to a client directly is counted and timed as if it had been sent."""

import asyncio
from typing import Any

import pytest

from anthro_asgi import Finish
from anthro_asgi.engines.functions import as_engine
from anthro_asgi.http.answer import Answer
from anthro_asgi.http.direct_output import ClientOutput
from anthro_asgi.http.ping import Pinger
from anthro_asgi.observability.metrics import Metrics
from anthro_asgi.wire.deltas import Thinking
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.request import MessagesRequest
from tests.support.clock import fake_clock


async def nothing(request: MessagesRequest) -> Any:
    yield Finish("end_turn")


class Stream:
    """A stream whose head is sent, and what writes to it."""

    def __init__(self, **fields: Any) -> None:
        request = MessagesRequest("m", 10, [{"role": "user", "content": "Hi"}], **fields)
        self.answer = Answer(as_engine(nothing), request)
        self.encoder = StreamEncoder("msg_1", "m", lambda: 1)
        self.encoder.start()
        self.pings: list[float] = []
        self.pinger = Pinger(10.0, self._ping)
        self.output = ClientOutput(asyncio.Transport(), Metrics(()))
        self.times: list[float] = []
        self.unnoted: list[float] = []
        self.stopped = 0

    async def _ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().time())

    def open(self) -> None:
        self.output.open(self.answer, self.encoder, self.pinger, self.times)

    def sync(self) -> None:
        times, self.unnoted = self.unnoted, []
        self.output.note("text", 2 * len(times), times)

    def stop(self) -> None:
        self.stopped += 1
        self.output.end()


@fake_clock
async def test_direct_writes_put_off_the_ping_and_are_counted() -> None:
    stream = Stream()
    time = asyncio.get_running_loop().time
    with stream.pinger:
        stream.open()
        stream.encoder.text("a")
        assert stream.output.begin("text", stream) == stream.encoder.frame
        for _ in range(5):
            await asyncio.sleep(6)
            stream.unnoted.append(time())
        written = time()
        await asyncio.sleep(9.9)
        assert (stream.pings, stream.stopped) == ([], 0)
        await asyncio.sleep(0.2)
        assert stream.pings == pytest.approx([written + 10])
        assert stream.stopped == 1
    assert stream.answer.counted == 10


@fake_clock
async def test_nothing_is_written_directly_between_the_decision_to_ping_and_the_ping() -> None:
    """A writer that stops may have bytes that were read. They reach the engine at once, which then wants to go on."""

    class Eager(Stream):
        frame: object = None

        def stop(self) -> None:
            super().stop()
            self.frame = self.output.begin("text", self)

    stream = Eager()
    with stream.pinger:
        stream.open()
        stream.encoder.text("a")
        assert stream.output.begin("text", stream) == stream.encoder.frame
        await asyncio.sleep(10.1)
        assert (stream.stopped, stream.frame, len(stream.pings)) == (1, None, 1)
        assert stream.output.begin("text", stream) == stream.encoder.frame


@fake_clock
async def test_only_deltas_of_the_open_block_may_be_written() -> None:
    stream = Stream()
    with stream.pinger:
        assert stream.output.begin("text", stream) is None  # not open
        stream.open()
        assert stream.output.begin("text", stream) is None
        stream.encoder.thinking(Thinking("hm"))
        assert stream.output.begin("text", stream) is None
        assert stream.output.begin("thinking", stream) == stream.encoder.frame
        stream.output.note("thinking", 3, [1.0])
        assert (stream.answer.counted, stream.answer.thinking_counted) == (3, 3)
        stream.output.close()
        assert stream.output.begin("thinking", stream) is None
        stream.output.note("thinking", 3, [2.0])
        stream.output.end()
        assert stream.answer.counted == 3


@fake_clock
async def test_an_answer_with_filters_is_not_written_directly() -> None:
    stream = Stream(stop_sequences=("STOP",))
    with stream.pinger:
        stream.open()
        stream.encoder.text("a")
        assert stream.output.begin("text", stream) is None
