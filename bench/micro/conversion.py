"""The whole conversion, upstream bytes → client bytes, in its steady state and without sockets.

The floor is one `orjson.loads` of each chunk: what a front that parses every token has spent before it does anything.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import orjson

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.engines.openai.fast_path import FastChunkReader
from anthro_asgi.wire.deltas import Batch
from anthro_asgi.wire.encoder import StreamEncoder
from anthro_asgi.wire.message import PLACEHOLDER_SIGNATURE
from anthro_asgi.wire.stop_sequences import StopSequenceFilter

from .. import oracles
from ..timing import Side, always
from .case import Case, same
from .stops import STOPS
from .streams import STYLES, Stream, Style, framed, stream
from .texts import varied

GROUP: Final = "conversion"
FLOOR: Final = "orjson.loads of the chunk"
BAR: Final = 1.0  # a text token in steady state
GENERAL_BAR: Final = 2.0  # what takes the general path
_TOKENS: Final = 1_000
_BATCHES: Final = (8, 64)
_FEW: Final = varied(60, seed=5)
_TOOL_ID: Final = "toolu_bench"
_GENERAL: Final = {"arguments": "tool arguments", "thinking": "thinking"}


class Conversion:
    """What the service strings together for one stream: the same objects, called in the same order.

    See `stream` in engines/openai/engine.py and `_pump` in http/message_response.py.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._reader = FastChunkReader(ChunkReader(stops, lambda: _TOOL_ID))
        self._filter = StopSequenceFilter(stops) if stops else None
        self._encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
        self._text = self._encoder.text if self._filter is None else None
        self._counted = 0
        self._encoder.start()
        self.feed = self._strung()

    def _strung(self) -> Callable[[bytes], bytes]:
        """One read from the engine, as what is sent to the client; names are at hand as in the service's loops."""
        read, over, written, text = self._reader.read, self._reader.over, self._written, self._text

        def feed(data: bytes) -> bytes:
            said = read(data)
            if type(said) is str:
                if text is None:
                    return written(said)
                self._counted += 1
                return text(said)
            out = written(said) if said else b""
            over()
            return out

        return feed

    def _written(self, said: Batch) -> bytes:
        self._counted += len(said) if type(said) is list else 1
        return self._encoder.feed(said if self._filter is None else self._filter.feed(said))

    def end(self) -> bytes:
        """What is left to send once the engine's stream is over, or a stop sequence has matched."""
        out = b""
        if self._encoder.finish is None:
            out = self._written(self._reader.rest() + self._reader.end())
        return out + self._encoder.end(self._counted)

    @property
    def finished(self) -> bool:
        """The client's answer is whole: a stop sequence has matched."""
        return self._encoder.finish is not None


def cases() -> list[Case]:
    steady = [_case(f"text, steady state, {style.name}", style, "text", BAR) for style in STYLES]
    batched = [
        _case(f"text, {batch} events a read, {style.name}", style, "text", None, batch=batch)
        for batch in _BATCHES
        for style in STYLES
    ]
    general = [
        _case(f"{name}, {style.name}", style, kind, GENERAL_BAR)
        for kind, name in _GENERAL.items()
        for style in STYLES
        if kind in style.recordings
    ]
    stopped = [
        _case(f"stop sequences active, {style.name}", style, "text", GENERAL_BAR, stops=STOPS) for style in STYLES
    ]
    return [*steady, *batched, *general, *stopped]


def _case(name: str, style: Style, kind: str, bar: float | None, *, batch: int = 1, stops: Sequence[str] = ()) -> Case:
    """`batch` events arrive in one read."""
    answer = stream(style, kind, varied(_TOKENS))
    reads = _reads(answer.chunks, batch)
    what = f"{GROUP}, {name}"
    check = partial(_check_stops, style, stops, what) if stops else partial(_check, answer, batch, what)
    subject = Side(partial(_steady, answer, stops), reads)
    return Case(GROUP, name, FLOOR, always(orjson.loads, answer.chunks), subject, _TOKENS, check, bar)


def _steady(answer: Stream, stops: Sequence[str]) -> Callable[[bytes], bytes]:
    """A conversion that is well under way: it has seen the beginning, and as much as one learns from."""
    conversion = Conversion(stops)
    for read in _reads([*answer.head, *answer.chunks[: max(_BATCHES)]]):
        conversion.feed(read)
    return conversion.feed


def _reads(payloads: Sequence[bytes], batch: int = 1) -> list[bytes]:
    return [framed(payloads[start : start + batch]) for start in range(0, len(payloads), batch)]


# against the oracle


def _check(answer: Stream, batch: int, what: str) -> None:
    """The whole stream, byte for byte."""
    said = [piece for payload in answer.payloads for piece in oracles.said(payload)]
    counts = oracles.usage(answer.payloads) or {"input_tokens": 1, "output_tokens": len(said)}
    reason = "tool_use" if any(kind == "call" for kind, _ in said) else "end_turn"
    wanted = oracles.client_stream(said, PLACEHOLDER_SIGNATURE) + oracles.client_end(reason, None, counts)
    same(_converted(answer, (), batch), wanted, what)


def _check_stops(style: Style, stops: Sequence[str], what: str) -> None:
    """The text that the client reads, and what ended it: with no stop sequence in it, and with each of them."""
    middle = len(_FEW) // 2
    for pieces in (varied(_TOKENS), *([*_FEW[:middle], stop[:2], stop[2:], *_FEW[middle:]] for stop in stops)):
        sent = _converted(stream(style, "text", pieces), stops)
        before, matched = oracles.before_a_stop("".join(pieces), stops)
        same(oracles.client_text(sent), before, what)
        same(oracles.stop_sequence(sent), matched, what)


def _converted(answer: Stream, stops: Sequence[str], batch: int = 1) -> bytes:
    conversion = Conversion(stops)
    out: list[bytes] = []
    for read in [*_reads(answer.head), *_reads(answer.chunks, batch), *_reads(answer.tail)]:
        out.append(conversion.feed(read))
        if conversion.finished:
            break
    return b"".join(out) + conversion.end()
