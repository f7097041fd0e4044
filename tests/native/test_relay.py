"""The native path between a real connection to an engine and the transport of a client.

Most tests run three times: the pump is the protocol of the engine's transport, it leaves both sockets to a thread, or
it is that in Python.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from anthro_asgi import MessagesApp
from anthro_asgi._native import CLIENT_TRANSPORT, NewPump, Pump, new_pump, new_thread
from anthro_asgi._native.pump_thread import PumpThread
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.openai.engine import OpenAIEngine
from anthro_asgi.engines.openai.python_pump import PythonPump
from anthro_asgi.engines.openai.read_coalescer import PAUSE
from anthro_asgi.testing.driver import Driver, Exchange
from anthro_asgi.upstream.origin import Deadlines, Origin
from anthro_asgi.wire.request import MessagesRequest
from tests.replay import Case
from tests.replay.golden import chosen, masked, path
from tests.replay.serving import event_ends, replaying
from tests.support.pumped import chunks, framed
from tests.support.upstream import ScriptedUpstream, Wire

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HELLO = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
DEADLINES = Deadlines()
DONE = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Client(asyncio.Transport):
    """The transport of a client. `pieces` are the bodies of what it got, `direct` the number of those from a pump."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.direct = 0
        self.backlog = 0
        self._moved = asyncio.Event()

    def write(self, data: Any) -> None:
        self.add(*chunks(data))
        self.direct += 1

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def is_closing(self) -> bool:
        return False

    def add(self, *bodies: bytes) -> None:
        self.pieces += bodies
        self._moved.set()

    def add_sent(self, body: bytes) -> None:
        """The service has sent this."""
        self.add(body)

    async def open(self) -> asyncio.Transport:
        """The service's end of the connection."""
        return self

    def shut(self) -> None:
        """Close the connection."""

    async def until(self, number: int, event: bytes = b"content_block_delta") -> None:
        """Wait for the event of this kind with this number."""
        while self.body.count(b"event: " + event) < number:
            self._moved.clear()
            await self._moved.wait()

    async def ended(self) -> None:
        """Wait for the last event."""
        while not any(end in b"".join(self.pieces[-2:]) for end in (b"event: message_stop", b"event: error")):
            self._moved.clear()
            await self._moved.wait()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class SocketClient(Client):
    """A client with a connection, which reads while it is not `paused`."""

    def __init__(self) -> None:
        super().__init__()
        self._sent = 0
        self._received = b""
        self._ours: Any = None
        self._theirs: Any = None

    async def open(self) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        self._ours, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        reader = _Reader(self.received)
        self._theirs, _ = await loop.create_connection(lambda: reader, sock=theirs)
        transport: asyncio.Transport = self._ours
        return transport

    def add_sent(self, body: bytes) -> None:
        self._sent += 1
        self._ours.write(framed(body))

    def pause(self) -> None:
        self._theirs.pause_reading()

    def resume(self) -> None:
        self._theirs.resume_reading()

    def shut(self) -> None:
        for transport in (self._ours, self._theirs):
            if transport is not None:
                transport.abort()

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._received += data
        while (end := self._received.find(b"\r\n")) >= 0:
            end += 4 + int(self._received[:end], 16)
            if len(self._received) < end:
                break
            self.add(*chunks(self._received[:end]))
            self._received = self._received[end:]
        self.direct = len(self.pieces) - self._sent


class _Reader(asyncio.Protocol):
    """The client's end of the connection."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def data_received(self, data: bytes) -> None:
        self._received(data)


class Direct:
    """An application whose server lets an engine write to `client` directly."""

    def __init__(self, app: MessagesApp, client: Client) -> None:
        self._app = app
        self._client = client

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def noted(message: Any) -> None:
            if message.get("body"):
                self._client.add_sent(message["body"])
            await send(message)

        scope[CLIENT_TRANSPORT] = await self._client.open()
        await self._app(scope, receive, noted)


def token(text: str, key: str = "content", **more: Any) -> bytes:
    """A chunk as an engine sends it."""
    choice = {"index": 0, "delta": {key: text}, "finish_reason": None}
    return framed(b"data: %b\n\n" % json.dumps({"id": "c", "choices": [choice], **more}).encode())


def finish(**more: Any) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return framed(b"data: %b\n\n" % json.dumps({"id": "c", "choices": [choice], **more}).encode()) + DONE


def piece(arguments: str, **more: Any) -> bytes:
    """A chunk with a piece of the first call's arguments."""
    return _calls([{"index": 0, "function": {"arguments": arguments}}], **more)


def beginning(index: int = 0, **more: Any) -> bytes:
    """A chunk in which a call begins."""
    function = {"name": "f", "arguments": ""}
    return _calls([{"index": index, "id": f"call_{index}", "type": "function", "function": function}], **more)


def _calls(calls: list[Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}
    return framed(b"data: %b\n\n" % json.dumps({"id": "c", "choices": [choice], **more}).encode())


class Serving:
    """The service for one test."""

    def __init__(self, app: MessagesApp, client: Client, upstream: ScriptedUpstream) -> None:
        self.app = app
        self.client = client
        self.upstream = upstream

    def ask(self, **changes: Any) -> Exchange:
        driver = Driver(Direct(self.app, self.client))
        return driver.open("POST", "/v1/messages", body=json.dumps({**HELLO, **changes}).encode())

    async def answer(self, **changes: Any) -> dict[str, Any]:
        """The message that the client's bytes stand for."""
        async with self.ask(**changes) as exchange:
            await exchange.started()
            await exchange.rest()
        await self.client.ended()
        events = parse_events(self.client.body)
        check_stream(events)
        message: dict[str, Any] = message_from_events(events)
        return message


@asynccontextmanager
async def served(
    answer: Callable[[Wire, Client], Awaitable[None]],
    deadlines: Deadlines = DEADLINES,
    *,
    thread: PumpThread | None = None,
    new_pump: NewPump | None = new_pump,
    **options: Any,
) -> AsyncIterator[Serving]:
    client = Client() if thread is None else SocketClient()

    async def play(wire: Wire) -> None:
        await answer(wire, client)

    async with ScriptedUpstream(play) as upstream:
        origin = Origin.parse(f"{upstream.url}/v1")
        engine = OpenAIEngine(origin, dialect="vllm", new_pump=new_pump, pump_thread=thread, deadlines=deadlines)
        try:
            yield Serving(MessagesApp(engine, **options), client, upstream)
            assert " leased=0 connecting=0 " in repr(engine), "a slot is still taken"
        finally:
            client.shut()
            await engine.stop()


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture(name="serving", params=["event loop", "thread", "python"])
def fixture_serving(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """The service for one answer: see `served`."""
    if request.param != "thread":
        yield partial(served, new_pump=PythonPump) if request.param == "python" else served
        return
    assert new_thread is not None
    thread = Counting(new_thread)
    yield partial(served, thread=thread)
    assert thread.taken or "is_not_written_directly" in request.node.name, "the thread was not used"


class Counting(PumpThread):
    """Counts the streams that it takes. Must have given all of them back when it is closed."""

    taken = 0

    def take(self, pump: Pump, upstream: int) -> bool:
        self.taken += 1
        return super().take(pump, upstream)

    def close(self) -> None:
        super().close()
        assert self._thread is None, "a stream is still in the thread"


def steadily(count: int, key: str = "content", last: bytes | None = None) -> Callable[[Wire, Client], Awaitable[None]]:
    """An engine that sends each token when the client has the one before."""

    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(count):
            await wire.send(token(f" {number}", key))
            await client.until(number + 1)
        await wire.send(finish() if last is None else last)

    return answer


# ---- what is relayed


async def test_all_but_the_first_token_of_a_steady_stream_are_written_directly(serving: Serve) -> None:
    async with serving(steadily(100)) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "".join(f" {n}" for n in range(100))}]
    assert message["usage"]["output_tokens"] == 100
    assert service.client.direct == 99


async def test_thinking_is_written_directly_and_counted(serving: Serve) -> None:
    async with serving(steadily(50, "reasoning_content", finish())) as service:
        message = await service.answer(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
    assert message["content"][0]["thinking"] == "".join(f" {n}" for n in range(50))
    assert message["usage"]["output_tokens"] == 50
    assert service.client.direct == 49


async def test_counts_in_each_chunk_are_reported_at_the_end(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(1, 30):
            await wire.send(token("x", usage={"prompt_tokens": 7, "completion_tokens": 2 * number}))
            await client.until(number)
        await wire.send(framed(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n') + DONE)

    async with serving(answer) as service:
        message = await service.answer()
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 58)
    assert service.client.direct >= 20


@pytest.mark.parametrize(
    "fields",
    [{"stop_sequences": ["STOP"]}, {"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}}],
    ids=str,
)
async def test_an_answer_that_is_filtered_is_not_written_directly(serving: Serve, fields: dict[str, Any]) -> None:
    async with serving(steadily(10)) as service:
        message = await service.answer(**fields, max_tokens=2000)
    assert message["content"] == [{"type": "text", "text": "".join(f" {n}" for n in range(10))}]
    assert service.client.direct == 0


@pytest.mark.parametrize(
    "more",
    [{"model": "m" * 66_000}, {"usage": {'a"b': 1}}],
    ids=["too large", "a count whose name has a quote"],
)
async def test_what_no_pump_has_a_template_for_is_not_written_directly(serving: Serve, more: dict[str, Any]) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(20):
            await wire.send(token(f" {number}", **more))
            await client.until(number + 1)
        await wire.send(finish())

    async with serving(answer) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "".join(f" {n}" for n in range(20))}]
    assert service.client.direct == 0


@pytest.mark.parametrize("case", chosen(), ids=str)
@pytest.mark.parametrize("pump", [new_pump, PythonPump])
async def test_the_client_receives_the_bytes_of_the_golden_transcript(case: Case, pump: NewPump) -> None:
    client = Client()
    async with replaying(case, event_ends(case), new_pump=pump) as replay:
        replay.driver = Driver(Direct(replay.app, client))
        response = await replay.ask(case, stream=True)
    body = client.body if client.direct else response.body
    head = b"" if response.status == 200 else b"%d\n" % response.status
    assert head + masked(body) == path(case).read_bytes()


# ---- promises that must hold while a pump reads


async def test_a_silent_stream_gets_pings_and_goes_on(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(20):
            await wire.send(token(f" {number}"))
            await client.until(number + 1)
            if number == 9:
                await client.until(2, b"ping")
        await wire.send(finish())

    async with serving(answer, ping_interval=0.05) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "".join(f" {n}" for n in range(20))}]
    assert service.client.direct >= 15


async def test_a_ping_in_the_middle_of_an_events_bytes_loses_none_of_them(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(20):
            whole = token(f" {number}")
            await wire.send(whole[:-9])
            if number == 9:
                await client.until(2, b"ping")
            await wire.send(whole[-9:])
            await client.until(number + 1)
        await wire.send(finish())

    async with serving(answer, ping_interval=0.05) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "".join(f" {n}" for n in range(20))}]


async def test_an_engine_that_falls_silent_is_given_up_after_the_deadline(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(10):
            await wire.send(token("x"))
            await client.until(number + 1)
        await wire.gone()

    async with serving(answer, Deadlines(silence=0.3)) as service, service.ask() as exchange:
        await exchange.started()
        await exchange.rest()
        await service.client.ended()
    events = parse_events(service.client.body)
    assert events[-1].data["error"]["type"] == "timeout_error"
    assert service.client.direct == 9


async def test_a_client_that_leaves_ends_the_engines_response(serving: Serve) -> None:
    gone = asyncio.Event()

    async def endless(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(30):
            await wire.send(token("x"))
            await client.until(number + 1)
        await wire.gone()
        gone.set()

    async with serving(endless) as service:
        async with service.ask() as exchange:
            await exchange.started()
            await service.client.until(30)
            exchange.disconnect()
            await gone.wait()
        await service.upstream.until(lambda: not service.upstream.open)
    assert service.client.direct == 29


@pytest.mark.parametrize("ending", ["close", "reset", "cut"])
async def test_an_engine_that_breaks_off_is_an_error_for_the_client(serving: Serve, ending: str) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(10):
            await wire.send(token("x"))
            await client.until(number + 1)
        if ending == "cut":
            await wire.send(token("y")[:-10])
        wire.reset() if ending == "reset" else wire.close()

    async with serving(answer) as service, service.ask() as exchange:
        await exchange.started()
        await exchange.rest()
        await service.client.ended()
    events = parse_events(service.client.body)
    assert events[-1].data["type"] == "error"
    assert service.client.body.count(b"text_delta") == 10
    assert service.client.direct == 9


async def test_an_error_of_the_engine_between_tokens_reaches_the_client(serving: Serve) -> None:
    error = framed(b'data: {"error":{"message":"overloaded","code":503}}\n\n') + DONE
    async with serving(steadily(10, last=error)) as service, service.ask() as exchange:
        await exchange.started()
        await exchange.rest()
        await service.client.ended()
    assert parse_events(service.client.body)[-1].data["error"]["type"] == "overloaded_error"


async def test_python_takes_over_while_the_client_reads_slowly() -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(60):
            client.backlog = 1 << 20 if 20 <= number < 40 else 0
            await wire.send(token("x"))
            await client.until(number + 1)
        await wire.send(finish())

    async with served(answer) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "x" * 60}]
    assert message["usage"]["output_tokens"] == 60
    assert 20 <= service.client.direct < 45


async def test_a_client_that_stops_reading_slows_the_engine_down_and_loses_nothing() -> None:
    text = "x" * 10_000

    async def answer(wire: Wire, client: Client) -> None:
        assert isinstance(client, SocketClient)
        await wire.send(HEAD)
        for number in range(20):
            await wire.send(token(text))
            await client.until(number + 1)
        client.pause()
        sending = asyncio.create_task(much(wire))
        await wire._until(lambda: wire.blocked)
        client.resume()
        await sending
        await wire.send(finish())

    async def much(wire: Wire) -> None:
        for _ in range(2000):
            await wire.send(token(text))

    assert new_thread is not None
    async with served(answer, thread=Counting(new_thread)) as service, service.ask() as exchange:
        await exchange.started()
        await exchange.rest()
        await service.client.ended()
    body = service.client.body
    assert body.count(b'{"type":"text_delta","text":"%b"}' % text.encode()) == body.count(b"text_delta") == 2020
    assert b'"output_tokens":2020}' in body


async def test_a_client_that_resets_its_connection_ends_the_stream() -> None:
    async def answer(wire: Wire, client: Client) -> None:
        assert isinstance(client, SocketClient)
        await wire.send(HEAD)
        for number in range(20):
            await wire.send(token("x"))
            await client.until(number + 1)
        client.shut()
        while True:
            await wire.send(token("x"))

    assert new_thread is not None
    async with served(answer, thread=Counting(new_thread)) as service, service.ask() as exchange:
        await exchange.started()
        await service.client.until(20)
        exchange.disconnect()
        await service.upstream.until(lambda: not service.upstream.open)


async def test_a_fast_stream_is_read_less_often(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for _ in range(3000):
            await wire.send(token("x"))
        await client.until(3000)
        await wire.send(finish())

    async with serving(answer) as service:
        message = await service.answer()
    assert message["content"] == [{"type": "text", "text": "x" * 3000}]
    assert message["usage"]["output_tokens"] == 3000
    assert PAUSE > 0
    assert service.client.direct < 2000


async def test_the_times_between_writes_are_counted_in_the_metrics(serving: Serve) -> None:
    async with serving(steadily(100)) as service:
        await service.answer()
    metrics = service.app.metrics
    begin = metrics._gaps
    gaps = sum(metrics._cells[begin : begin + 40]) - metrics._cells[begin + 40]
    assert gaps >= 98


async def test_an_engine_without_a_pump_ignores_the_offer() -> None:
    seen: list[object] = []

    class Engine:
        async def stream(self, request: MessagesRequest) -> AsyncIterator[str]:
            seen.append(request.direct_output)
            yield "x"

    client = Client()
    driver = Driver(Direct(MessagesApp(Engine()), client))
    await driver.request("POST", "/v1/messages", body=json.dumps(HELLO).encode())
    assert seen[0] is not None
    assert client.direct == 0


# ---- tool input


TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
OPENED = ('{"a"', ': "')  # what Python reads before a pump takes over
WORDS = [f"word {number}, " for number in range(60)]


def calling(
    *parts: str, ending: bytes | None = None, pause_after: int = 0, slow: range = range(0)
) -> Callable[[Wire, Client], Awaitable[None]]:
    """An engine that sends each piece of a call when the client has the one before. Each piece releases something.

    It pauses for two pings after the piece with the number `pause_after`. The client reads slowly in `slow`.
    """

    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD + beginning())
        for number, part in enumerate((*OPENED, *parts), 1):
            client.backlog = 1 << 20 if number in slow else 0
            await wire.send(piece(part))
            await client.until(number)
            if number == pause_after:
                await client.until(2, b"ping")
        await wire.send(finish() if ending is None else ending)

    return answer


async def test_tool_input_is_written_directly_and_counted(serving: Serve) -> None:
    async with serving(calling(*WORDS, '"}')) as service:
        message = await service.answer(tools=TOOLS)
    assert message["content"] == [{"type": "tool_use", "id": "call_0", "name": "f", "input": {"a": "".join(WORDS)}}]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens"] == 64
    assert service.client.direct >= 60  # the pump in Python leaves the end of a string to the general way


async def test_a_string_is_written_directly_after_many_short_members(serving: Serve) -> None:
    """A pump that cannot begin between them is not tried there: the tries are for where it can."""
    members = [f',"k{number}":"v"' for number in range(12)]
    async with serving(calling('"', *members, ',"z":"', *WORDS, '"}')) as service:
        message = await service.answer(tools=TOOLS)
    value = {"a": "", **{f"k{number}": "v" for number in range(12)}, "z": "".join(WORDS)}
    assert message["content"] == [{"type": "tool_use", "id": "call_0", "name": "f", "input": value}]
    assert service.client.direct >= 59


async def test_counts_in_each_chunk_of_a_call_are_reported_at_the_end(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD + beginning(usage={"prompt_tokens": 7, "completion_tokens": 1}))
        for number, part in enumerate((*OPENED, *WORDS, '"}'), 1):
            await wire.send(piece(part, usage={"prompt_tokens": 7, "completion_tokens": 3 * number}))
            await client.until(number)
        await wire.send(framed(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n') + DONE)

    async with serving(answer) as service:
        message = await service.answer(tools=TOOLS)
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 3 * 63)
    assert service.client.direct >= 55


async def test_text_and_several_calls_are_each_relayed(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD)
        for number in range(20):
            await wire.send(token("x"))
            await client.until(number + 1)
        for call in range(2):
            await wire.send(beginning(call))
            for number, part in enumerate((*OPENED, *WORDS[:20], '"}'), 1):
                await wire.send(_calls([{"index": call, "function": {"arguments": part}}]))
                await client.until(20 + 23 * call + number)
        await wire.send(finish())

    async with serving(answer) as service:
        message = await service.answer(tools=TOOLS)
    assert [block["type"] for block in message["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["input"] for block in message["content"][1:]] == [{"a": "".join(WORDS[:20])}] * 2
    assert service.client.direct >= 19 + 2 * 18


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (("\n", "x", '"}'), "\nx"),
        (("\\x", "y", '"}'), "\\xy"),
        (('","b":', " ", "True", " }"), ""),
        (("x",), "x"),
        (('"}', "}", " no"), ""),
        (('"', "]"), ""),
    ],
)
async def test_arguments_that_are_repaired_in_the_middle_are_one_object(
    serving: Serve, rest: tuple[str, ...], value: str
) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD + beginning())
        for number, part in enumerate((*OPENED, *WORDS), 1):
            await wire.send(piece(part))
            await client.until(number)
        for part in rest:
            await wire.send(piece(part))
        await wire.send(finish())

    async with serving(answer) as service:
        message = await service.answer(tools=TOOLS)
    assert message["content"][0]["input"]["a"] == "".join(WORDS) + value
    assert service.client.direct >= 55


async def test_a_call_that_is_repeated_at_the_end_is_one_call(serving: Serve) -> None:
    text = "".join((*OPENED, *WORDS, '"}'))
    again = {"index": 0, "id": "call_0", "function": {"name": "f", "arguments": text}}
    async with serving(calling(*WORDS, '"}', ending=_calls([again]) + finish())) as service:
        message = await service.answer(tools=TOOLS)
    assert [block["type"] for block in message["content"]] == ["tool_use"]
    assert message["content"][0]["input"] == json.loads(text)
    assert service.client.direct >= 60  # the pump in Python leaves the end of a string to the general way


async def test_a_call_that_the_token_limit_cuts_stays_as_it_is(serving: Serve) -> None:
    ending = framed(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n') + DONE
    async with serving(calling(*WORDS, ending=ending)) as service, service.ask(tools=TOOLS) as exchange:
        await exchange.started()
        await exchange.rest()
    events = parse_events(service.client.body)
    pieces = [event.data["delta"]["partial_json"] for event in events if event.type == "content_block_delta"]
    assert "".join(pieces) == "".join((*OPENED, *WORDS))
    assert service.client.direct == 60


async def test_a_silent_call_gets_pings_and_goes_on(serving: Serve) -> None:
    async with serving(calling(*WORDS, '"}', pause_after=30), ping_interval=0.05) as service:
        message = await service.answer(tools=TOOLS)
    assert message["content"][0]["input"] == {"a": "".join(WORDS)}
    assert service.client.direct >= 50


async def test_python_takes_over_a_call_while_the_client_reads_slowly() -> None:
    async with served(calling(*WORDS, '"}', slow=range(20, 40))) as service:
        message = await service.answer(tools=TOOLS)
    assert message["content"][0]["input"] == {"a": "".join(WORDS)}
    assert message["usage"]["output_tokens"] == 64
    assert 20 <= service.client.direct < 45


async def test_an_engine_that_falls_silent_in_a_call_is_given_up_after_the_deadline(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await calling(*WORDS, ending=b"")(wire, client)
        await wire.gone()

    async with serving(answer, Deadlines(silence=0.3)) as service, service.ask(tools=TOOLS) as exchange:
        await exchange.started()
        await exchange.rest()
    assert parse_events(service.client.body)[-1].data["error"]["type"] == "timeout_error"
    assert service.client.direct == 60


async def test_a_client_that_leaves_in_a_call_ends_the_engines_response(serving: Serve) -> None:
    gone = asyncio.Event()

    async def answer(wire: Wire, client: Client) -> None:
        await calling(*WORDS, ending=b"")(wire, client)
        await wire.gone()
        gone.set()

    async with serving(answer) as service, service.ask(tools=TOOLS) as exchange:
        await exchange.started()
        await service.client.until(62)
        exchange.disconnect()
        await gone.wait()
    assert service.client.direct == 60


async def test_an_answer_with_tools_and_stop_sequences_is_not_written_directly(serving: Serve) -> None:
    async def answer(wire: Wire, client: Client) -> None:
        await wire.send(HEAD + beginning())
        for part in (*OPENED, *WORDS, '"}'):
            await wire.send(piece(part))
        await wire.send(finish())

    async with serving(answer) as service:
        message = await service.answer(tools=TOOLS, stop_sequences=["STOP"])
    assert message["content"][0]["input"] == {"a": "".join(WORDS)}
    assert service.client.direct == 0
