"""Recorded answers that are replayed with their own timing. Pure.

A trace is JSON lines, each one answer:

    {"deltas": [[0.152, "text", "Hel"], [0.168, "text", "lo"]], "stop_reason": "end_turn"}

A delta has three parts: the seconds since the request was sent, ascending; its kind, `thinking`, `text`, `call` or
`json`; and its text. The text of a `call` is the tool's name, the text of a `json` is a piece of that call's input.
Without `stop_reason` it is `end_turn` or, after a call, `tool_use`. Other keys may say where an answer is from; they
are ignored. `anthro-asgi bench record` writes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Final, get_args

import orjson

from ..wire.deltas import StopReason

PARTS: Final = ("thinking", "text", "call", "json")
_REASONS: Final[tuple[StopReason, ...]] = get_args(StopReason)


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One answer. `gaps` are the seconds before each of `parts`: pairs of a kind and a text."""

    gaps: tuple[float, ...]
    parts: tuple[tuple[str, str], ...]
    stop_reason: StopReason


def read_trace(lines: Iterable[bytes]) -> tuple[RecordedAnswer, ...]:
    """The answers of a trace, in order. Raises ValueError that names the number of an invalid line."""
    answers = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                answers.append(_recorded(orjson.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError) as exc:
                raise ValueError(f"line {number} is not a recorded answer: {type(exc).__name__}: {exc}") from exc
    if not answers:
        raise ValueError("the file holds no recorded answer")
    return tuple(answers)


def _recorded(value: Any) -> RecordedAnswer:
    deltas = [_delta(*delta) for delta in value["deltas"]]
    if not deltas:
        raise ValueError("no deltas")
    moments = [0.0, *(moment for moment, _ in deltas)]
    gaps = tuple(after - before for before, after in pairwise(moments))
    if min(gaps) < 0:
        raise ValueError("each time must be at least the one before")
    kinds = ["", *(kind for _, (kind, _) in deltas)]
    if any(kind == "json" and before not in ("call", "json") for before, kind in pairwise(kinds)):
        raise ValueError("a json delta without a call before it")
    said = value.get("stop_reason") or ("tool_use" if "call" in kinds else "end_turn")
    reason = next((reason for reason in _REASONS if reason == said), None)
    if reason is None:
        raise ValueError(f"stop_reason {said!r:.40}")
    return RecordedAnswer(gaps, tuple(part for _, part in deltas), reason)


def _delta(moment: Any, kind: Any, text: Any) -> tuple[float, tuple[str, str]]:
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < inf:
        raise ValueError(f"the time must be a number of seconds from 0 on, not {moment!r:.40}")
    if kind not in PARTS or not isinstance(text, str) or not text:
        raise ValueError(f"{kind!r:.40} with {text!r:.40} is not a delta")
    return float(moment), (kind, text)


def line(deltas: Iterable[tuple[float, str, str]], stop_reason: str, **said: Any) -> bytes:
    """One answer as a line of a trace; `said` holds further keys."""
    parts = [(round(moment, 6), kind, text) for moment, kind, text in deltas]
    return orjson.dumps({"deltas": parts, "stop_reason": stop_reason, **said}) + b"\n"
