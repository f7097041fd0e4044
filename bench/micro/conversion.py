"""The whole conversion, upstream bytes → client bytes, in its steady state and without sockets.

The floor is one `orjson.loads` per chunk: what a server that parses every token has spent before it does anything else.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import orjson

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.wire.deltas import Batch
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.stop_sequences import StopSequenceFilter

from .. import oracles
from .case import Case, Side, always, same
from .parts import STOPS
from .streams import STYLES, Stream, Style, pieces_of, reads, stream, varied

GROUP: Final = "conversion"
BAR: Final = 1.0  # a text token in steady state
GENERAL_BAR: Final = 2.0  # a token that takes the general path
_TOKENS: Final = 1_000
_BATCHES: Final = (8, 64)


class Conversion:
    """The objects that the service uses for one stream, called in the same order.

    See `stream` in anthro_asgi/engines/openai/engine.py and `_pump` in anthro_asgi/http/message_response.py.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._reader = FastChunkReader(ChunkReader(stops, lambda: "toolu_bench"))
        self._filter = StopSequenceFilter(stops) if stops else None
        self._encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
        self._counted = 0
        self._encoder.start()
        self.feed = self._feeder()

    def _feeder(self) -> Callable[[bytes], bytes]:
        """Converts one read. Names are local, as in the service's loops."""
        read, over, encode = self._reader.read, self._reader.over, self._encode
        text = self._encoder.text if self._filter is None else None

        def feed(data: bytes) -> bytes:
            batch = read(data)
            if type(batch) is str:
                if text is None:
                    return encode(batch)
                self._counted += 1
                return text(batch)
            out = encode(batch) if batch else b""
            over()
            return out

        return feed

    def _encode(self, batch: Batch) -> bytes:
        self._counted += len(batch) if type(batch) is list else 1
        return self._encoder.feed(batch if self._filter is None else self._filter.feed(batch))

    def end(self) -> bytes:
        """The rest of the client's stream, after the engine's stream or a stop sequence."""
        out = b""
        if self._encoder.finish is None:
            out = self._encode(self._reader.rest() + self._reader.end())
        return out + self._encoder.end(self._counted)

    @property
    def finished(self) -> bool:
        """A stop sequence has matched."""
        return self._encoder.finish is not None


def cases() -> list[Case]:
    found = [_case(f"text, steady state, {style.name}", style, "text", BAR) for style in STYLES]
    for batch in _BATCHES:
        found += [_case(f"text, {batch} events a read, {style.name}", style, "text", batch=batch) for style in STYLES]
    for kind, name in (("arguments", "tool arguments"), ("thinking", "thinking")):
        styles = [style for style in STYLES if kind in style.recordings]
        found += [_case(f"{name}, {style.name}", style, kind, GENERAL_BAR) for style in styles]
    stopped = "stop sequences active"
    return found + [_case(f"{stopped}, {style.name}", style, "text", GENERAL_BAR, stops=STOPS) for style in STYLES]


def _case(
    name: str, style: Style, kind: str, bar: float | None = None, *, batch: int = 1, stops: Sequence[str] = ()
) -> Case:
    """`batch` events arrive in one read."""
    pieces = pieces_of(kind, _TOKENS)
    answer = stream(style, kind, pieces)
    what = f"{GROUP}, {name}"
    check = partial(_check_stops, style, stops, what) if stops else partial(_check, answer, kind, pieces, batch, what)
    subject = Side(partial(_steady, answer, stops), reads(answer.chunks, batch))
    floor = always(orjson.loads, answer.chunks)
    return Case(GROUP, name, "orjson.loads of the chunk", floor, subject, _TOKENS, check, bar)


def _steady(answer: Stream, stops: Sequence[str]) -> Callable[[bytes], bytes]:
    """A conversion that has seen the beginning and as many chunks as it learns from."""
    conversion = Conversion(stops)
    for read in reads([*answer.head, *answer.chunks[: max(_BATCHES)]]):
        conversion.feed(read)
    return conversion.feed


def _converted(answer: Stream, stops: Sequence[str] = (), batch: int = 1) -> bytes:
    conversion = Conversion(stops)
    out: list[bytes] = []
    for read in [*reads(answer.head), *reads(answer.chunks, batch), *reads(answer.tail)]:
        out.append(conversion.feed(read))
        if conversion.finished:
            break
    return b"".join(out) + conversion.end()


def _check(answer: Stream, kind: str, pieces: Sequence[str], batch: int, what: str) -> None:
    """The deltas byte for byte, and the blocks and the ending around them."""
    sent = _converted(answer, batch=batch)
    start, _, rest = sent.partition(b"\n\nevent: content_block_delta")
    same(start.count(b"event: content_block_start"), 1, what)
    wanted = b"".join(oracles.delta(kind, piece) for piece in pieces)
    deltas = b"event: content_block_delta" + rest
    begin = max(0, deltas.find(wanted[:200]))  # a tool call may begin with arguments from the recording
    same(deltas[begin : begin + len(wanted)], wanted, what)
    reason = "tool_use" if kind == "arguments" else "end_turn"
    same(oracles.client_ending(sent)[0], reason, what)


def _check_stops(style: Style, stops: Sequence[str], what: str) -> None:
    """The client's text and the stop sequence that ended it: without a match, and with each sequence."""
    few = varied(60, seed=5)
    middle = len(few) // 2
    for pieces in (varied(_TOKENS), *([*few[:middle], stop[:2], stop[2:], *few[middle:]] for stop in stops)):
        sent = _converted(stream(style, "text", pieces), stops)
        before, matched = oracles.before_a_stop("".join(pieces), stops)
        same(oracles.client_text(sent), before, what)
        same(oracles.client_ending(sent)[1], matched, what)
