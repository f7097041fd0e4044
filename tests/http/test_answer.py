"""`Answer` by itself, and one script of an engine through every front that stands on it."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import orjson
import pytest

from anthro_asgi import (
    Answer,
    BaseEngine,
    Batch,
    Block,
    Delta,
    Finish,
    MessagesApp,
    MessagesRequest,
    Overloaded,
    Rules,
    Signature,
    Thinking,
    ToolJson,
    ToolStart,
    Usage,
    as_engine,
    deltas_of,
    parse_request,
)
from anthro_asgi.cli.check import _try_message
from anthro_asgi.conformance.grammar import message_from_events, parse_events
from anthro_asgi.http.base_app import BaseApp
from anthro_asgi.observability.logs import JsonFormatter, TextFormatter
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.simulator.chat_app import CompletionsApp
from anthro_asgi.testing.driver import Driver, LifespanFailed, Response
from anthro_asgi.wire.answer_limits import AnswerLimits
from anthro_asgi.wire.deltas import BlockStop, Citation, EncodedTexts, MessageFields, OtherDelta, ThinkingEstimate
from anthro_asgi.wire.errors import AnswerTooLarge, ApiError, BadUpstream
from examples import without_http

HELLO: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
OPENAI_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
Step = Batch | Exception


def encoded_texts(*texts: str) -> list[Delta]:
    """A batch of texts with their JSON, as the fast path yields it."""
    batch: list[Any] = EncodedTexts(list(texts), [b'"%b"' % text.encode() for text in texts])
    return batch


async def hello(request: MessagesRequest) -> AsyncIterator[Batch]:
    """The smallest engine that the docs show."""
    yield "Hello"


class Script(BaseEngine):
    """An engine that yields the batches of a script and raises its exceptions."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.closed = False

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed = True


@dataclass
class Said:
    """What the client of a front has received."""

    text: str = ""
    thinking: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    end: str | None = None
    tokens: tuple[int, int] = (0, 0)


# the fronts: each runs an engine for a request, and returns what its client receives


def request_of(**fields: Any) -> MessagesRequest:
    return parse_request(orjson.dumps({**HELLO, **fields}))


def said_by(message: dict[str, Any]) -> Said:
    blocks = message["content"]
    return Said(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        OPENAI_REASONS[message["stop_reason"]],
        (message["usage"]["input_tokens"], message["usage"]["output_tokens"]),
    )


async def post(app: BaseApp, path: str, body: dict[str, Any]) -> Response:
    response = await Driver(app).request("POST", path, body=orjson.dumps(body))
    if response.status != 200:
        raise Refused(response.status)
    return response


class Refused(Exception):
    """A front has answered with an error."""


async def messages_stream(engine: object, **fields: Any) -> Said:
    events = parse_events((await post(MessagesApp(engine), "/v1/messages", {**HELLO, **fields, "stream": True})).body)
    if events[-1].type == "error":
        raise Refused(events[-1].data["error"]["type"])
    return said_by(message_from_events(events))


async def messages_whole(engine: object, **fields: Any) -> Said:
    return said_by((await post(MessagesApp(engine), "/v1/messages", {**HELLO, **fields})).json())


def chat_body(fields: dict[str, Any]) -> dict[str, Any]:
    stops = fields.pop("stop_sequences", None)
    return {**HELLO, **fields, **({} if stops is None else {"stop": stops})}


def chat_tokens(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


async def chat_stream(engine: object, **fields: Any) -> Said:
    body = {**chat_body(fields), "stream": True, "stream_options": {"include_usage": True}}
    response = await post(CompletionsApp(engine), "/v1/chat/completions", body)
    said, calls = Said(), []
    for line in response.body.split(b"\n\n")[:-2]:
        chunk = orjson.loads(line.removeprefix(b"data: "))
        if "error" in chunk:
            raise Refused(chunk["error"]["type"])
        if not chunk["choices"]:
            said.tokens = chat_tokens(chunk["usage"])
            continue
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        said.text += delta.get("content", "")
        said.thinking += delta.get("reasoning_content", "")
        said.end = choice["finish_reason"]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append([call["id"], call["function"]["name"], ""])
            calls[call["index"]][2] += call["function"]["arguments"]
    said.calls = [(identity, name, orjson.loads(arguments or "{}")) for identity, name, arguments in calls]
    return said


async def chat_whole(engine: object, **fields: Any) -> Said:
    completion = (await post(CompletionsApp(engine), "/v1/chat/completions", chat_body(fields))).json()
    (choice,) = completion["choices"]
    message = choice["message"]
    calls = [
        (call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    return Said(
        message["content"] or "",
        message.get("reasoning_content", ""),
        calls,
        choice["finish_reason"],
        chat_tokens(completion["usage"]),
    )


async def answer_whole(engine: object, **fields: Any) -> Said:
    return said_by(await Answer(as_engine(engine), request_of(**fields)).message())


async def answer_deltas(engine: object, **fields: Any) -> Said:
    said, calls = Said(), []
    async with Answer(as_engine(engine), request_of(**fields)) as answer:
        async for batch in answer:
            for delta in deltas_of(batch):
                match delta:
                    case str():
                        said.text += delta
                    case Thinking(text):
                        said.thinking += text
                    case ToolStart(identity, name):
                        calls.append([identity, name, ""])
                    case ToolJson(fragment):
                        calls[-1][2] += fragment
                    case Finish(reason):
                        said.end = OPENAI_REASONS[reason]
    said.calls = [(identity, name, orjson.loads(arguments or "{}")) for identity, name, arguments in calls]
    assert answer.usage.input_tokens is not None
    assert answer.usage.output_tokens is not None
    said.tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    return said


Front = Callable[..., Awaitable[Said]]
STREAMS: list[Front] = [messages_stream, chat_stream, answer_deltas]
WHOLE: list[Front] = [messages_whole, chat_whole, answer_whole]
FRONTS = [*STREAMS, *WHOLE]

SCRIPTS: dict[str, tuple[list[Step], dict[str, Any], Said]] = {
    "text": (["Hel", "lo", Finish("end_turn")], {}, Said("Hello", end="stop", tokens=(8, 2))),
    "a batch": ([["Hel", "lo", Finish("max_tokens")]], {}, Said("Hello", end="length", tokens=(8, 2))),
    "encoded texts": (
        ["a", encoded_texts("b", "c"), Finish("end_turn")],
        {},
        Said("abc", end="stop", tokens=(8, 3)),
    ),
    "nothing": ([Finish("end_turn")], {}, Said(end="stop", tokens=(8, 0))),
    "an empty text": (["", Usage(7), Finish("end_turn")], {}, Said(end="stop", tokens=(7, 1))),
    "reported usage": (
        [Usage(11, None, 0), "a", "b", [Usage(output_tokens=9), Finish("end_turn")]],
        {},
        Said("ab", end="stop", tokens=(11, 9)),
    ),
    "thinking": (
        [Thinking("h"), [Thinking("m"), Signature("c2ln")], "yes", Finish("end_turn")],
        {},
        Said("yes", "hm", end="stop", tokens=(8, 3)),
    ),
    "calls, and an engine that does not say so": (
        ["look", ToolStart("t1", "f"), ToolJson('{"a":'), ToolJson("1}"), ToolStart("t2", "g"), Finish("end_turn")],
        {},
        Said("look", calls=[("t1", "f", {"a": 1}), ("t2", "g", {})], end="tool_calls", tokens=(8, 5)),
    ),
    "a call that was never made": (["no", Finish("tool_use")], {}, Said("no", end="stop", tokens=(8, 1))),
    "a stop sequence across deltas": (
        ["one t", "wo th", "ree", Finish("end_turn")],
        {"stop_sequences": ["two"]},
        Said("one ", end="stop", tokens=(8, 2)),
    ),
    "a stop sequence within a batch": (
        ["a", ["b", "END", "c", "d", Usage(1, 100), Finish("max_tokens")]],
        {"stop_sequences": ["END"]},
        Said("ab", end="stop", tokens=(8, 3)),
    ),
    "the beginning of a stop sequence": (
        ["ab", "c<en", Finish("end_turn")],
        {"stop_sequences": ["<end>"]},
        Said("abc<en", end="stop", tokens=(8, 2)),
    ),
}


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", SCRIPTS)
async def test_every_front_tells_the_same_of_one_script(front: Front, name: str) -> None:
    steps, fields, said = SCRIPTS[name]
    engine = Script(*steps)
    assert await front(engine, **dict(fields)) == said
    assert engine.closed


@pytest.mark.parametrize("front", FRONTS)
async def test_the_smallest_engine_gives_the_same_answer_through_every_front(front: Front) -> None:
    assert await front(hello) == Said("Hello", end="stop", tokens=(8, 1))


async def test_check_tells_the_same_end_as_the_fronts() -> None:
    assert (await _try_message(as_engine(hello), "m")).startswith("ok (end_turn), first output after ")
    assert (await _try_message(Script("a", Finish("max_tokens")), "m")).startswith("ok (max_tokens), ")
    with pytest.raises(BadUpstream, match="before the answer was complete"):
        await _try_message(Script("a"), "m")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("steps", [(), ("a",), (Usage(3),)], ids=repr)
async def test_an_engine_that_returns_without_its_finish_has_failed_at_every_front(
    front: Front, steps: tuple[Step, ...]
) -> None:
    with pytest.raises((Refused, BadUpstream)):
        await front(Script(*steps))


@pytest.mark.parametrize("front", FRONTS)
async def test_what_an_engine_raises_after_its_first_output_reaches_every_front(front: Front) -> None:
    engine = Script("a", Overloaded("full"))
    with pytest.raises((Refused, Overloaded)):
        await front(engine)
    assert engine.closed


# limits, repairs and thinking: what only some fronts have


@pytest.mark.parametrize("app", [MessagesApp, CompletionsApp])
async def test_a_whole_answer_that_is_too_large_is_refused_and_counted(app: Any) -> None:
    served = app(Script(*["x" * 1000] * 200, Finish("end_turn")), limits=AnswerLimits(max_answer=1000))
    path = "/v1/messages" if app is MessagesApp else "/v1/chat/completions"
    driver = Driver(served)
    assert (await driver.request("POST", path, body=orjson.dumps(HELLO))).status == 502
    metrics = (await driver.request("GET", "/metrics")).body
    assert b'anthro_asgi_upstream_errors_total{kind="too_large"} 1' in metrics
    streamed = await driver.request("POST", path, body=orjson.dumps({**HELLO, "stream": True}))
    assert streamed.body.count(b"x" * 1000) == 200


async def test_an_answer_that_is_too_large_is_reported_once() -> None:
    seen: list[tuple[str, str]] = []
    engine = Script(*["x" * 1000] * 200, Finish("end_turn"))
    limits = AnswerLimits(max_answer=1000)
    with pytest.raises(AnswerTooLarge):
        await Answer(engine, request_of(), limits=limits, observe=lambda *what: seen.append(what)).message()
    assert seen == [("upstream_error", "too_large")]


BROKEN_CALL: list[Step] = ["look", ToolStart("t1", "f"), ToolJson('{"a":1'), Finish("end_turn")]


@pytest.mark.parametrize("front", WHOLE)
async def test_a_call_that_broke_off_is_repaired_at_every_front_that_has_it_whole(front: Front) -> None:
    assert (await front(Script(*BROKEN_CALL))).calls == [("t1", "f", {"a": 1})]


async def test_a_call_that_cannot_be_repaired_is_left_out_and_is_no_reason_to_stop() -> None:
    seen: list[tuple[str, str]] = []
    steps = ("look", ToolStart("t1", "f"), ToolJson("nonsense"), Finish("tool_use"))
    answer = Answer(Script(*steps), request_of(), observe=lambda *what: seen.append(what))
    message = await answer.message()
    assert message["content"] == [{"type": "text", "text": "look"}]
    assert (message["stop_reason"], answer.stop_reason) == ("end_turn", "end_turn")
    assert seen == [("repair", "call_dropped")]


@pytest.mark.parametrize("app", [MessagesApp, CompletionsApp])
async def test_repairs_are_counted_by_both_applications(app: Any) -> None:
    driver = Driver(app(Script(*BROKEN_CALL)))
    path = "/v1/messages" if app is MessagesApp else "/v1/chat/completions"
    await driver.request("POST", path, body=orjson.dumps(HELLO))
    assert b'anthro_asgi_repairs_total{kind="call_input"} 1' in (await driver.request("GET", "/metrics")).body


@pytest.mark.parametrize("hide", [True, False])
async def test_hidden_thinking_is_left_out_and_counted(hide: bool) -> None:
    engine = Script(Thinking("h"), [Thinking("m"), Signature("c2ln")], "yes", Finish("end_turn"))
    request = request_of(thinking={"type": "disabled"})
    whole = await Answer(engine, request, hide_thinking=hide).message()
    assert [block["type"] for block in whole["content"]] == (["text"] if hide else ["thinking", "text"])
    async with Answer(engine, request, hide_thinking=hide) as answer:
        deltas = [delta async for batch in answer for delta in deltas_of(batch)]
    assert any(isinstance(delta, Thinking) for delta in deltas) is not hide
    assert (answer.counted, answer.thinking_counted) == (3, 2)


async def test_a_chat_stream_that_the_server_cancels_ends_with_an_error_chunk() -> None:
    async def engine(request: Any) -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    app = CompletionsApp(engine)
    task: asyncio.Task[Any] | None = None

    async def served(scope: Any, receive: Any, send: Any) -> None:
        nonlocal task
        task = asyncio.current_task()
        with pytest.raises(asyncio.CancelledError):
            await app(scope, receive, send)

    body = orjson.dumps({**HELLO, "stream": True})
    async with Driver(served).open("POST", "/v1/chat/completions", body=body) as exchange:
        await exchange.chunk()
        assert task is not None
        task.cancel()
        chunks = (await exchange.rest()).split(b"\n\n")
    assert orjson.loads(chunks[-3].removeprefix(b"data: "))["error"]["message"] == "the service is stopping"
    assert chunks[-2:] == [b"data: [DONE]", b""]


# Answer by itself


def in_a_thread(request: MessagesRequest) -> Iterator[str]:
    yield "Hello"


class WithStream:
    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        yield "Hello"
        yield Finish("end_turn")


@pytest.mark.parametrize("engine", [hello, in_a_thread, WithStream(), WithStream])
async def test_an_answer_takes_every_engine_that_the_application_takes(engine: object) -> None:
    message = await Answer(engine, request_of()).message()
    served = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=orjson.dumps(HELLO))
    assert said_by(message) == said_by(served.json())
    async with Answer(engine, request_of()) as answer:
        assert [delta async for batch in answer for delta in deltas_of(batch) if isinstance(delta, str)] == ["Hello"]
    assert answer.stop_reason == "end_turn"


def test_what_is_no_engine_is_refused_before_it_is_asked() -> None:
    with pytest.raises(ValueError, match="is not an engine"):
        Answer(42, request_of())


async def test_the_last_batch_holds_the_finish_that_the_client_is_told() -> None:
    async with Answer(Script("a", ToolStart("t", "f"), Finish("end_turn")), request_of()) as answer:
        batches = [batch async for batch in answer]
    assert batches[-1] == [Finish("tool_use")]
    assert answer.finish == Finish("tool_use")
    assert [batch async for batch in answer] == []


async def test_the_stop_sequence_that_matched_is_known_and_reported_once() -> None:
    seen: list[tuple[str, str]] = []
    engine = Script("one ", "two", " three", Finish("end_turn"))
    request = request_of(stop_sequences=["two"])
    async with Answer(engine, request, observe=lambda *what: seen.append(what)) as answer:
        batches = [batch async for batch in answer]
    assert batches == ["one ", [Finish("stop_sequence", "two")]]
    assert (answer.stop_reason, answer.stop_matched) == ("stop_sequence", "two")
    assert seen == [("repair", "stop_sequence")]
    assert engine.closed


async def test_the_first_output_is_waited_for_and_then_given_to_the_consumer() -> None:
    engine = Script("", Usage(7), [Usage(8), ""], ["a", "b"], "c", Finish("end_turn"))
    async with Answer(engine, request_of()) as answer:
        await answer.begin()
        assert (answer.usage.input_tokens, answer.counted, answer.finish) == (8, 4, None)
        assert [batch async for batch in answer] == [["", "a", "b"], "c", [Finish("end_turn")]]
    async with Answer(engine, request_of()) as answer:
        await answer.begin()
        assert (await answer.message())["content"] == [{"type": "text", "text": "abc"}]


async def test_an_engine_that_fails_before_its_first_output_fails_in_begin() -> None:
    async with Answer(Script("", Usage(7), Overloaded("full")), request_of()) as answer:
        with pytest.raises(Overloaded):
            await answer.begin()


async def test_a_consumer_that_stops_closes_the_engine() -> None:
    engine = Script("a", "b", Finish("end_turn"))
    async with Answer(engine, request_of()) as answer:
        assert await anext(answer) == "a"
    assert engine.closed


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
PDF = {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}}


@pytest.mark.clause("3.14")
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"tools": [SEARCH]}, "tools.0.type"),
        ({"messages": [{"role": "user", "content": [PDF]}]}, "messages.0.content.0.document.source.type"),
        ({"mcp_servers": [{"name": "s"}]}, "mcp_servers"),
    ],
)
@pytest.mark.parametrize("engine", [hello, SimulatedEngine(ttft=0, itl=0)], ids=["function", "simulator"])
async def test_an_engine_in_this_process_refuses_what_only_a_relayed_upstream_can_do(
    engine: Any, fields: dict[str, Any], refused: str, path: str
) -> None:
    driver = Driver(MessagesApp(engine, rules=Rules(pass_server_tools=True)))
    response = await driver.request("POST", path, body=orjson.dumps(HELLO | fields))
    assert response.status == 400
    assert response.json()["error"]["message"].startswith(f"{refused}: ")


async def test_an_engine_that_declares_server_tools_receives_them() -> None:
    asked = []

    class Relay:
        accepts_server_tools = True

        async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
            asked.append(request.raw["tools"])
            yield Finish("end_turn")

    driver = Driver(MessagesApp(Relay(), rules=Rules(pass_server_tools=True)))
    body = orjson.dumps(HELLO | {"tools": [SEARCH]})
    assert (await driver.request("POST", "/v1/messages", body=body)).status == 200
    assert asked == [[SEARCH]]


async def test_an_answer_is_consumed_once() -> None:
    answer = Answer(Script("a", Finish("end_turn")), request_of())
    await answer.message()
    with pytest.raises(RuntimeError, match="once"):
        async with answer:
            pass


async def test_a_whole_message_from_an_engine_that_never_waits_lets_other_tasks_run() -> None:
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Answer(Script(*["x"] * 1000, Finish("end_turn")), request_of()).message()
    async with Answer(Script(*["x"] * 1000, Finish("end_turn")), request_of()) as answer:
        whole = ran
        async for _ in answer:
            pass
    assert whole > 1000 // 40
    assert ran - whole > 1000 // 40
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_request_is_not_kept_while_an_answer_lasts() -> None:
    class Request(MessagesRequest):
        """A request that weak references can point to; MessagesRequest has slots only."""

    async def engine(request: MessagesRequest) -> AsyncIterator[Batch]:
        del request
        yield Usage(3)
        yield "a"
        yield "b"

    request = Request(model="m", max_tokens=1, messages=[{"role": "user", "content": "Hi"}])
    gone = weakref.ref(request)
    answer = Answer(as_engine(engine), request)
    del request
    async with answer:
        await answer.begin()
        assert gone() is None


def test_every_delta_has_its_place_in_an_answer() -> None:
    samples: list[Delta] = [
        "a",
        Thinking("a"),
        Signature("a"),
        ToolStart("t", "f"),
        ToolJson("{}"),
        Citation({}),
        BlockStop(),
        Block({"type": "text"}),
        ThinkingEstimate(50),
        OtherDelta("text", {"type": "new_delta"}),
        Usage(),
        MessageFields({"speed": "fast"}),
        Finish("end_turn"),
    ]
    assert {type(delta) for delta in samples} == set(get_args(Delta))
    for delta in samples:
        alone, batched = (Answer(as_engine(hello), request_of()) for _ in "ab")
        assert alone.take(delta) == delta
        assert batched.take([delta]) == [delta]
        assert alone.counted == batched.counted == isinstance(delta, str | Thinking | ToolStart | ToolJson)
    with pytest.raises(TypeError):
        Answer(as_engine(hello), request_of()).take(42)  # type: ignore[arg-type]  # no delta


async def test_the_example_without_http_prints_the_message_and_the_deltas(capsys: pytest.CaptureFixture[str]) -> None:
    await without_http.main()
    whole, deltas = capsys.readouterr().out.splitlines()
    assert whole == "[{'type': 'text', 'text': 'Hello, world'}] end_turn"
    assert deltas.startswith("Hello, world end_turn Usage(input_tokens=9, output_tokens=3")


def test_errors_of_an_answer_are_errors_a_client_can_be_told() -> None:
    assert issubclass(AnswerTooLarge, ApiError)
    assert issubclass(BadUpstream, ApiError)


# --- what is not a delta ---


class Foreign:
    """No delta."""


@pytest.mark.parametrize("stop_sequences", [[], ["x"]], ids=["plain", "filtered"])
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        ({"text": "a"}, "dict"),
        (b"a", "bytes"),
        (None, "NoneType"),
        (("a", "b"), "tuple"),
        (["a", 7], "int"),
        ([None], "NoneType"),
        (Foreign(), f"{__name__}.Foreign"),
    ],
    ids=["dict", "bytes", "None", "tuple", "list with a number", "list with None", "object"],
)
async def test_a_foreign_delta_is_an_error_that_names_its_type_and_the_engine_at_the_first_yield(
    thing: Any, name: str, stop_sequences: list[str]
) -> None:
    async def mine(request: MessagesRequest) -> AsyncIterator[Any]:
        yield thing
        raise AssertionError("asked for more")

    request = parse_request(orjson.dumps({**HELLO, "stop_sequences": stop_sequences}))
    with pytest.raises(TypeError) as caught:
        async with Answer(as_engine(mine), request) as answer:
            await answer.begin()
    words = str(caught.value)
    assert words.startswith(f"the engine {__name__}.test_a_foreign_delta")
    assert f"mine yielded {name}, which is not a delta: yield str, Thinking, Signature, ToolStart" in words
    with pytest.raises(TypeError, match=name):
        await Answer(as_engine(mine), parse_request(orjson.dumps(HELLO))).message()


# --- debugging an engine ---


@pytest.mark.parametrize("debug", [False, True])
async def test_the_traceback_of_an_engine_is_logged_only_for_debugging(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def mine(request: MessagesRequest) -> AsyncIterator[str]:
        raise RuntimeError("the prompt was secret")
        yield ""

    response = await Driver(MessagesApp(mine, debug=debug)).request("POST", "/v1/messages", body=orjson.dumps(HELLO))
    assert (response.status, response.json()["error"]["message"]) == (500, "internal error")
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    text, as_json = TextFormatter().format(record), orjson.loads(JsonFormatter().format(record))
    assert ("the prompt was secret" in text) is debug
    assert "RuntimeError at " in text.splitlines()[0]
    assert JsonFormatter().format(record).count("\n") == 0
    embedding = logging.Formatter().format(record)
    assert ("RuntimeError: the prompt was secret" in embedding) is debug, "any handler writes the traceback"
    if debug:
        assert as_json["traceback"].endswith("RuntimeError: the prompt was secret\n")
        assert '    raise RuntimeError("the prompt was secret")' in as_json["traceback"]
        assert all(line.startswith("    ") for line in text.splitlines()[1:])
        assert "mine" in text
    else:
        assert "traceback" not in as_json


async def test_the_log_says_what_an_engine_yielded_that_is_no_delta(caplog: pytest.LogCaptureFixture) -> None:
    async def mine(request: MessagesRequest) -> AsyncIterator[Any]:
        yield {"text": "secret"}

    await Driver(MessagesApp(mine)).request("POST", "/v1/messages", body=orjson.dumps(HELLO))
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    line = JsonFormatter().format(record)
    assert "InvalidDelta: the engine " in line
    assert "mine yielded dict, which is not a delta: yield str, Thinking" in line
    assert "secret" not in line


async def test_the_traceback_of_an_engine_that_fails_to_start_is_logged_for_debugging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Script):
        async def start(self) -> None:
            raise RuntimeError("no GPU here")

    with pytest.raises(LifespanFailed, match="no GPU here"):
        async with Driver(MessagesApp(Broken(), debug=True)).lifespan():
            pass
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert '    raise RuntimeError("no GPU here")' in TextFormatter().format(record)
