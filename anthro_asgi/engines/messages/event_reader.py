"""Reads the events of another Messages server's stream as deltas, and repairs what such servers break. Pure.

The deltas pass through this service's own encoder, so blocks are numbered and closed by the grammar, however the server
numbers and closes them. Message ids, pings, missing keys and the shape of errors are also those of this service. This
file handles the rest:

- Blocks that overlap (llama.cpp closes thinking and text together at the end): a delta of another block closes the open
  block, and tool calls wait in a queue as for chat streams.
- A signature that arrives after its block was left, or is empty: it is dropped, and the encoder signs the block.
- Blocks of other types (server tools and their results, redacted thinking, compaction): each is buffered, and passed on
  with its deltas once it is complete.
- A stream that ends without a stop reason is incomplete. After a stop reason nothing more is needed.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, Literal

import orjson

from ...wire.answer_limits import BLOCK_OVERHEAD, DEFAULT_LIMITS, AnswerLimits, utf8_size
from ...wire.deltas import (
    Block,
    BlockStop,
    Citation,
    Delta,
    Finish,
    MessageFields,
    OtherDelta,
    Signature,
    StopReason,
    Thinking,
    ThinkingEstimate,
    Usage,
)
from ...wire.errors import BadUpstream
from ...wire.json_codec import dumps, is_shallow, loads
from ...wire.message import apply_delta, final_finish, merge_fields
from ...wire.repairs import Repairs
from ...wire.tool_input import parse_tool_input
from ..shared.reader import Reader
from ..shared.tool_calls import ToolCallQueue
from ..shared.upstream_errors import error_from_event

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "pause_turn": "pause_turn",
    "compaction": "compaction",
}
# `delta` is not a field of a Message, and would overwrite that of `message_delta`.
_OWN_FIELDS: Final = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage", "delta"}
)
_DELTA_FIELDS: Final = frozenset({"stop_reason", "stop_sequence", "stop_details", "container"})
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_OF_OTHER_BLOCKS: Final = frozenset({"text_delta", "thinking_delta", "signature_delta", "citations_delta"})
_CALL_FIELDS: Final = frozenset({"type", "id", "name", "input"})
_EVENT_FIELDS: Final = frozenset({"type", "delta", "usage"})
_AFTER_FINISH: Final = ("content_block_stop", "message_delta", "message_stop")


class EventReader(Reader):
    """Reads one answer. If the client allowed no tool calls, `calls` is False, and calls are dropped.

    Raises ApiError for an error that the server reports in the stream, BadUpstream for an invalid event, and
    AnswerTooLarge when more than the `limits` allow would have to be buffered.
    """

    def __init__(self, new_id: Callable[[], str], *, calls: bool = True, limits: AnswerLimits = DEFAULT_LIMITS) -> None:
        self._calls = ToolCallQueue(new_id, limits=limits)
        super().__init__(self._calls.repairs)
        self._may_call = calls
        self._limits = limits
        self._open: object = None  # the index of the block of the last delta
        self._kind: Literal["text", "thinking"] | None = None  # of the latest block of text or thinking
        self._signed: object = None  # the index of the latest block that has its signature
        self._overlap = False  # a block began or went on before another one had stopped
        self._buffered: dict[object, _BufferedBlock] = {}  # by index
        self._buffered_size = 0  # bytes
        self._kept = 0  # bytes of fields of the Message and its usage
        self._last_fields: dict[str, Any] = {}  # fields of the Message in `message_delta`
        self._counted = [False, False]  # whether the server reported the tokens of the prompt, and of the answer
        self._finish: Finish | None = None
        self.done = False  # `message_stop` was read

    @property
    def held(self) -> int:
        """About how many bytes of calls and blocks are held back."""
        return self._calls.held + self._buffered_size

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done:  # later events do not belong to the answer
                break
            if self._finish is None:
                self._read_events([_parsed(payload)], out)
            else:
                self._after_finish(payload, out)

    def _after_finish(self, payload: bytes, out: list[Delta]) -> None:
        """Read an event after the stop reason: token counts and ends of blocks. Any other event is ignored."""
        with suppress(BadUpstream):
            event = _parsed(payload)
            if isinstance(event, dict) and event.get("type") in _AFTER_FINISH:
                self._read_events([event], out)

    def _read_events(self, events: Iterable[Any], out: list[Delta]) -> None:
        try:
            for event in events:
                read = _READERS.get(event["type"])
                if read is not None:
                    read(self, event, out)
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            raise BadUpstream("the engine sent an event of an unknown shape") from exc
        if self._calls.busy:
            out += self._calls.release()

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101 - for the type checker
        if not all(self._counted):
            self.repairs["usage"] += 1
        if final_finish(self._finish, self._calls.has_calls) != self._finish:
            self.repairs["finish_reason"] += 1
        cut = self._finish.stop_reason == "max_tokens"
        return [*self._calls.release(at_end=True, cut=cut), self._finish]

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of a response that is one Message, or one error, although a stream was requested."""
        out: list[Delta] = []
        self._read_events(_as_events(_parsed(body)), out)
        return out

    # events

    def _message_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        fields = self._kept_fields(event["message"], _OWN_FIELDS)
        if fields:
            out.append(MessageFields(fields))
        self._usage(event["message"].get("usage"), out)

    def _block_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        index, block = event.get("index"), event["content_block"]
        kind = block["type"]
        if kind == "text" or kind == "thinking":
            self._enter(index)
            self._kind = kind
            if block.get(kind):
                text = _string(block[kind])
                self._append(text if kind == "text" else Thinking(text), out)
            if kind == "thinking" and block.get("signature"):
                self._append(Signature(_string(block["signature"])), out)
                self._signed = index
            for citation in block.get("citations") or ():
                self._append(Citation(_checked(citation)), out)
        elif kind == "tool_use":
            if not self._may_call:
                self.repairs["call_dropped"] += 1
                return
            input_ = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            fields = {key: _checked(value) for key, value in block.items() if key not in _CALL_FIELDS}
            self._calls.add_call(_index(index), _string(block["id"]), _string(block["name"]), input_, fields=fields)
        elif not _string(kind):
            raise LookupError("the type of a block is empty")
        else:
            self._buffer(index, block)

    def _enter(self, index: object) -> None:
        """Note that the next delta belongs to the block `index`. Counts a repair when another block is still open."""
        if self._open is not None and self._open != index and not self._overlap:
            self._overlap = True
            self.repairs["block_order"] += 1
        self._open = index

    def _block_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        index, delta = event.get("index"), event["delta"]
        kind = delta["type"]
        if index in self._buffered:
            self._buffer_delta(self._buffered[index], delta)
        elif kind == "text_delta":
            if self._open != index:
                self._enter(index)
                self._kind = "text"
            self._append(_string(delta["text"]), out)
        elif kind == "thinking_delta":
            if self._open != index:
                self._enter(index)
                self._kind = "thinking"
            self._append(Thinking(_string(delta["thinking"])), out)
            estimate = _count(delta.get("estimated_tokens"))
            if estimate is not None and self._signed != index:
                self._append(ThinkingEstimate(estimate), out)
        else:
            self._other_delta(kind, index, delta, out)

    def _other_delta(self, kind: object, index: object, delta: dict[str, Any], out: list[Delta]) -> None:
        """A delta that is neither text nor thinking, of a block that is not buffered."""
        if kind == "signature_delta":
            if delta["signature"] and self._open == index:
                self._append(Signature(_string(delta["signature"])), out)
                self._signed = index
            else:
                self.repairs["signature"] += 1
        elif kind == "input_json_delta":
            if self._may_call:
                self._calls.add_call(_index(index), None, None, _string(delta["partial_json"]))
        elif kind == "citations_delta":
            self._append(Citation(_checked(delta["citation"])), out)
        elif self._kind is not None and self._open == index and isinstance(kind, str):
            self._append(OtherDelta(self._kind, _checked(delta)), out)
        else:
            self.repairs["block_order"] += 1

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = event.get("index")
        buffered = self._buffered.pop(index, None)
        if buffered is not None:
            self._buffered_size -= buffered.size
            self._append(buffered.block(self.repairs), out)
        elif self._open is not None and self._open == index:
            self._open = None
            self._append(BlockStop(), out)
        else:
            self._calls.stop(_index(index))

    def _buffer(self, index: object, block: dict[str, Any]) -> None:
        replaced = self._buffered.get(index)
        self._buffered_size -= replaced.size if replaced is not None else 0
        buffered = self._buffered[index] = _BufferedBlock({**_checked(block)})
        self._buffered_size += buffered.size
        self._limits.check_answer(self._buffered_size)

    def _buffer_delta(self, buffered: "_BufferedBlock", delta: dict[str, Any]) -> None:
        kind = _string(delta["type"])
        if kind == "input_json_delta":
            size = utf8_size(_string(delta["partial_json"]))
            buffered.input.append(delta["partial_json"])
            buffered.input_size += size
            self._limits.check_tool_input(buffered.input_size)
        elif kind and kind not in _OF_OTHER_BLOCKS:
            size = BLOCK_OVERHEAD + len(dumps(_checked(delta)))
            buffered.deltas.append(delta)
        else:
            return
        buffered.size += size
        self._buffered_size += size
        self._limits.check_answer(self._buffered_size)

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        self._usage(event.get("usage"), out)
        merge_fields(self._last_fields, self._kept_fields(event, _EVENT_FIELDS))
        delta = event["delta"]
        reason = delta.get("stop_reason")
        if reason is not None:
            for index in list(self._buffered):  # a block that was not closed
                self._block_stop({"index": index}, out)
            details = {key: _checked(value) for key, value in delta.items() if key not in _OWN_FIELDS}
            matched = delta.get("stop_sequence")
            matched_text = matched if isinstance(matched, str) else None
            if reason not in _REASONS:
                self.repairs["finish_reason"] += 1
            self._finish = Finish(
                _REASONS.get(reason, "end_turn"), matched_text, details or None, self._last_fields or None
            )

    def _message_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        self.done = True

    def _error(self, event: dict[str, Any], out: list[Delta]) -> None:
        raise error_from_event(event)

    def _kept_fields(self, container: dict[str, Any], own: Container[str]) -> dict[str, Any]:
        """The fields that have no class here. They are held until the end of the answer, and their size is limited."""
        fields = {key: _checked(value) for key, value in container.items() if key not in own}
        if fields:
            self._kept += len(dumps(fields))
            self._limits.check_answer(self._kept)
        return fields

    def _usage(self, usage: dict[str, Any] | None, out: list[Delta]) -> None:
        if usage:
            prompt, output, read, created = [_count(usage.get(name)) for name in _COUNTS]
            details = self._kept_fields(usage, _COUNTS)
            counts = Usage(prompt, output, read, created, details=details or None)
            self._counted[0] |= counts.input_tokens is not None
            self._counted[1] |= counts.output_tokens is not None
            out.append(counts)

    def _append(self, delta: Delta, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)


class _BufferedBlock:
    """A block that is passed on once it is complete. `start` is its beginning. Sizes in bytes."""

    __slots__ = ("deltas", "input", "input_size", "size", "start")

    def __init__(self, start: dict[str, Any]) -> None:
        self.start = start
        self.input: list[str] = []
        self.deltas: list[dict[str, Any]] = []  # those that are not of the input
        self.input_size = 0
        self.size = BLOCK_OVERHEAD + len(dumps(start))

    def block(self, repairs: Repairs) -> Block:
        """The block, and the deltas that make it of its beginning. Counts what was repaired of its input."""
        content = dict(self.start)
        deltas = self.deltas
        for delta in deltas:
            apply_delta(delta, content)
        text = "".join(self.input)
        value = parse_tool_input(text, repairs)
        if value:
            content["input"] = value
            deltas = [{"type": "input_json_delta", "partial_json": dumps(value).decode()}, *deltas]
        return Block(content, self.start, deltas) if deltas else Block(content)


def _parsed(payload: bytes) -> Any:
    try:
        return loads(payload)
    except orjson.JSONDecodeError as exc:
        raise BadUpstream("the engine sent an event that is not JSON") from exc


def _as_events(message: Any) -> Iterator[dict[str, Any]]:
    if message.get("type") == "error":
        yield message
        return
    start = {key: value for key, value in message.items() if key not in _DELTA_FIELDS}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    delta = {key: message[key] for key in _DELTA_FIELDS if key in message}
    yield {"type": "message_delta", "delta": delta, "usage": message.get("usage")}


def _checked(value: Any) -> Any:
    """`value`, which is passed on unchanged. Raises BadUpstream when it is nested too deeply to be encoded."""
    if not is_shallow(value):
        raise BadUpstream("the engine sent a block that is nested too deeply")
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _index(index: Any) -> int | None:
    return index if type(index) is int else None


_READERS: Final[dict[str, Callable[[EventReader, dict[str, Any], list[Delta]], None]]] = {
    "message_start": EventReader._message_start,
    "content_block_start": EventReader._block_start,
    "content_block_delta": EventReader._block_delta,
    "content_block_stop": EventReader._block_stop,
    "message_delta": EventReader._message_delta,
    "message_stop": EventReader._message_stop,
    "error": EventReader._error,
}
