"""Whether an answer of the service is correct, given the request and the engine's fault."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from anthro_asgi.bench.client import Ending
from anthro_asgi.conformance.grammar import Grammar, GrammarError, check_stream, message_from_events, parse_events

from .turns import Turn

Json = dict[str, Any]

_REFUSED: Final = {"type", "error", "request_id"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The part that was received. `ending` is None when the client left."""

    status: int
    content_type: bytes
    body: bytes
    ending: Ending | None


class Wrong(Exception):
    """The answer is wrong. Equal faults have equal messages, so that they can be counted."""


def judge(turn: Turn, answer: Answer) -> str:
    """The outcome in a word or two. Raises Wrong."""
    try:
        if answer.ending is None:
            return _left(turn, answer)
        if answer.ending != "complete":
            raise Wrong(f"the connection: {answer.ending}")
        if turn.kind in ("stream", "whole"):
            return _message(turn, answer)
        return _short(turn, answer)
    except (ValueError, KeyError, TypeError) as exc:
        raise Wrong(f"no answer of this API: {type(exc).__name__}") from exc
    except GrammarError as exc:
        raise Wrong(f"by the grammar: {exc.rule}") from exc


def _left(turn: Turn, answer: Answer) -> str:
    """What came before the client left must be the beginning of a stream."""
    if answer.status == 200 and turn.kind == "stream":
        whole, _, _ = answer.body.rpartition(b"\n\n")
        grammar = Grammar()
        for event in parse_events(whole + b"\n\n") if whole else ():
            grammar.feed(event)
    return "left"


def _short(turn: Turn, answer: Answer) -> str:
    """An answer that is not a Message."""
    told: Json = orjson.loads(answer.body)
    if turn.kind == "invalid":
        _must_be_error(answer.status, told, 400, "invalid_request_error")
        return "refused"
    if answer.status != 200:
        raise Wrong(f"status {answer.status}: {told['error']['type']}: {told['error']['message']}")
    right = told["input_tokens"] > 0 if turn.kind == "count" else [one["id"] for one in told["data"]] == ["scripted"]
    if not right:
        raise Wrong(f"a wrong answer to {turn.kind}")
    return "answered"


def _message(turn: Turn, answer: Answer) -> str:
    fault = turn.fault
    if answer.status == 200 and answer.content_type.startswith(b"text/event-stream"):
        events = parse_events(answer.body)
        check_stream(events)
        if events[-1].type == "error":
            _must_be_type(events[-1].data["error"], fault.type)
            return "error event"
        _must_be_all(turn, message_from_events(events))
        return "answered"
    told: Json = orjson.loads(answer.body)
    if answer.status != 200:
        if turn.kind == "stream" and not fault.early and fault.sure and fault.type:
            raise Wrong(f"status {answer.status} for a stream that had begun")
        _must_be_error(answer.status, told, fault.status, fault.type)
        return "error"
    _must_be_all(turn, told)
    return "answered"


def _must_be_all(turn: Turn, message: Json) -> None:
    """The answer has every token that the engine wrote, once and in order."""
    if turn.fault.type:
        raise Wrong(f"an answer, though {turn.fault.name}")
    tokens = turn.after if turn.fault.name in ("no-end", "extra") else turn.tokens
    (block,) = message["content"]
    text = block["input"]["a"] if turn.calls else block["text"]
    stamps = [int(word) for word in text.split()]
    if len(stamps) != tokens or stamps != sorted(stamps):
        raise Wrong(f"{len(stamps)} tokens, not {tokens}, or out of order")
    if (
        message["stop_reason"] != ("tool_use" if turn.calls else "end_turn")
        or message["usage"]["output_tokens"] != tokens
    ):
        raise Wrong("another ending, or another count, than the engine gave")


def _must_be_error(status: int, told: Json, expected: int, kind: str) -> None:
    if told.keys() != _REFUSED:
        raise Wrong(f"an error without its envelope, status {status}")
    _must_be_type(told["error"], kind)
    if status != expected:
        raise Wrong(f"status {status}, not {expected}")


def _must_be_type(error: Json, kind: str) -> None:
    if error["type"] != kind:
        raise Wrong(f"{error['type']}: {error['message']}; not {kind or 'an answer'}")
