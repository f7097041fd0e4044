"""The native conversion (see `anthro_asgi._native`) of chunks that match their template: HTTP chunk in, HTTP chunk out.

The floor is that of the conversion in Python, so that the rows can be compared. There are no rows where the extension
module is not built.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import orjson

from anthro_asgi._native import Pump, new_pump
from anthro_asgi.engines.openai.chunk_template import learn_template
from anthro_asgi.wire.deltas import Delta, Thinking, ToolStart
from anthro_asgi.wire.encoder import StreamEncoder

from .. import oracles
from .case import Case, Side, always, same
from .streams import STYLES, Style, pieces_of, reads, stream

GROUP: Final = "native"
BAR: Final = 0.5
_TOKENS: Final = 1_000
_LARGEST: Final = 1 << 20  # bytes of an event
_IN_STRING: Final = b'{"'  # the place of the pieces in the arguments of a call


class _Nobody:
    """The owner of a pump that only converts."""

    def hand_back(self, data: bytes) -> None: ...
    def sync(self) -> None: ...
    def slow_down(self) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


def cases() -> list[Case]:
    if new_pump is None:
        return []
    return [
        _case(style, kind) for style in STYLES for kind in ("text", "thinking", "arguments") if kind in style.recordings
    ]


def _case(style: Style, kind: str) -> Case:
    pieces = pieces_of(kind, _TOKENS)
    chunks = stream(style, kind, pieces).chunks
    framed = [b"%x\r\n%b\r\n" % (len(read), read) for read in reads(chunks)]
    name = f"{'tool arguments' if kind == 'arguments' else kind}, {style.name}"
    floor = always(orjson.loads, chunks)
    subject = Side(partial(_converter, chunks[0], kind), framed)
    check = partial(_check, chunks[0], kind, pieces, framed, f"{GROUP}, {name}")
    return Case(GROUP, name, "orjson.loads of the chunk", floor, subject, _TOKENS, check, BAR)


def _converter(chunk: bytes, kind: str) -> Callable[[bytes], object]:
    return _pump(chunk, kind).convert


def _pump(chunk: bytes, kind: str) -> Pump:
    """A pump for a stream of chunks like this one."""
    template = learn_template(chunk, orjson.loads(chunk))
    assert template is not None
    assert new_pump is not None
    encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
    encoder.start()
    first: dict[str, Delta] = {"text": "a", "thinking": Thinking("a"), "arguments": ToolStart("a", "b")}
    encoder.feed(first[kind])
    place = _IN_STRING if kind == "arguments" else b""
    pump = new_pump(_Nobody(), None, lambda _: None, lambda: 0, lambda: False, -1)
    pump.arm(template.before, template.after, template.numberless, *encoder.frame, _LARGEST, place)
    return pump


def _check(chunk: bytes, kind: str, pieces: list[str], framed: list[bytes], what: str) -> None:
    """Each chunk becomes its delta, byte for byte."""
    pump = _pump(chunk, kind)
    for piece, data in zip(pieces, framed, strict=True):
        delta = oracles.delta(kind, piece)
        consumed, sent, deltas, _, _ = pump.convert(data)
        same((consumed, deltas), (len(data), 1), what)
        same(sent, b"%x\r\n%b\r\n" % (len(delta), delta), what)
