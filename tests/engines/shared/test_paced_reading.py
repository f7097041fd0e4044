"""Large reads in pieces: the same deltas as from one read, and never more than a piece at once."""

import json
import random
from typing import Any

import pytest

from anthro_asgi.engines.messages.event_reader import EventReader
from anthro_asgi.engines.messages.event_stream import EventStreamReader
from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.engines.shared.event_pieces import LARGE, PIECE, pieces_of
from anthro_asgi.engines.shared.paced_reading import PacedReader, in_thread, read_on
from anthro_asgi.wire.deltas import Batch, Delta, Finish, Thinking, ToolJson, ToolStart, deltas_of

LONG_TEXT = "word " * LARGE
ARGUMENTS = '{"numbers":[' + "1, 2.5, true, " * 2000 + '{"a":"b,c"}]}'


def events(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(arguments: str) -> dict[str, Any]:
    return chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}])


def block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


CHAT = {
    "small texts": events(*[chunk(content=f"token {number} ") for number in range(500)], chunk("stop")),
    "a large text": events(chunk(content="Hi"), chunk(content=LONG_TEXT), chunk(content="!"), chunk("stop")),
    "large arguments": events(call(ARGUMENTS), chunk("tool_calls")),
    "arguments in pieces": events(*[call(piece) for piece in (ARGUMENTS[:9000], ARGUMENTS[9000:])], chunk("stop")),
    "a call that is repeated": events(call(ARGUMENTS), call(ARGUMENTS), chunk("tool_calls")),
    "arguments that are encoded twice": events(call(json.dumps(ARGUMENTS)), chunk("tool_calls")),
    "text between calls": events(call('{"a":'), chunk(content=LONG_TEXT), call("1}"), chunk("tool_calls")),
}
MESSAGES = {
    "texts": events(
        {"type": "message_start", "message": {}},
        *block(0, {"type": "text", "text": ""}, *[{"type": "text_delta", "text": f"{n} "} for n in range(400)]),
        *block(1, {"type": "text", "text": LONG_TEXT}),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ),
    "a call": events(
        {"type": "message_start", "message": {}},
        *block(
            0,
            {"type": "tool_use", "id": "c", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": ARGUMENTS},
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ),
}


def meaning(deltas: list[Delta]) -> list[Any]:
    """The deltas with neighbouring texts and arguments joined."""
    found: list[Any] = []
    for delta in deltas:
        kind = type(delta)
        text = delta if isinstance(delta, str) else delta.fragment if isinstance(delta, ToolJson) else None
        if text is None:
            found.append(delta)
        elif found and isinstance(found[-1], tuple) and found[-1][0] is kind:
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def drained(reader: PacedReader, batch: Batch) -> list[Delta]:
    out = list(deltas_of(batch))
    while reader.unread:
        out += reader.read_on()
    return out


def test_pieces_are_small_and_end_behind_events() -> None:
    data = CHAT["small texts"]
    pieces = pieces_of(data)
    assert b"".join(pieces) == data
    assert all(len(piece) <= PIECE for piece in pieces)
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    assert max(map(len, pieces_of(b"x" * 3 * PIECE + b"\n\n"))) == PIECE
    assert pieces_of(b"\n\n" * 3 * PIECE)[0] == b"\n\n" * (PIECE // 2)


@pytest.mark.parametrize("body", CHAT.values(), ids=CHAT)
def test_a_paced_chat_stream_means_the_same_however_it_is_cut(body: bytes) -> None:
    def reader(*, paced: bool) -> FastChunkReader:
        return FastChunkReader(ChunkReader((), lambda: "new"), paced=paced)

    whole = reader(paced=False)
    expected = meaning([*deltas_of(whole.read(body)), *whole.end()])
    assert any(isinstance(delta, Finish) for delta in expected)
    drawn = random.Random(9)
    for size in (len(body), 40_000, 9_000, 3_000):
        paced = reader(paced=True)
        out: list[Delta] = []
        start = 0
        while start < len(body):
            end = start + drawn.randint(1, size) if size < len(body) else size
            out += drained(paced, paced.read(body[start:end]))
            start = end
        assert meaning([*out, *paced.end()]) == expected


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
def test_a_paced_messages_stream_means_the_same(body: bytes) -> None:
    whole = EventReader(lambda: "new")
    stream = EventStreamReader(whole, 1 << 24)
    stream.paced = False
    expected = meaning([*stream.read(body), *whole.end()])
    reader = EventReader(lambda: "new")
    paced = EventStreamReader(reader, 1 << 24)
    assert meaning([*drained(paced, paced.read(body)), *reader.end()]) == expected


def test_a_large_read_of_texts_is_read_in_few_steps_however_it_begins_and_ends() -> None:
    texts = CHAT["small texts"]
    finish = texts.rindex(b"data: {")
    for body in (texts, texts[:finish], texts[: finish - 20]):
        reader = FastChunkReader(ChunkReader((), lambda: "new"), paced=True)
        batches = [reader.read(body)]
        while reader.unread:
            batches.append(reader.read_on())
        assert len(body) > 11 * PIECE
        assert len(batches) <= 3


def test_what_is_not_text_is_read_in_small_steps_after_large_ones() -> None:
    whole = CHAT["small texts"]
    events = whole.split(b"\n\n")
    for place in (40, len(events) // 2, len(events) - 4):
        odd = b'data: {"choices":[{"index":0,"delta":{"content":"x","reasoning_content":"y"}}]}'
        body = b"\n\n".join([*events[:place], *[odd] * 200, *events[place:]])
        reader = FastChunkReader(ChunkReader((), lambda: "new"), paced=True)
        out = list(deltas_of(reader.read(body)))
        while reader.unread:
            batch = reader.read_on()
            assert not any(isinstance(delta, Thinking) for delta in batch) or len(batch) < PIECE // 20
            out += batch
        expected = FastChunkReader(ChunkReader((), lambda: "new"))
        assert meaning([*out, *reader.end()]) == meaning([*deltas_of(expected.read(body)), *expected.end()])


async def test_a_large_event_is_read_in_a_thread_and_in_order() -> None:
    reader = FastChunkReader(ChunkReader((), lambda: "new"), paced=True)
    out = list(deltas_of(reader.read(CHAT["large arguments"])))
    heavy = 0
    while reader.unread and not reader.is_heavy:
        out += reader.read_on()
    heavy += reader.is_heavy
    async for batch in read_on(reader):
        out += batch
    assert heavy == 1
    out += await in_thread(reader.end)
    assert out[0] == ToolStart("c", "f")
    assert meaning(out)[1] == (ToolJson, ARGUMENTS)
