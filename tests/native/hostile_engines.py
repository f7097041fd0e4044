"""Answers of engines with something unusual in the middle or at the end of a steady stream.

`SCRIPTS` maps a name to the pieces that the engine sends, with a millisecond between two. A number is a pause in
seconds; `CLOSE` and `RESET` end the connection.
"""

import asyncio
import json
from itertools import chain
from typing import Any, Final, Literal

from tests.native.test_relay import DONE, HEAD, beginning, finish, piece, token
from tests.replay.serving import NOT_FOUND
from tests.support.pumped import framed
from tests.support.upstream import Wire

CLOSE: Final = "close"
RESET: Final = "reset"
Step = bytes | float | Literal["close", "reset"]
_PACE: Final = 0.001  # seconds
_STEADY: Final = 25  # tokens
_LAST: Final = b"0\r\n\r\n"
_ARGUMENTS: Final = json.dumps(
    {f"k{n}": [n, 'a\n"é🙂', {"x": None, "y": -1.5e3}] for n in range(8)}, ensure_ascii=False
)


def steady(first: int = 0, key: str = "content", **more: Any) -> list[Step]:
    return [token(f" {first + number}", key, **more) for number in range(_STEADY)]


def amid(*odd: Step) -> list[Step]:
    """Something between two steady parts of a text."""
    return [HEAD, *steady(), *odd, *steady(100), finish()]


def last(*odd: Step) -> list[Step]:
    """Something after a steady text."""
    return [HEAD, *steady(), *odd]


def calling(text: str, size: int = 3, *, end: bytes | None = None) -> list[Step]:
    """A tool call with these arguments in pieces of `size` characters."""
    parts = [piece(text[at : at + size]) for at in range(0, len(text), size)]
    return [HEAD, beginning(), *parts, finish() if end is None else end]


def _event(payload: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(payload).encode()


def _body(data: bytes) -> bytes:
    """The body of one HTTP chunk."""
    return data.partition(b"\r\n")[2][:-2]


def _text(literal: bytes, extension: bytes = b"") -> bytes:
    """A token whose text is this JSON string, in a chunk with an extension."""
    body = _body(token("TEXT")).replace(b'"TEXT"', literal)
    return b"%x%b\r\n%b\r\n" % (len(body), extension, body)


def _restyled(old: bytes, new: bytes) -> list[Step]:
    """A whole stream whose events are written differently."""
    return [HEAD, *(framed(_body(token(f" {n}")).replace(old, new)) for n in range(_STEADY)), finish()]


def _pieces(data: bytes, size: int) -> list[Step]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _unframed(head: bytes, *end: Step) -> list[Step]:
    body = b"".join(_body(token(f" {n}")) for n in range(60)) + _body(finish().removesuffix(DONE)) + b"data: [DONE]\n\n"
    return [head % len(body) if b"%d" in head else head, *_pieces(body, 171), *end]


def _counted(*counts: Any) -> list[Step]:
    """A stream with counts in each chunk."""
    usages = [{"prompt_tokens": 9, "completion_tokens": count} for count in counts]
    return [HEAD, *(token("a", usage=usage) for usage in usages), finish()]


def _choice(delta: Any, index: int = 0, reason: str | None = None) -> bytes:
    return _event({"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})


def _piece(arguments: str, index: int = 0, **function: Any) -> bytes:
    call = {"index": index, "id": None, "function": {"arguments": arguments, **function}}
    return framed(_choice({"content": None, "tool_calls": [call]}))


_TOKEN: Final = _body(token("a"))
_ERROR: Final = _event({"error": {"message": "no", "type": "server_error", "code": 500}})
_TYPE: Final = b"content-type: text/event-stream\r\n"
_CALLS: Final = list(chain(*zip(calling(_ARGUMENTS, 7)[2:-1], steady(), strict=False)))

SCRIPTS: Final[dict[str, list[Step]]] = {
    # HTTP
    "chunk extensions": amid(_text(b'"a"', b";a=b"), _text(b'"b"', b';q="z"')),
    "trailers": last(finish().removesuffix(b"\r\n") + b"x-time: 1\r\n\r\n"),
    "a chunk of each byte": amid(*(framed(bytes([byte])) for byte in _body(token("aé🙂")))),
    "a read of each byte": [HEAD, *_pieces(b"".join(map(token, "abcdefgh")), 1), finish()],
    "chunks of one mebibyte": amid(token("y" * (1 << 20))),
    "chunks around 64 KiB": amid(*(token("z" * size) for size in (60_000, 65_300, 65_400, 70_000))),
    "many events in a chunk": amid(framed(b"".join(_body(token(f" {n}")) for n in range(50)))),
    "many chunks in a read": amid(b"".join(token(f" {n}") for n in range(300))),
    "an event over two chunks": amid(framed(_TOKEN[:30]), framed(_TOKEN[30:] + _TOKEN)),
    "leading zeros": amid(b"0000" + token("a"), b"0" * 20 + token("b")),
    "a content length": _unframed(b"HTTP/1.1 200 OK\r\n" + _TYPE + b"content-length: %d\r\n\r\n"),
    "a body until the end": _unframed(b"HTTP/1.1 200 OK\r\n" + _TYPE + b"connection: close\r\n\r\n", CLOSE),
    "an answer in HTTP/1.0": _unframed(b"HTTP/1.0 200 OK\r\n" + _TYPE + b"\r\n", CLOSE),
    "chunks that end with a line feed": last(token("a").replace(b"\r\n", b"\n"), CLOSE),
    "a chunk size with a space": last(b" " + token("a"), CLOSE),
    "a chunk size without a digit": last(b"zz\r\nwhat\r\n", CLOSE),
    "a chunk size that is wrong": last(b"5\r\nwhatever\r\n", CLOSE),
    "a chunk size without an end": last(b"f" * 17 + b"\r\n", CLOSE),
    "an answer after the answer": last(finish() + b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"),
    # events
    "CRLF": _restyled(b"\n\n", b"\r\n\r\n"),
    "CR": amid(framed(_body(token("a")).replace(b"\n", b"\r"))),
    "no space": _restyled(b"data: ", b"data:"),
    "names": _restyled(b"data: ", b"event: message\ndata: "),
    "comments": amid(framed(b": note\n\n"), token("a"), framed(b":\n" + _body(token("b")))),
    "a byte order mark": amid(framed(b"\xef\xbb\xbf" + _body(token("a")))),
    "ids and delays": amid(framed(b"id: 5\nretry: 3\n" + _body(token("a")))),
    "an event of several lines": amid(framed(_body(token("a")).replace(b",", b",\ndata: ", 1))),
    "constant parts of 66 kB": [HEAD, *(token(f" {n}", model="m" * 66_000) for n in range(5)), finish()],
    # texts
    "halves of a pair": amid(_text(b'"a\\ud83d"'), _text(b'"\\ude42b"'), _text(b'"\\ud83d\\ude42"')),
    "the character 0": amid(_text(b'"a\\u0000b"')),
    "the byte 0": last(_text(b'"a\0b"'), DONE),
    "a byte that is not UTF-8": last(_text(b'"a\xffb"'), DONE),
    "UTF-8 that is too long": last(_text(b'"a\xc0\x80b"'), DONE),
    "a tab": last(_text(b'"a\tb"'), DONE),
    "UTF-8 over two reads": [HEAD, *_pieces(b"".join(_text('"é漢🙂"'.encode()) for _ in range(20)), 50), finish()],
    "empty texts": amid(token(""), token("a"), token("")),
    "no text": amid(framed(_choice({"content": None})), framed(_choice({}))),
    "texts that are none": amid(_text(b"5"), _text(b'["x"]')),
    "a key twice": amid(framed(_body(token("a")).replace(b'"content"', b'"content": "b", "content"'))),
    # thinking
    "thinking as reasoning": [HEAD, *steady(0, "reasoning"), *steady(30), finish()],
    "thinking as reasoning_content": [HEAD, *steady(0, "reasoning_content"), *steady(30), finish()],
    "thinking alone": [HEAD, *steady(0, "reasoning_content"), finish()],
    "text and thinking": amid(framed(_choice({"content": "a", "reasoning_content": "b"}))),
    "think tags": [HEAD, token("<think>"), *steady(), token("</think>"), *steady(50), finish()],
    # choices, roles, counts
    "roles": amid(*(framed(_choice({"role": "assistant", "content": text})) for text in ("a", "", None))),
    "another choice": amid(framed(_choice({"content": "b"}, index=1))),
    "counts": _counted(*range(1, 30)),
    "counts that jump": _counted(1, 10**14, 0, 5, 7, 10**14),
    "counts beyond 64 bits": _counted(*range(1, 20), 10**20, 21),
    "counts below zero": _counted(*range(1, 20), -1, 21),
    "counts that are null": [HEAD, *steady(usage=None), finish(usage={"prompt_tokens": 3, "completion_tokens": 25})],
    "counts with an escape in a name": [HEAD, *steady(usage={'a"\\': 1, "completion_tokens": 3}), finish()],
    "changing constants": [HEAD, *(token(f" {n}", created=n // 4) for n in range(40)), finish()],
    # ends
    "a text with the end": last(framed(_choice({"content": "a"}, reason="length")) + DONE),
    "all ends in one chunk": last(framed(_body(token("a")) + _choice({}, reason="stop") + b"data: [DONE]\n\n") + _LAST),
    "an unknown end": last(framed(_choice({}, reason="odd")) + DONE),
    "a filtered end": last(framed(_choice({}, reason="content_filter")) + DONE),
    "no DONE": last(framed(_choice({}, reason="stop")), _LAST),
    "no end": last(_LAST),
    "DONE alone": last(DONE),
    "DONE twice": last(finish().removesuffix(_LAST), DONE),
    "texts after the end": last(framed(_choice({}, reason="stop")), *steady(50), DONE),
    "texts after DONE": last(finish().removesuffix(_LAST), token("late"), _LAST),
    "an error": last(framed(_ERROR), _LAST),
    "an error after a text": last(framed(_body(token("a")) + _ERROR), _LAST),
    "an end of the connection": last(CLOSE),
    "an end within a chunk": last(token("a")[:30], CLOSE),
    "an end within an event": last(framed(_body(token("a")) + _body(token("b"))[:20]), CLOSE),
    "a reset": last(0.05, RESET),
    "a reset within a chunk": last(token("a")[:30], 0.05, RESET),
    # pauses; there is a ping after 0.3 s, and an end after 1.5 s
    "a pause": amid(0.8),
    "a pause within a chunk": amid(token("half")[:40], 0.8, token("half")[40:]),
    "a pause without an end": last(4.0),
    # tools
    "a call": calling(_ARGUMENTS),
    "a text, and a call": [HEAD, *steady(), *calling(_ARGUMENTS)[1:]],
    "a call within a text": [HEAD, *steady(), beginning(), *_CALLS, finish()],
    "two calls": [*calling(_ARGUMENTS, end=b""), beginning(1), _piece("{}", 1), finish()],
    "a call whose index jumps": [*calling(_ARGUMENTS, end=b""), beginning(7), finish()],
    "arguments that are cut off": calling(_ARGUMENTS[:150]),
    "arguments and an error": calling(_ARGUMENTS[:150], end=framed(_ERROR) + _LAST),
    "arguments and an end": [*calling(_ARGUMENTS[:150], end=b""), CLOSE],
    "arguments of 30 kB": calling(json.dumps({"file": "a line of code\n" * 2000}), 40),
    "arguments with much white space": calling('{"a":1,' + " " * 300 + '"b":' + "\n" * 100 + "2}", 4),
    "arguments with long numbers": calling('{"a":' + "1" * 300 + ',"b":12e5,"c":-0,"d":01}', 4),
    "arguments with many brackets": calling('{"a":' + "[" * 150 + "]" * 150 + "}", 4),
    "arguments with escapes": calling('{"a":"' + "\\u00e9\\ud83d\\ude42\\n" * 20 + '"}', 1),
    "arguments with bad escapes": calling('{"a":"' + "\\ud83d x \\q " * 20 + '"}', 2),
    "arguments with control characters": calling('{"a":"line\nline\tx' + "y" * 40 + '"}', 2),
    "arguments with words of Python": calling('{"aaaaaaaaaaaaaaaaaaaa":[1,2,3,"b",True,nope,NaN,.5,]}', 2),
    "arguments with a surplus": calling(_ARGUMENTS + '   {"b":1}'),
    "arguments that are no object": calling('["a","b",1,2,3,4,5,6,7,8,9,10,11]'),
    "arguments with null names": [HEAD, beginning(), *(_piece(letter, name=None) for letter in _ARGUMENTS), finish()],
}  # fmt: skip


async def play(wire: Wire) -> None:
    """Answer with the script that the request's model names."""
    if wire.target != "/v1/chat/completions":
        await wire.send(NOT_FOUND)
        return
    for step in SCRIPTS[json.loads(wire.body)["model"]]:
        if isinstance(step, bytes):
            await wire.send(step)
            await asyncio.sleep(_PACE)
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif step == CLOSE:
            wire.close()
        else:
            wire.reset()
