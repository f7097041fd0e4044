"""The grammar of a Messages stream (contract section 5), as a machine that reads events and stops at the first error.

    stream = message_start block* message_delta message_stop
    block  = content_block_start content_block_delta* content_block_stop

A ping may stand anywhere between message_start and message_stop. An error may end the stream at any point.

Theory. `Grammar` is a finite automaton over event types. Beside its state it keeps the number of the next block and the
open block. `FOLLOWS` is one table of the events that may follow in each state; one method for each type checks what the
event holds. Two rules look back from the end, because they depend on the stop reason: a tool input that is not a JSON
object is allowed only if the tokens ran out, and an empty text block only if it is the only block. Neither rule
applies if the stream ends with an error event.

The rules are exact, as they are for the output of this service: no extra key, no empty delta, no unknown type. Extra
keys are allowed only where an engine's own fields are passed on: in the message, in `message_delta`, in usage, in a
tool_use block. Blocks of other types may have deltas of other types, and so may blocks of text and thinking.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import orjson

Json = dict[str, Any]

MESSAGE_ID = re.compile(r"msg_[A-Za-z0-9_-]{20,}")
REQUEST_ID = re.compile(r"req_[A-Za-z0-9_-]+")
STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn", "compaction")
ERROR_TYPES = (
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
)

# State → event allowed in it → next state. `error` is allowed in every state but the last.
FOLLOWS: dict[str, dict[str, str]] = {
    "before message_start": {"message_start": "between blocks"},
    "between blocks": {
        "ping": "between blocks",
        "content_block_start": "inside a block",
        "message_delta": "after message_delta",
    },
    "inside a block": {
        "ping": "inside a block",
        "content_block_delta": "inside a block",
        "content_block_stop": "between blocks",
    },
    "after message_delta": {"ping": "after message_delta", "message_stop": "after the end"},
    "after the end": {},
}

# Block type → its delta types → the only key of the delta beside `type`.
BLOCK_DELTAS: dict[str, dict[str, str]] = {
    "text": {"text_delta": "text", "citations_delta": "citation"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
}
KEYS = {kind: key for deltas in BLOCK_DELTAS.values() for kind, key in deltas.items()}
REPLACED = frozenset({"encrypted_content", "signature"})  # keys of other deltas whose newest value counts


class GrammarError(Exception):
    """A stream breaks a rule. `index` is the offending event, from 0; the number of events if one is missing."""

    def __init__(self, index: int, rule: str) -> None:
        super().__init__(f"event {index}: {rule}")
        self.index = index
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its type and its data, which holds the same `type`."""

    type: str
    data: Json


# ---- bytes → events


def parse_events(body: bytes) -> list[Event]:
    """The events of a whole body. Each is exactly `event: TYPE`, `data: {JSON}` and an empty line, with LF line ends.

    Raises GrammarError.
    """
    *frames, rest = body.split(b"\n\n")
    events = [_event(index, frame) for index, frame in enumerate(frames)]
    if rest:
        raise GrammarError(len(events), f"the body ends inside an event: {rest[:60]!r}")
    return events


def _event(index: int, frame: bytes) -> Event:
    match = re.fullmatch(rb"event: ([a-z_]+)\ndata: (\{[^\r\n]*\})", frame)
    if match is None:
        raise GrammarError(index, f"not one event line and one data line: {frame[:60]!r}")
    name = match[1].decode()
    try:
        data = orjson.loads(match[2])
    except orjson.JSONDecodeError as exc:
        raise GrammarError(index, f"data is not JSON: {exc}") from exc
    if data.get("type") != name:
        raise GrammarError(index, f"the event is {name}, but the type in its data is {data.get('type')!r}")
    return Event(name, data)


class Grammar:
    """Reads one stream: `feed` each event, then `end`. Both raise GrammarError."""

    def __init__(self) -> None:
        self.state = "before message_start"
        self._index = 0
        self._blocks: list[Json] = []  # as in content_block_start
        self._text = ""  # joined deltas of the open block
        self._signed = False
        self._not_json: int | None = None  # event that closed a tool_use whose input is not a JSON object
        self._empty: int | None = None  # event that closed a text block without text

    def feed(self, event: Event) -> None:
        """Reads the next event. Raises GrammarError."""
        if event.type == "error" and self.state != "after the end":
            state = "after the end"
        elif event.type in FOLLOWS[self.state]:
            state = FOLLOWS[self.state][event.type]
        else:
            self._fail(f"{event.type} is not allowed {self.state}")
        self._READ[event.type](self, event.data)
        self.state = state
        self._index += 1

    def end(self) -> None:
        """Call after the last event. Raises GrammarError if the stream is incomplete."""
        self._must(self.state == "after the end", f"the stream ends {self.state}, without message_stop or error")

    # Checks of each event

    def _message_start(self, data: Json) -> None:
        self._keys(data, "type", "message")
        message = self._object(data, "message")
        fixed: Json = {
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        for key, value in fixed.items():
            self._must(key in message and message[key] == value, f"message.{key} must be {value!r} at the start")
        self._must(
            _matches(MESSAGE_ID, message.get("id")), "message.id must be msg_ and at least 20 url-safe characters"
        )
        self._must(_text(message.get("model")), "message.model must be the name of a model")
        self._usage(message)

    def _ping(self, data: Json) -> None:
        self._keys(data, "type")

    def _block_start(self, data: Json) -> None:
        self._keys(data, "type", "index", "content_block")
        self._index_is(data, len(self._blocks))
        block = self._object(data, "content_block")
        kind = block.get("type")
        self._must(_text(kind), "content_block.type must be the name of a type")
        if kind == "text":
            self._must(block == {"type": "text", "text": ""}, "a text block must start with only an empty text")
        elif kind == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            self._must(block == empty, "a thinking block must start with only an empty thinking and signature")
        elif kind == "tool_use":
            self._keys(block, "type", "id", "name", "input", more=True)
            self._must(_text(block["id"]) and _text(block["name"]), "a tool_use block must have an id and a name")
            self._must(block["input"] == {}, "a tool_use block must start with an empty input")
        self._blocks.append(block)
        self._text, self._signed = "", False

    def _block_delta(self, data: Json) -> None:
        self._keys(data, "type", "index", "delta")
        self._index_is(data, len(self._blocks) - 1)
        delta, block = self._object(data, "delta"), self._blocks[-1]["type"]
        kind = delta.get("type")
        if block not in BLOCK_DELTAS and _text(kind) and (kind not in KEYS or kind == "input_json_delta"):
            return  # the block is of another server
        key = BLOCK_DELTAS.get(block, {}).get(kind) if isinstance(kind, str) else None
        if key is None and block != "tool_use" and _text(kind) and kind not in KEYS:
            self._text += str(kind)  # a delta of an upstream that speaks Messages, which this service passes on
            return
        if key is None:
            self._fail(f"{kind} is not allowed in a {block} block")
        if kind == "thinking_delta" and "estimated_tokens" in delta:
            self._keys(delta, "type", key, "estimated_tokens")
            self._must(delta[key] == "", "a delta with an estimate must have no thinking")
            self._must(not self._signed, "nothing may follow the signature in its block")
            return
        self._keys(delta, "type", key)
        if kind == "citations_delta":
            self._text += str(self._object(delta, key))
            return
        self._must(_text(delta[key]), f"{kind}.{key} must be a string that is not empty")
        self._must(not self._signed, "nothing may follow the signature in its block")
        self._signed = kind == "signature_delta"
        self._text += delta[key]

    def _block_stop(self, data: Json) -> None:
        self._keys(data, "type", "index")
        self._index_is(data, len(self._blocks) - 1)
        kind = self._blocks[-1]["type"]
        self._must(kind != "thinking" or self._signed, "a thinking block must end with its signature")
        if kind == "tool_use" and self._not_json is None and _input(self._text) is None:
            self._not_json = self._index
        if kind == "text" and self._empty is None and not self._text:
            self._empty = self._index

    def _message_delta(self, data: Json) -> None:
        self._keys(data, "type", "delta", "usage", more=True)
        delta = self._object(data, "delta")
        self._keys(delta, "stop_reason", "stop_sequence", more=True)
        reason, sequence = delta["stop_reason"], delta["stop_sequence"]
        self._must(reason in STOP_REASONS, f"{reason!r} is not a stop_reason")
        if reason == "stop_sequence":
            self._must(_text(sequence), "stop_sequence must be the matched string")
        else:
            self._must(sequence is None, f"stop_sequence must be null if stop_reason is {reason}")
        self._usage(data)
        self._look_back(reason)

    def _look_back(self, reason: str) -> None:
        called = any(block["type"] == "tool_use" for block in self._blocks)
        self._must(called or reason != "tool_use", "stop_reason is tool_use, but no tool was called")
        self._must(
            not called or reason not in ("end_turn", "stop_sequence"),
            f"stop_reason is {reason}, although a tool was called",
        )
        if self._not_json is not None and reason != "max_tokens":
            raise GrammarError(self._not_json, "the pieces of a tool's input are not a JSON object")
        if self._empty is not None and len(self._blocks) > 1:
            raise GrammarError(self._empty, "a text block is empty, and it is not the only block")

    def _message_stop(self, data: Json) -> None:
        self._keys(data, "type")

    def _error(self, data: Json) -> None:
        self._keys(data, "type", "error", "request_id")
        error = self._object(data, "error")
        unknown = sorted(error.keys() - {"type", "message", "details"})
        self._must(not unknown, f"error holds unknown keys: {unknown}")
        self._must(error.get("type") in ERROR_TYPES, f"{error.get('type')!r} is not a type of error")
        self._must(_text(error.get("message")), "error.message must not be empty")
        self._must(isinstance(error.get("details", {}), dict), "error.details must be an object")
        self._must(_matches(REQUEST_ID, data["request_id"]), "request_id must be req_ and at least one character")

    _READ: ClassVar[dict[str, Callable[["Grammar", Json], None]]] = {
        "message_start": _message_start,
        "ping": _ping,
        "content_block_start": _block_start,
        "content_block_delta": _block_delta,
        "content_block_stop": _block_stop,
        "message_delta": _message_delta,
        "message_stop": _message_stop,
        "error": _error,
    }

    # Shared checks

    def _fail(self, rule: str) -> NoReturn:
        raise GrammarError(self._index, rule)

    def _must(self, holds: bool, rule: str) -> None:
        if not holds:
            self._fail(rule)

    def _keys(self, data: Json, *keys: str, more: bool = False) -> None:
        exact = data.keys() >= set(keys) if more else data.keys() == set(keys)
        self._must(exact, f"{data.get('type', 'the object')} must have {', '.join(keys)}, not {', '.join(data)}")

    def _object(self, data: Json, key: str) -> Json:
        value = data[key]
        self._must(isinstance(value, dict), f"{key} must be an object")
        return dict(value)

    def _index_is(self, data: Json, number: int) -> None:
        self._must(type(data["index"]) is int and data["index"] == number, f"the index must be {number}")

    def _usage(self, holder: Json) -> None:
        usage = holder.get("usage")
        counts = [usage.get(key) for key in ("input_tokens", "output_tokens")] if isinstance(usage, dict) else [None]
        whole = all(type(count) is int and count >= 0 for count in counts)
        self._must(whole, "usage must have input_tokens and output_tokens, both integers")


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _input(text: str) -> Json | None:
    """The input of a tool from its joined deltas; None if they are not a JSON object."""
    if not text:
        return {}
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python's parser accepts NaN and Infinity


# ---- whole streams


def check_stream(events: Iterable[Event]) -> None:
    """Raises GrammarError if `events` are not one complete stream."""
    grammar = Grammar()
    for event in events:
        grammar.feed(event)
    grammar.end()


def message_from_events(events: list[Event]) -> Json:
    """The Message in a stream: the response to the same request without `stream`.

    The input of a tool that max_tokens cut short is the string of its pieces, as the stream does not define its repair.
    Raises GrammarError, also if the stream ended with an error.
    """
    check_stream(events)
    if events[-1].type == "error":
        raise GrammarError(len(events) - 1, "the stream ended with an error, so it holds no message")
    message: Json = {**events[0].data["message"], "content": []}
    for event in events:
        _fold(message, event.data)
    for block in message["content"]:
        text = block.get("input")
        if isinstance(text, str):
            value = _input(text)
            block["input"] = text if value is None else value
    return message


def _fold(message: Json, data: Json) -> None:
    content: list[Json] = message["content"]
    match data["type"]:
        case "content_block_start":
            content.append(dict(data["content_block"]))
            if content[-1]["type"] == "tool_use":
                content[-1]["input"] = ""
        case "content_block_delta":
            _fold_delta(content[-1], data["delta"])
        case "message_delta":
            own = {key: value for key, value in data.items() if key not in ("type", "delta", "usage")}
            changed = own | data["delta"]
            message |= {key: value for key, value in changed.items() if value is not None or key not in message}
            usage: Json = message["usage"]
            message["usage"] = usage | {
                key: value for key, value in data["usage"].items() if value is not None or key not in usage
            }


def _fold_delta(block: Json, delta: Json) -> None:
    key = KEYS.get(delta["type"])
    if key == "citation":
        block.setdefault("citations", []).append(delta[key])
    elif key == "partial_json":
        block["input"] = (block["input"] if isinstance(block["input"], str) else "") + delta[key]
    elif key == "signature":
        block[key] = delta[key]
    elif key is not None:
        block[key] += delta[key]
    else:
        own = block["type"] if block["type"] in BLOCK_DELTAS else "type"  # only deltas of known types add to it
        for name, value in delta.items():
            if name == own:
                continue
            if isinstance(value, str) and isinstance(block.get(name), str) and name not in REPLACED | {"type"}:
                block[name] += value
            elif name != "type" and (value is not None or name not in block):
                block[name] = value
