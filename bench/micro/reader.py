"""Chunks of a chat stream → deltas, against `orjson.loads` of the same chunk."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson

from anthro_asgi.engines.openai.chunk_reader import ChunkReader
from anthro_asgi.wire.deltas import Delta, Thinking, ToolJson, ToolStart

from .. import oracles
from ..timing import Side, always
from .case import Case, same
from .streams import STYLES, Stream, Style, stream
from .texts import varied

GROUP: Final = "chat chunk"
FLOOR: Final = "orjson.loads of the chunk"
KINDS: Final = {"text": "text", "thinking": "thinking", "arguments": "tool arguments"}
_CHUNKS: Final = 1_000


def cases() -> list[Case]:
    return [_case(style, kind) for kind in KINDS for style in STYLES if kind in style.recordings]


def _case(style: Style, kind: str) -> Case:
    answer = stream(style, kind, varied(_CHUNKS))
    name = f"{KINDS[kind]}, {style.name}"
    subject = Side(partial(_begun, answer), [[chunk] for chunk in answer.chunks])
    check = partial(_check, answer, f"{GROUP}, {name}")
    return Case(GROUP, name, FLOOR, always(orjson.loads, answer.chunks), subject, _CHUNKS, check)


def _begun(answer: Stream) -> Callable[[Any], list[Delta]]:
    reader = ChunkReader((), lambda: "toolu_bench")
    reader.feed(answer.head)
    return reader.feed


def _check(answer: Stream, what: str) -> None:
    reader = ChunkReader((), lambda: "toolu_bench")
    found = [said for payload in answer.payloads for said in map(_as_said, reader.feed([payload])) if said]
    found += [said for said in map(_as_said, reader.end()) if said]
    same(found, [said for payload in answer.payloads for said in oracles.said(payload)], what)


def _as_said(delta: Delta) -> oracles.Said | None:
    """A delta in the oracle's words; None for one that adds nothing to the answer."""
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
