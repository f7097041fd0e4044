"""Texts as models produce them, and streams of real engines, recorded for the replay tests, with those texts in them.

A recording is split into what comes before the first chunk with content, one such chunk as a template, and what comes
after the last. Texts are encoded as that engine encodes them. Where an engine counts tokens in every chunk, the counts
go up.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import orjson

from .. import oracles
from ..records import CHECKOUT

_CORPUS: Final = CHECKOUT / "tests" / "replay" / "corpus"
_CONTENT: Final = {  # by kind: the member with the text
    "text": re.compile(rb'("content": ?)"(?:[^"\\]|\\.)*"'),
    "thinking": re.compile(rb'("reasoning(?:_content)?": ?)"(?:[^"\\]|\\.)*"'),
    "arguments": re.compile(rb'("arguments": ?)"(?:[^"\\]|\\.)*"'),
}
_COUNTS: Final = {
    "text": re.compile(rb'("(?:completion|total)_tokens": ?)(\d+)'),
    "thinking": re.compile(rb'("(?:completion|total|reasoning)_tokens": ?)(\d+)'),
    "arguments": re.compile(rb'("(?:completion|total)_tokens": ?)(\d+)'),
}

TOKENS: Final = (
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
_MORE: Final = (
    *(" a", " to", " is", " that", " with", ",", "'s", ":", " (", ")", "\n\n", "    ", "\t", "``", "`", "//", " =="),
    *(" return", " self", " function", " because", " implementation", " however", "tion", "ed", "er", "ly", "ß", "—"),
    *(" größer", "данные", "です", "。", "✅", '\\"', '":', ' "', "</", ">", " {", "}", "[]", "e\u0301", "\u2028"),
)


def varied(count: int, seed: int = 4) -> list[str]:
    """`count` tokens of many lengths and scripts, the same for the same seed. Every eighth is a unique number."""
    words = Random(seed).choices(TOKENS + _MORE, k=count)  # noqa: S311 - repeatable, not secret
    return [f" {number}" if number % 8 == 7 else word for number, word in enumerate(words)]


def pieces_of(kind: str, count: int) -> list[str]:
    """`count` varied pieces of a text, of thinking, or of a string in the arguments of a call."""
    pieces = varied(count)
    return [json.dumps(piece, ensure_ascii=False)[1:-1] for piece in pieces] if kind == "arguments" else pieces


@dataclass(frozen=True, slots=True)
class Style:
    """An engine, and its recordings by kind: `text`, `thinking`, or `arguments` of a tool call."""

    name: str
    recordings: dict[str, str]
    ascii_only: bool = False  # it escapes what is not ASCII


def _style(name: str, folder: str, text: str, thinking: str, arguments: str) -> Style:
    return Style(name, {"text": f"{folder}/{text}", "thinking": f"{folder}/{thinking}", "arguments": arguments})


_USAGE: Final = "02_chat_stream_usage.sse"
_EACH: Final = "02d_chat_stream_contusage.sse"
_TOOLS: Final = "05_tools_auto_stream.sse"
STYLES: Final = (
    _style("vLLM", "vllm", _EACH, _EACH, f"vllm-noreason/{_TOOLS}"),
    _style("SGLang", "sglang", _EACH, _EACH, f"sglang/{_TOOLS}"),
    _style("llama.cpp", "llamacpp", _USAGE, "06_think_on_stream.sse", f"llamacpp/{_TOOLS}"),
    Style("transformers", {"text": f"transformers/{_USAGE}", "thinking": f"transformers/{_USAGE}"}),
    Style("llama-cpp-python", {"text": f"llama-cpp-python/{_USAGE}"}, ascii_only=True),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """The payloads of an answer. Each of `chunks` holds one piece and nothing else."""

    head: list[bytes]
    chunks: list[bytes]
    tail: list[bytes]

    @property
    def payloads(self) -> list[bytes]:
        return [*self.head, *self.chunks, *self.tail]


def stream(style: Style, kind: str, pieces: Sequence[str]) -> Stream:
    """The style's recording of this kind with `pieces` as its content. Raises AssertionError without a template."""
    recorded = oracles.payloads((_CORPUS / style.recordings[kind]).read_bytes())
    kinds = [[word for word, _ in oracles.said(payload)] for payload in recorded]
    content = [at for at, words in enumerate(kinds) if words]
    calls = [payload for payload, words in zip(recorded, kinds, strict=True) if "call" in words]
    templates = [payload for payload, words in zip(recorded, kinds, strict=True) if words == [kind]]
    template = templates[len(templates) // 2]
    head, tail = recorded[: content[0]], recorded[content[-1] + 1 :]
    if kind == "arguments":  # the pieces are parts of the one string in it
        head += [_CONTENT[kind].sub(rb'\1""', calls[0]), _filled(template, kind, '{"a":"', 0, style)]
        tail = [_filled(template, kind, '"}', 0, style), *tail]
    return Stream(
        head,
        [_filled(template, kind, piece, number, style) for number, piece in enumerate(pieces)],
        [_counted(payload, kind, len(pieces)) for payload in tail],
    )


def _filled(template: bytes, kind: str, piece: str, number: int, style: Style) -> bytes:
    """The template with another text and other counts."""
    text = json.dumps(piece).encode() if style.ascii_only else orjson.dumps(piece)
    payload, found = _CONTENT[kind].subn(lambda match: match[1] + text, template)
    assert found == 1
    assert oracles.said(payload) == [(kind, piece)]
    return _counted(payload, kind, number)


def _counted(payload: bytes, kind: str, by: int) -> bytes:
    return _COUNTS[kind].sub(lambda match: match[1] + b"%d" % (int(match[2]) + by), payload)


def framed(payloads: Sequence[bytes]) -> bytes:
    """The payloads as events, framed as all these engines do."""
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


def reads(payloads: Sequence[bytes], batch: int = 1) -> list[bytes]:
    """The payloads as events, `batch` of them per read."""
    return [framed(payloads[start : start + batch]) for start in range(0, len(payloads), batch)]
