"""The stream encoder, against `orjson.dumps` of the same text, both called the same way.

The floor is what no encoder can go below: the text as a JSON string. What comes on top is the frame around it.
"""

from typing import Any, Final

import orjson

from anthro_asgi.wire.encoder import StreamEncoder

from .. import oracles
from ..timing import Side, always
from .case import Case, same
from .texts import TOKENS

GROUP: Final = "encoder"
FLOOR: Final = "orjson.dumps of the text"
BAR: Final = 3.0
_TEXTS: Final = tuple(TOKENS[index * 7 % len(TOKENS)] for index in range(20_000))
_BATCH: Final = 8
_BATCHES: Final = [list(_TEXTS[start : start + _BATCH]) for start in range(0, len(_TEXTS), _BATCH)]


def slow_frame(text: str) -> bytes:
    """One text delta of block 0 as an event: the least that can be written with a JSON library and no thought."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + orjson.dumps(event) + b"\n\n"


def open_encoder() -> StreamEncoder:
    """An encoder in its steady state: a text block is open."""
    encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
    encoder.start()
    encoder.text("a")
    return encoder


def cases() -> list[Case]:
    each = always(orjson.dumps, _TEXTS)
    text = Side(lambda: open_encoder().text, _TEXTS)
    batches = Side(lambda: open_encoder().feed, _BATCHES)
    in_batches = always(lambda batch: [orjson.dumps(text) for text in batch], _BATCHES)
    return [
        _case("text(str)", each, text, BAR),
        _case(f"feed(list of {_BATCH})", in_batches, batches, None),
        _case("slow oracle", each, always(slow_frame, _TEXTS), None),
    ]


def _case(name: str, floor: Side, subject: Side, bar: float | None) -> Case:
    def check() -> None:
        function = subject.start()
        for item in subject.items:
            texts: Any = item if type(item) is list else [item]
            same(function(item), b"".join(oracles.delta("text", text) for text in texts), f"{GROUP}, {name}")

    return Case(GROUP, name, FLOOR, floor, subject, len(_TEXTS), check, bar)
