"""The single steps: encoder, stop sequences, SSE parser, chunk reader, and the Message that is not streamed."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import orjson

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.upstream.sse import SSEParser
from anthro_asgi.wire.deltas import Delta, Finish, Thinking, ToolJson, ToolStart, Usage
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.json_codec import dumps
from anthro_asgi.wire.message import MessageBuilder
from anthro_asgi.wire.stop_sequences import StopSequenceMatcher

from .. import oracles
from .case import Case, Side, always, same
from .streams import STYLES, TOKENS, Stream, Style, framed, pieces_of, reads, stream, varied

_TEXT_FLOOR: Final = "orjson.dumps of the text"
_TOOL_ID: Final = "toolu_bench"

# the stream encoder: what it adds to the JSON string of a text is the frame around it

ENCODER_BAR: Final = 3.0
_TEXTS: Final = tuple(TOKENS[index * 7 % len(TOKENS)] for index in range(20_000))
_BATCHES: Final = [list(_TEXTS[start : start + 8]) for start in range(0, len(_TEXTS), 8)]


def encoder() -> list[Case]:
    each = always(orjson.dumps, _TEXTS)
    in_batches = always(lambda batch: [orjson.dumps(text) for text in batch], _BATCHES)
    return [
        _encoder_case("text(str)", each, Side(lambda: _open_encoder().text, _TEXTS), ENCODER_BAR),
        _encoder_case("feed(list of 8)", in_batches, Side(lambda: _open_encoder().feed, _BATCHES)),
        _encoder_case("slow oracle", each, always(slow_frame, _TEXTS)),
    ]


def slow_frame(text: str) -> bytes:
    """One text delta of block 0 as an event, without any preparation."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + orjson.dumps(event) + b"\n\n"


def _open_encoder() -> StreamEncoder:
    """An encoder in its steady state: a text block is open."""
    encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
    encoder.start()
    encoder.text("a")
    return encoder


def _encoder_case(name: str, floor: Side, subject: Side, bar: float | None = None) -> Case:
    def check() -> None:
        function = subject.start()
        for item in subject.items:
            texts: Any = item if type(item) is list else [item]
            same(function(item), b"".join(oracles.delta("text", text) for text in texts), f"encoder, {name}")

    return Case("encoder", name, _TEXT_FLOOR, floor, subject, len(_TEXTS), check, bar)


# stop sequences

STOP_TEXTS: Final = varied(4_000)
STOPS: Final = ("\n\nHuman:", "</answer>", "```\n\n\n", "==END==")
"""None is in the texts, but the first, third and last often begin there."""


def stop_matcher() -> list[Case]:
    found = []
    for name, stops in (("none", ()), ("1 sequence", STOPS[:1]), ("4 sequences", STOPS)):
        subject = Side(partial(_matching, stops), STOP_TEXTS)
        check = partial(_check_stops, stops, f"stop matcher, {name}")
        floor = always(orjson.dumps, STOP_TEXTS)
        found.append(Case("stop matcher", name, _TEXT_FLOOR, floor, subject, len(STOP_TEXTS), check))
    return found


def _matching(stops: Sequence[str]) -> Callable[[str], str]:
    return StopSequenceMatcher(stops).feed


def _check_stops(stops: Sequence[str], what: str) -> None:
    """Without a match, and with each sequence inserted, in pieces of one character and of a token."""
    same(_released(STOP_TEXTS, stops), oracles.before_a_stop("".join(STOP_TEXTS), stops), what)
    for number, stop in enumerate(stops):
        at = 40 + 100 * number
        text = "".join(STOP_TEXTS[:at]) + stop + "".join(STOP_TEXTS[at:])
        for pieces in (list(text), [*STOP_TEXTS[:at], stop[:3], stop[3:], *STOP_TEXTS[at:]]):
            same(_released(pieces, stops), oracles.before_a_stop(text, stops), what)


def _released(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, str | None]:
    matcher = StopSequenceMatcher(stops)
    out: list[str] = []
    for piece in pieces:
        out.append(matcher.feed(piece))
        if matcher.matched is not None:
            return "".join(out), matcher.matched
    return "".join(out) + matcher.flush(), None


# the SSE parser, against the parsing of the payloads that it finds


def sse_parser() -> list[Case]:
    payloads = stream(STYLES[0], "text", varied(2_000)).chunks
    few = payloads[:100]  # byte by byte they are 300 reads each
    rows = (
        ("1 event a read", payloads, reads(payloads)),
        ("8 events a read", payloads, reads(payloads, 8)),
        ("byte by byte", few, [bytes([byte]) for byte in framed(few)]),
    )
    return [_sse_case(*row) for row in rows]


def _sse_case(name: str, payloads: Sequence[bytes], cut: Sequence[bytes]) -> Case:
    def started() -> Callable[[bytes], list[bytes]]:
        parser = SSEParser()
        parser.feed(framed([b"{}"]))
        return parser.feed

    def check() -> None:
        parser = SSEParser()
        found = [payload for read in cut for payload in parser.feed(read)] + parser.end()
        same(found, oracles.payloads(b"".join(cut)), f"SSE parser, {name}")

    floor = always(orjson.loads, payloads)
    return Case("SSE parser", name, "orjson.loads of the payload", floor, Side(started, cut), len(payloads), check)


# chunks of a chat stream to deltas

_KINDS: Final = {"text": "text", "thinking": "thinking", "arguments": "tool arguments"}


def chunk_reader() -> list[Case]:
    return [_reader_case(style, kind) for kind in _KINDS for style in STYLES if kind in style.recordings]


def _reader_case(style: Style, kind: str) -> Case:
    answer = stream(style, kind, pieces_of(kind, 1_000))
    name = f"{_KINDS[kind]}, {style.name}"
    subject = Side(partial(_begun, answer), [[chunk] for chunk in answer.chunks])
    check = partial(_check_reader, answer, f"chat chunk, {name}")
    floor = always(orjson.loads, answer.chunks)
    return Case("chat chunk", name, "orjson.loads of the chunk", floor, subject, len(answer.chunks), check)


def _begun(answer: Stream) -> Callable[[Any], list[Delta]]:
    reader = ChunkReader((), lambda: _TOOL_ID)
    reader.feed(answer.head)
    return reader.feed


def _check_reader(answer: Stream, what: str) -> None:
    reader = ChunkReader((), lambda: _TOOL_ID)
    deltas = [delta for payload in answer.payloads for delta in reader.feed([payload])] + reader.end()
    found = [said for said in map(_as_said, deltas) if said]
    same(found, [said for payload in answer.payloads for said in oracles.said(payload)], what)


def _as_said(delta: Delta) -> oracles.Said | None:
    """A delta in the oracle's terms; None for one without content."""
    match delta:
        case str():
            return ("text", delta) if delta else None
        case Thinking():
            return ("thinking", delta.text)
        case ToolStart():
            return ("call", (delta.id, delta.name))
        case ToolJson():
            return ("arguments", delta.fragment)
        case _:
            return None


# a Message that is not streamed, from deltas that come one by one

_ARGUMENTS: Final = ('{"path": "src/', "größe.py", '", "lines": [1, ', '40], "text": "a \\"b\\"\\n"}')
_ANSWERS: Final = 20  # per round


def message() -> list[Case]:
    texts = varied(500)
    deltas: list[Delta] = [Usage(input_tokens=9), *texts, ToolStart(_TOOL_ID, "read")]
    deltas += [*map(ToolJson, _ARGUMENTS), Usage(output_tokens=600), Finish("tool_use")]
    call = {"type": "tool_use", "id": _TOOL_ID, "name": "read", "input": json.loads("".join(_ARGUMENTS))}
    expected = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [{"type": "text", "text": "".join(texts)}, call],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 600},
    }

    def check() -> None:
        same(json.loads(_built(deltas)), expected, "message")

    floor = always(orjson.dumps, [expected] * _ANSWERS)
    subject = always(_built, [deltas] * _ANSWERS)
    floor_name = "orjson.dumps of the message"
    return [Case("message", "500 deltas and a call", floor_name, floor, subject, _ANSWERS, check)]


def _built(deltas: Sequence[Delta]) -> bytes:
    builder = MessageBuilder("msg_bench", "bench", lambda: 1)
    for delta in deltas:
        builder.feed(delta)
    return dumps(builder.message(len(deltas)))
