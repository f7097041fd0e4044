"""How much of an answer is kept at one time: the bounds, what is said when they are passed, and that all is let go."""

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.engines.messages.event_reader import EventReader
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.engines.shared.remote import new_call_id
from anthro_asgi.engines.shared.tool_calls import ToolCallQueue
from anthro_asgi.testing.driver import Driver
from anthro_asgi.upstream.sse import EventTooLarge
from anthro_asgi.wire.answer_limits import BLOCK_OVERHEAD, AnswerLimits
from anthro_asgi.wire.deltas import Block, Delta, Finish, ToolJson, ToolStart
from anthro_asgi.wire.errors import AnswerTooLarge, ApiError, BadUpstream
from tests.support.upstream import Wire, fragmented
from tests.support.upstream_engines import SPEECHES, Chat, Messages, Speech, both_engines, endless, over, said, stream

CHAT, MESSAGES = Chat(), Messages()
SMALL = AnswerLimits(max_event=1000, max_tool_input=2000, max_answer=4000)
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
KIB = "x" * 1024


async def refused(speech: Speech, answer: Any, limits: AnswerLimits = SMALL) -> str:
    """What is said of an answer that is too large. All of it is let go of."""
    async with over(speech, answer, limits=limits) as (upstream, engine):
        with pytest.raises(AnswerTooLarge) as caught:
            await said(engine)
        await upstream.until(lambda: upstream.open <= 1)  # the one of the model list
    assert caught.value.status == 502
    return caught.value.message


# what is collected


@pytest.mark.slow
@both_engines
async def test_an_endless_answer_is_a_502_for_a_whole_message_and_frees_the_upstream(speech: Speech) -> None:
    left: list[bool] = []
    flood = endless([speech.begin()], speech.text(KIB * 200), left)
    async with over(speech, flood) as (upstream, engine):
        driver = Driver(MessagesApp(engine), timeout=30.0)  # 64 MiB are read first
        response = await driver.request("POST", "/v1/messages", body=orjson.dumps(BODY))
        assert response.status == 502
        assert response.json()["error"]["message"] == (
            "the engine's answer is too large: the part held in memory is larger than 67108864 bytes (max-answer)"
        )
        await upstream.until(lambda: left, within=30.0)


@both_engines
async def test_a_whole_answer_of_the_engine_is_bounded(speech: Speech) -> None:
    words = await refused(speech, speech.whole("x" * 5000))
    assert words == "the engine's answer is too large: it is larger than 4000 bytes (max-answer)"
    async with over(speech, speech.whole("x" * 3000), limits=SMALL) as (_, engine):
        assert "x" * 3000 in await said(engine)


# events


@pytest.mark.slow
@both_engines
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("before", [0, 1, 5], ids=["first", "second", "behind others"])
async def test_an_event_that_is_too_large_names_its_limit(speech: Speech, before: int, cut: bool) -> None:
    events = stream(speech.begin(), *[speech.text("a")] * before, speech.text("x" * 1000), speech.end())
    answer: Any = fragmented(events, range(len(events))) if cut else events
    words = await refused(speech, answer)
    assert words == "the engine's answer is too large: an event is larger than 1000 bytes (max-event)"


@pytest.mark.parametrize("size", [1, 60, 700, 1500])
def test_the_fast_path_reads_no_event_that_is_too_large(size: int) -> None:
    """Of a stream whose frame is known, with other events in the same read or none."""
    event, small = CHAT.text("x" * size), CHAT.text("a")
    for limit in (len(event) - 2, len(event) - 3):  # the blank line is no part of it
        for reads in ([event], [small + event], [event + small], [event + event], [event[:30], event[30:]]):
            short = FastChunkReader(ChunkReader((), lambda: "toolu_1"), max(limit, len(small)))
            for _ in range(3):
                assert short.read(small)
            if limit >= len(event) - 2 or limit <= len(small):
                assert [short.read(read) for read in reads]
            else:
                with pytest.raises(EventTooLarge, match=f"an event is larger than {limit} bytes"):
                    [short.read(read) for read in reads]


@both_engines
async def test_a_line_without_an_end_is_an_event_that_is_too_large(speech: Speech) -> None:
    assert "max-event" in await refused(speech, endless([], b"x" * 100))


async def test_an_event_that_is_too_large_does_not_start_a_detection() -> None:
    async with over(CHAT, stream(CHAT.text("x" * 1000)), limits=SMALL, dialect=None) as (upstream, engine):
        for _ in range(2):
            with pytest.raises(AnswerTooLarge):
                await said(engine)
        assert [asked.target for asked in upstream.requests].count("/v1/models") == 1


# what waits for its turn


@both_engines
async def test_the_input_of_a_waiting_call_is_bounded(speech: Speech) -> None:
    waiting = endless(
        [speech.begin(), speech.call(0), speech.input(0, '{"a":'), speech.call(1)], speech.input(1, KIB[:99])
    )
    words = await refused(speech, waiting)
    assert (
        words == "the engine's answer is too large: the input of a tool call is larger than 2000 bytes (max-tool-input)"
    )


@pytest.mark.slow
@both_engines
async def test_the_sum_of_all_waiting_calls_is_bounded(speech: Speech) -> None:
    def next_call(number: int) -> bytes:
        return speech.call(number + 1) + speech.input(number + 1, '{"a":' + "9" * 100)

    waiting = endless([speech.begin(), speech.call(0), speech.input(0, '{"a":')], next_call)
    words = await refused(speech, waiting)
    assert words == ("the engine's answer is too large: the part held in memory is larger than 4000 bytes (max-answer)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speech", "text"),
    [(CHAT, "a"), (CHAT, "🙂" * 20), (MESSAGES, "a"), (MESSAGES, "🙂" * 20), (MESSAGES, "")],
    ids=["chat short", "chat long", "messages short", "messages long", "messages empty"],
)
async def test_text_behind_a_call_is_bounded_even_if_it_is_empty(speech: Speech, text: str) -> None:
    waiting = endless([speech.begin(), speech.call(0), speech.input(0, '{"a":')], speech.text(text))
    assert "max-answer" in await refused(speech, waiting)


@pytest.mark.slow
@both_engines
async def test_the_number_of_calls_is_bounded_even_if_none_waits(speech: Speech) -> None:
    flood = endless([speech.begin()], lambda number: speech.call(number) + speech.input(number, "{}"))
    assert "max-answer" in await refused(speech, flood)


def test_an_empty_call_counts_towards_the_limit() -> None:
    queue = ToolCallQueue(new_call_id, limits=AnswerLimits(max_answer=100 * BLOCK_OVERHEAD))
    with suppress(AnswerTooLarge):
        for number in range(1000):
            queue.add_call(number, None, "f", "{}")
            queue.release()
    assert 50 < number < 100


def test_a_call_with_another_id_in_every_piece_is_bounded() -> None:
    queue = ToolCallQueue(new_call_id, limits=AnswerLimits(max_answer=100 * BLOCK_OVERHEAD))
    queue.add_call(0, "first", "f", '{"a":"')
    with suppress(AnswerTooLarge):
        for number in range(10_000):
            queue.add_call(0, f"{number}", None, "x")
            queue.release()
    assert 200 < number < 500
    assert len(queue._by_key) < 500


async def test_an_endless_tool_name_is_bounded() -> None:
    flood = endless([CHAT.call(0)], lambda number: CHAT.input(0, "", name=f"{number:0100}"))
    assert "max-answer" in await refused(CHAT, flood)


@both_engines
async def test_a_streamed_answer_is_not_bounded(speech: Speech) -> None:
    pieces = [speech.input(0, '{"a":"'), *[speech.input(0, KIB[:500])] * 100, speech.input(0, '"}')]
    answer = stream(speech.begin(), *[speech.text(KIB[:500])] * 100, speech.call(0), *pieces, speech.end("tool_use"))
    async with over(speech, answer, limits=SMALL) as (_, engine):
        deltas = await said(engine)
    assert sum(len(delta) for delta in deltas if isinstance(delta, str)) == 50_000
    told = "".join(delta.fragment for delta in deltas if isinstance(delta, ToolJson))
    assert len(json.loads(told)["a"]) == 50_000
    assert isinstance(deltas[-1], Finish)


@both_engines
async def test_a_sent_call_no_longer_counts(speech: Speech) -> None:
    """Call after call waits a while, each with more input than half of what may wait."""
    calls = [speech.begin()]
    for number in range(6):
        calls += [speech.call(number), speech.input(number, '{"a":"')]
        calls += [speech.call(number + 1), speech.input(number + 1, '{"a":"' + KIB[:900]), speech.input(number, '"}')]
        calls += [speech.input(number + 1, '"}')]
    small = AnswerLimits(max_event=2000, max_tool_input=2000, max_answer=6000)
    async with over(speech, stream(*calls, speech.end("tool_use")), limits=small) as (_, engine):
        deltas = await said(engine)
    assert len([delta for delta in deltas if isinstance(delta, ToolStart)]) == 7


@both_engines
async def test_sent_text_no_longer_counts(speech: Speech) -> None:
    events = [speech.begin()]
    for number in range(8):
        waits = [speech.call(number), speech.input(number, '{"a":'), speech.text(KIB[:500])]
        events += [*waits, speech.input(number, "1}"), speech.text("b")]
    answer = stream(*events, speech.end("tool_use"))
    async with over(speech, answer, limits=SMALL) as (_, engine):
        deltas = await said(engine)
    assert sum(len(delta) for delta in deltas if isinstance(delta, str)) == 8 * 501


def recent_bytes(call: Any) -> int:
    """How much a call keeps of its arguments."""
    return sum(len(piece) for piece in call.arguments._object._recent)


def test_a_streaming_call_keeps_no_sent_arguments() -> None:
    """On the slow way, where no piece is like the one before."""
    reader = ChunkReader((), lambda: "toolu_1")
    reader.feed([CHAT.call(0)[6:-2], CHAT.input(0, '{"a":"')[6:-2]])
    for number in range(1000):
        reader.feed([CHAT.input(0, KIB + str(number))[6:-2]])
        (call,) = reader._calls._queue
        assert recent_bytes(call) < 100 * len(KIB)
    reader.feed([CHAT.input(0, KIB * 100)[6:-2]])
    assert recent_bytes(call) < len(KIB)


# blocks that are given whole


def block(index: int, **content: Any) -> bytes:
    return orjson.dumps({"type": "content_block_start", "index": index, "content_block": content})


def piece(index: int, words: str) -> bytes:
    return MESSAGES.delta(index, type="input_json_delta", partial_json=words)[6:-2]


def test_the_input_of_a_buffered_block_is_bounded() -> None:
    reader = EventReader(lambda: "toolu_1", limits=SMALL)
    reader.feed([block(0, type="server_tool_use", id="s", name="web_search", input={})])
    for _ in range(20):
        reader.feed([piece(0, KIB[:99])])
    with pytest.raises(AnswerTooLarge, match="max-tool-input"):
        reader.feed([piece(0, KIB[:99])])


@pytest.mark.parametrize("same_index", [False, True])
def test_unfinished_blocks_are_bounded_and_a_replaced_block_counts_once(same_index: bool) -> None:
    reader = EventReader(lambda: "toolu_1", limits=SMALL)

    def flood() -> None:
        for number in range(30):
            reader.feed([block(0 if same_index else number, type="redacted_thinking", data=KIB[:99])])

    if same_index:
        flood()
    else:
        with pytest.raises(AnswerTooLarge, match="max-answer"):
            flood()


def test_a_sent_block_no_longer_counts() -> None:
    reader = EventReader(lambda: "toolu_1", limits=SMALL)
    out: list[Delta] = []
    for number in range(30):
        reader.feed([block(number, type="server_tool_use", id="s", name="n", input={}), piece(number, '{"a":1}')], out)
        reader.feed([orjson.dumps({"type": "content_block_stop", "index": number})], out)
    start = {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": '{"a":1}'}]
    assert out == [Block({**start, "input": {"a": 1}}, start, pieces)] * 30


# what has no end in another direction


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [101, 300, 700, 1000, 2000])
@pytest.mark.parametrize(
    "event",
    [
        '{"type":"content_block_start","index":0,"content_block":{"type":"x","y":%s}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":[%s]}}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"a":%s}}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn","container":%s}}',
    ],
)
def test_a_block_nested_too_deeply_is_an_invalid_response(event: str, levels: int) -> None:
    """Python would not come to the end of writing it."""
    with pytest.raises(BadUpstream):
        EventReader(lambda: "toolu_1").feed([(event % nested(levels)).encode()])


@pytest.mark.parametrize("levels", [101, 300, 700, 950, 1000, 2000])
@pytest.mark.parametrize(
    "chunk",
    [
        '{"choices":[{"delta":{"content":"a"}}],"x":%s}',
        '{"choices":[{"delta":{"content":%s}}]}',
        '{"choices":[{"delta":{"reasoning":%s}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"a","arguments":%s}}]}}]}',
        '{"error":{"message":%s}}',
        '{"choices":[{"delta":{},"finish_reason":%s}]}',
    ],
)
def test_a_deeply_nested_chunk_is_an_answer_or_an_error(chunk: str, levels: int) -> None:
    short = FastChunkReader(ChunkReader((), new_call_id))
    with suppress(ApiError):
        for _ in range(3):
            short.read(f"data: {chunk % nested(levels)}\n\n".encode())


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
@pytest.mark.parametrize("wrap", ['{"error":{"message":%s}}', '{"detail":%s}', "%s"])
async def test_a_deeply_nested_error_body_is_still_an_error(speech: Speech, wrap: str) -> None:
    body = (wrap % nested(900)).encode()

    async def refuse(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with over(speech, refuse) as (_, engine):
        response = await Driver(MessagesApp(engine)).request("POST", "/v1/messages", body=orjson.dumps(BODY))
    assert response.status == 400
