"""The SSE parser, against `orjson.loads` of the payloads it finds: what is done with them anyway."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import orjson

from anthro_asgi.upstream.sse import SSEParser

from .. import oracles
from ..timing import Side, always
from .case import Case, same
from .streams import STYLES, framed, stream
from .texts import varied

GROUP: Final = "SSE parser"
FLOOR: Final = "orjson.loads of the payload"
_EVENTS: Final = 2_000
_SPLIT: Final = 100  # events that are fed byte by byte: 300 reads each
_BATCH: Final = 8


def cases() -> list[Case]:
    payloads = stream(STYLES[0], "text", varied(_EVENTS)).chunks
    batches = [payloads[start : start + _BATCH] for start in range(0, _EVENTS, _BATCH)]
    few = payloads[:_SPLIT]
    split = [bytes([byte]) for byte in framed(few)]
    return [
        _case("1 event a read", payloads, [framed([payload]) for payload in payloads]),
        _case(f"{_BATCH} events a read", payloads, [framed(batch) for batch in batches]),
        _case("byte by byte", few, split),
    ]


def _case(name: str, payloads: Sequence[bytes], reads: Sequence[bytes]) -> Case:
    check = partial(_check, reads, f"{GROUP}, {name}")
    return Case(GROUP, name, FLOOR, always(orjson.loads, payloads), Side(_started, reads), len(payloads), check)


def _started() -> Callable[[bytes], list[bytes]]:
    """A parser between two events: its stream has begun."""
    parser = SSEParser()
    parser.feed(framed([b"{}"]))
    return parser.feed


def _check(reads: Sequence[bytes], what: str) -> None:
    parser = SSEParser()
    found = [payload for read in reads for payload in parser.feed(read)] + parser.end()
    same(found, oracles.payloads(b"".join(reads)), what)
