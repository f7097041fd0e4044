"""`python -m bench micro`: the stream encoder, against `orjson.dumps` of the same text, both called the same way.

The floor is what no encoder can go below: the text as a JSON string. What comes on top is the frame around it. Before
anything is timed, every frame is held against a slow, obvious encoder that dumps the whole event as a dict.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from anthro_asgi.wire.encoder import StreamEncoder

from .timing import Comparison, compare

BAR: Final = 3.0  # times the floor, for a text delta
_TOKENS: Final = (
    " the",
    " of",
    "ing",
    "\n",
    " café",
    '"',
    " 漢字",
    "🙂",
    " encoder",
    ".",
    " 42",
    "\\n",
    " anticipation",
)
_TEXTS: Final = tuple(_TOKENS[index * 7 % len(_TOKENS)] for index in range(20_000))
_BATCH: Final = 8


def slow_frame(text: str) -> bytes:
    """The oracle: one text delta of block 0 as an event, the long way round."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + orjson.dumps(event) + b"\n\n"


def open_encoder() -> StreamEncoder:
    """An encoder in its steady state: a text block is open."""
    encoder = StreamEncoder("msg_bench", "bench", lambda: 1)
    encoder.start()
    encoder.text("a")
    return encoder


def measure(rounds: int) -> dict[str, Comparison]:
    """Each way into the encoder, by name. Raises AssertionError when it does not say what the oracle says."""
    encoder = open_encoder()
    for text in _TOKENS:
        assert encoder.text(text) == slow_frame(text)
        assert encoder.feed(text) == slow_frame(text)
    assert encoder.feed(list(_TOKENS)) == b"".join(map(slow_frame, _TOKENS))
    batches: list[Any] = [list(_TEXTS[start : start + _BATCH]) for start in range(0, len(_TEXTS), _BATCH)]
    each: Callable[[list[str]], Any] = lambda batch: [orjson.dumps(text) for text in batch]  # noqa: E731
    return {
        "text(str)": compare(orjson.dumps, encoder.text, _TEXTS, rounds),
        f"feed(list of {_BATCH})": compare(each, encoder.feed, batches, rounds),
        "slow oracle": compare(orjson.dumps, slow_frame, _TEXTS, rounds),
    }


def report(rounds: int) -> None:
    """Print the table."""
    print(f"{'encoder':<18} {'floor ns':>9} {'ours ns':>9} {'ratio':>7}   (bar for text(str): {BAR} x orjson.dumps)")
    for name, result in measure(rounds).items():
        print(f"{name:<18} {result.floor_ns:>9.0f} {result.subject_ns:>9.0f} {result.ratio:>7.2f}")
