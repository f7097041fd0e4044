"""Streams of real engines, as recorded for the replay tests, with other words in them: as many as a bench needs.

A recording is cut into what comes before the first chunk that says something, one such chunk as the mould for all, and
what comes after the last. The words are written as that engine writes them, and where it counts in every chunk, the
counts go up.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from .. import oracles

_CORPUS: Final = Path(__file__).parents[2] / "tests" / "replay" / "corpus"
_WORDS: Final = {
    "text": re.compile(rb'("content": ?)"(?:[^"\\]|\\.)*"'),
    "thinking": re.compile(rb'("reasoning(?:_content)?": ?)"(?:[^"\\]|\\.)*"'),
    "arguments": re.compile(rb'("arguments": ?)"(?:[^"\\]|\\.)*"'),
}
_COUNTS: Final = {
    "text": re.compile(rb'("(?:completion|total)_tokens": ?)(\d+)'),
    "thinking": re.compile(rb'("(?:completion|total|reasoning)_tokens": ?)(\d+)'),
    "arguments": re.compile(rb'("(?:completion|total)_tokens": ?)(\d+)'),
}


@dataclass(frozen=True, slots=True)
class Style:
    """An engine, and its recordings by what they say: `text`, `thinking` or `arguments` of a call."""

    name: str
    recordings: dict[str, str]
    ascii_only: bool = False
    """It escapes what is not ASCII."""


STYLES: Final = (
    Style(
        "vLLM",
        {
            "text": "vllm/02d_chat_stream_contusage.sse",
            "thinking": "vllm/02d_chat_stream_contusage.sse",
            "arguments": "vllm-noreason/05_tools_auto_stream.sse",
        },
    ),
    Style(
        "SGLang",
        {
            "text": "sglang/02d_chat_stream_contusage.sse",
            "thinking": "sglang/02d_chat_stream_contusage.sse",
            "arguments": "sglang/05_tools_auto_stream.sse",
        },
    ),
    Style(
        "llama.cpp",
        {
            "text": "llamacpp/02_chat_stream_usage.sse",
            "thinking": "llamacpp/06_think_on_stream.sse",
            "arguments": "llamacpp/05_tools_auto_stream.sse",
        },
    ),
    Style(
        "transformers",
        {
            "text": "transformers/02_chat_stream_usage.sse",
            "thinking": "transformers/02_chat_stream_usage.sse",
        },
    ),
    Style("llama-cpp-python", {"text": "llama-cpp-python/02_chat_stream_usage.sse"}, ascii_only=True),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """The payloads of an answer. Each of `chunks` says one piece and nothing else."""

    head: list[bytes]
    chunks: list[bytes]
    tail: list[bytes]

    @property
    def payloads(self) -> list[bytes]:
        return [*self.head, *self.chunks, *self.tail]


def stream(style: Style, kind: str, pieces: Sequence[str]) -> Stream:
    """The recording of what is of that kind, saying `pieces`. Raises AssertionError where no chunk can be the mould."""
    recorded = oracles.payloads((_CORPUS / style.recordings[kind]).read_bytes())
    kinds = [[word for word, _ in oracles.said(payload)] for payload in recorded]
    first = next(at for at, words in enumerate(kinds) if words)
    after = max(at for at, words in enumerate(kinds) if words) + 1
    calls = [payload for payload, words in zip(recorded, kinds, strict=True) if "call" in words]
    moulds = [payload for payload, words in zip(recorded, kinds, strict=True) if words == [kind]]
    mould = moulds[len(moulds) // 2]
    return Stream(
        recorded[:first] + (calls[:1] if kind == "arguments" else []),
        [_cast(mould, kind, piece, number, style) for number, piece in enumerate(pieces)],
        [_counted(payload, kind, len(pieces)) for payload in recorded[after:]],
    )


def _cast(mould: bytes, kind: str, piece: str, number: int, style: Style) -> bytes:
    """The mould with other words and counts."""
    words = json.dumps(piece).encode() if style.ascii_only else orjson.dumps(piece)
    payload, found = _WORDS[kind].subn(lambda match: match[1] + words, mould)
    assert found == 1
    assert oracles.said(payload) == [(kind, piece)]
    return _counted(payload, kind, number)


def _counted(payload: bytes, kind: str, by: int) -> bytes:
    return _COUNTS[kind].sub(lambda match: match[1] + b"%d" % (int(match[2]) + by), payload)


def framed(payloads: Sequence[bytes]) -> bytes:
    """The payloads as events, in the framing that all these engines have."""
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
