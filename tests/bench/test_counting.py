"""The token counter against a slow, plain parser, on recordings of real engines and on golden transcripts."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthro_asgi.bench import counting
from anthro_asgi.bench.counting import Api, Counter
from tests.replay import cases

Transcript = tuple[str, Api, bytes]
GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.sse"))
SOURCES: dict[str, list[Transcript]] = {"golden": [(path.name, "messages", path.read_bytes()) for path in GOLDEN]}
for case in cases():
    if case.streamed:
        SOURCES.setdefault(case.engine, []).append((case.name, "chat", case.content))
EVERY = pytest.mark.parametrize("transcripts", [pytest.param(some, id=name) for name, some in SOURCES.items()])


def slow_texts(api: Api, body: bytes) -> list[str]:
    """Every text that is a token, the obvious way: lines, JSON, and look."""
    texts: list[str] = []
    for event in body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n\n")[:-1]:
        lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
        if lines and lines != ["[DONE]"]:
            value = json.loads("\n".join(lines))
            texts += slow_messages(value) if api == "messages" else slow_chat(value)
    return [text for text in texts if text]


def slow_messages(value: dict[str, Any]) -> Iterator[str]:
    if value["type"] == "content_block_delta":
        delta = value["delta"]
        yield delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""


def slow_chat(value: dict[str, Any]) -> Iterator[str]:
    for choice in value.get("choices", ()):
        delta = choice.get("delta") or {}
        yield delta.get("content") or ""
        yield delta.get("reasoning") or delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls") or ():
            yield call["function"].get("arguments") or ""


def count(api: Api, pieces: list[bytes]) -> Counter:
    """A counter that was fed these, and whose own sum is right."""
    counter = Counter(api)
    assert sum(counter.feed(piece) for piece in pieces) == counter.total
    return counter


def ends(api: Api, body: bytes) -> bool:
    return b"data: [DONE]\n\n" in body if api == "chat" else b'data: {"type":"message_stop"}\n\n' in body


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@EVERY
def test_the_counter_agrees_with_a_parser_for_every_split_of_a_transcript(transcripts: list[Transcript]) -> None:
    for name, api, body in transcripts:
        expected = len(slow_texts(api, body))
        for size in (len(body) + 1, 1, 7, 64, 1000):
            counter = count(api, cut(body, size))
            assert (counter.total, counter.ended) == (expected, ends(api, body)), name


@EVERY
def test_every_kind_of_line_end_gives_the_same_count(transcripts: list[Transcript]) -> None:
    for name, api, body in transcripts:
        expected = len(slow_texts(api, body))
        for line_end in (b"\r\n", b"\r"):
            other = body.replace(b"\n", line_end) + b"\n"  # which a held carriage return waits for
            for size in (len(other), 3):
                assert count(api, cut(other, size)).total == expected, name


def test_a_split_at_any_byte_gives_the_same_count() -> None:
    body = messages("a") + messages("b") + messages('"}}') + messages("d")
    for first in range(len(body)):
        assert count("messages", [body[:first], body[first:]]).total == 4


def messages(text: str, compact: bool = True, swap: bool = False, kind: str = "text") -> bytes:
    delta = {"type": f"{kind}_delta", "partial_json" if kind == "input_json" else kind: text}
    if swap:
        delta = dict(reversed(delta.items()))
    value = {"type": "content_block_delta", "index": 0, "delta": delta}
    data = json.dumps(value, ensure_ascii=compact, separators=(",", ":") if compact else None)
    return f"event: content_block_delta\ndata: {data}\n\n".encode()


def chat(text: str, compact: bool = True, swap: bool = False, kind: str = "content") -> bytes:
    value: dict[str, Any] = {"choices": [{"index": 0, "delta": {kind: text}}], "usage": {"n": [len(text)]}, "id": "c"}
    if swap:
        value = dict(reversed(value.items()))
    return f"data: {json.dumps(value, ensure_ascii=compact, separators=(',', ':') if compact else None)}\n\n".encode()


TEXTS = (
    "a",
    "",
    '"',
    "\\",
    '\\"',
    '"}}',
    '"}}]',
    "\n",
    "é",
    "漢",
    "🙂",
    "text",
    '","text":"',
    "x9Q",
    "]",
    "content",
    " 1",
)


@pytest.mark.parametrize("seed", range(40))
def test_the_counter_agrees_with_a_parser_on_random_streams(seed: int) -> None:
    draw = random.Random(seed)
    api: Api = draw.choice(("messages", "chat"))
    kinds = ("text", "thinking", "input_json") if api == "messages" else ("content", "reasoning", "reasoning_content")
    make = messages if api == "messages" else chat
    events: list[bytes] = []
    for _ in range(6):
        shape = (draw.random() < 0.5, draw.random() < 0.5, draw.choice(kinds))
        texts = ["".join(draw.choices(TEXTS, k=draw.randrange(4))) for _ in range(10)]
        events += [make(text, *shape) for text in texts]
        events += draw.sample([b": a comment\n\n", b"\n\n", b"id: 7\n\n", b'event: ping\ndata: {"type":"ping"}\n\n'], 2)
    body = b"".join(events)
    counter = count(api, cut(body, draw.choice((1, 3, 50, 10_000))))
    assert (counter.total, counter.error) == (len(slow_texts(api, body)), None)


@pytest.mark.parametrize("make", [messages, chat])
def test_a_steady_stream_is_parsed_only_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    loads = orjson.loads

    def noted(data: bytes) -> Any:
        parsed.append(data)
        return loads(data)

    monkeypatch.setattr(orjson, "loads", noted)
    counter = Counter("messages" if make is messages else "chat")
    for number in range(100):
        assert counter.feed(make(f"token {number}")) == 1
    assert len(parsed) == 2  # the first event, and the same with another text to see that the frame is right


def test_a_stream_whose_frames_never_repeat_is_counted_and_learning_stops() -> None:
    counter = Counter("chat")
    for number in range(500):
        frame = b'data: {"n":%d,"choices":[{"delta":{"content":"a%d"}}]}\n\n' % (number, number)
        assert counter.feed(frame) == 1
    assert counter._lessons == 0


def test_a_text_that_looks_like_the_end_of_its_frame_hides_no_token() -> None:
    first = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    both = b'data: {"choices":[{"delta":{"content":"a\\"}}]","reasoning":"b"}}]}\n\n'
    assert count("chat", [first, first, both]).total == len(slow_texts("chat", first + first + both)) == 4
    assert count("messages", [messages("a"), messages("a")[:-2] + b"\ndata: and more\n\n"]).error == "garbled"


def test_a_split_within_crlf_is_one_line_end() -> None:
    body = b'event: error\r\ndata: {"error":"of no type"}\r\n\r\n'
    assert count("messages", cut(body, 1)).error == count("messages", [body]).error == "error event"


def test_two_deltas_in_one_chunk_are_two_tokens() -> None:
    body = b'data: {"choices":[{"delta":{"reasoning":"a","content":"b"}},{"delta":{"content":"c"}}]}\n\n'
    assert count("chat", [body]).total == 3


@pytest.mark.parametrize(
    ("api", "body", "error"),
    [
        ("messages", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n', "error event"),
        ("messages", b'event: error\ndata: {"error":"of no type"}\n\n', "error event"),
        ("chat", b'data: {"error":{"message":"out of memory"}}\n\n', "error event"),
        ("chat", b"data: no JSON\n\n", "garbled"),
        ("chat", b'data: ["not an object"]\n\n', "garbled"),
        ("messages", b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":5}}\n\n', "garbled"),
        ("messages", b'data: {"type":"content_block_delta"}\n\n', "garbled"),
        ("chat", b'data: {"choices":[{"delta":{"content":"error"}}]}\n\n', None),
    ],
)
def test_failures_in_a_stream_are_named(api: Api, body: bytes, error: str | None) -> None:
    assert count(api, [messages("a") if api == "messages" else chat("a"), body]).error == error


def test_stamps_are_returned_per_feed_and_only_if_the_first_token_is_one() -> None:
    counter = Counter("messages")
    counter.feed(messages(" 123") + messages(" 456"))
    assert counter.stamps == [b" 123", b" 456"]
    counter.feed(messages(" 789"))
    assert counter.stamps == [b" 789"]
    assert count("messages", [messages(" Hello"), messages(" 456")]).stamps is None


def test_the_tokens_of_a_whole_answer_are_read_from_its_usage() -> None:
    assert counting.whole(b'{"usage":{"input_tokens":3,"output_tokens":7}}') == (3, 7)
    assert counting.whole(b'{"usage":{"completion_tokens":9}}') == (None, 9)
    for body in (b"{}", b"[]", b"no JSON", b'{"usage":null}'):
        with pytest.raises(ValueError, match=r"usage|JSON|char"):
            counting.whole(body)
