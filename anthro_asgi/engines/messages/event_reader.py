"""Reads the events of another Messages server's stream as deltas, and repairs what such servers break. Pure.

The deltas pass through this service's own encoder, so blocks are numbered and closed by the grammar, however the server
numbers and closes them. Message ids, pings, missing keys and the shape of errors are also those of this service. This
file handles the rest:

- Blocks that overlap (llama.cpp closes thinking and text together at the end): a delta of another block closes the open
  block, and tool calls wait in a queue as for chat streams.
- A signature that arrives after its block was left, or is empty: it is dropped, and the encoder signs the block.
- Blocks that have no deltas here (server tools and their results, redacted thinking): they are buffered and passed on
  buffered.
- A stream that ends without a stop reason is incomplete. After a stop reason nothing more is needed.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import orjson

from ...wire.answer_limits import BLOCK_OVERHEAD, DEFAULT_LIMITS, AnswerLimits, utf8_size
from ...wire.deltas import Block, BlockStop, Citation, Delta, Finish, Signature, StopReason, Thinking, Usage
from ...wire.errors import BadUpstream
from ...wire.json_codec import dumps, is_shallow, loads
from ...wire.message import final_finish
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
}
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
        self._overlap = False  # a block began or went on before another one had stopped
        self._buffered: dict[object, _BufferedBlock] = {}  # by index
        self._buffered_size = 0  # bytes
        self._counted = [False, False]  # whether the server reported the tokens of the prompt, and of the answer
        self._finish: Finish | None = None
        self.done = False  # `message_stop` was read

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
        self._usage(event["message"].get("usage"), out)

    def _block_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        index, block = event.get("index"), event["content_block"]
        kind = block["type"]
        if kind == "text" or kind == "thinking":
            self._enter(index)
            if block.get(kind):
                text = _string(block[kind])
                self._append(text if kind == "text" else Thinking(text), out)
            if kind == "thinking" and block.get("signature"):
                self._append(Signature(_string(block["signature"])), out)
            for citation in block.get("citations") or ():
                self._append(Citation(_checked(citation)), out)
        elif kind == "tool_use":
            if not self._may_call:
                self.repairs["call_dropped"] += 1
                return
            input_ = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            self._calls.add_call(_index(index), _string(block["id"]), _string(block["name"]), input_)
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
            if kind == "input_json_delta":
                self._buffer_input(self._buffered[index], _string(delta["partial_json"]))
        elif kind == "text_delta":
            if self._open != index:
                self._enter(index)
            self._append(_string(delta["text"]), out)
        elif kind == "thinking_delta":
            if self._open != index:
                self._enter(index)
            self._append(Thinking(_string(delta["thinking"])), out)
        elif kind == "signature_delta":
            if delta["signature"] and self._open == index:
                self._append(Signature(_string(delta["signature"])), out)
            else:
                self.repairs["signature"] += 1
        elif kind == "input_json_delta":
            if self._may_call:
                self._calls.add_call(_index(index), None, None, _string(delta["partial_json"]))
        elif kind == "citations_delta":
            self._append(Citation(_checked(delta["citation"])), out)

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = event.get("index")
        buffered = self._buffered.pop(index, None)
        if buffered is not None:
            self._buffered_size -= buffered.size
            input_ = parse_tool_input("".join(buffered.input), self.repairs)
            self._append(Block({**buffered.block, "input": input_} if input_ else buffered.block), out)
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

    def _buffer_input(self, buffered: "_BufferedBlock", piece: str) -> None:
        """Append to the input of a buffered block: the only part of it that arrives in pieces."""
        buffered.input.append(piece)
        buffered.input_size += utf8_size(piece)
        buffered.size += utf8_size(piece)
        self._buffered_size += utf8_size(piece)
        self._limits.check_tool_input(buffered.input_size)
        self._limits.check_answer(self._buffered_size)

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        self._usage(event.get("usage"), out)
        delta = event["delta"]
        reason = delta.get("stop_reason")
        if reason is not None:
            details = {key: _checked(delta[key]) for key in ("stop_details", "container") if delta.get(key) is not None}
            matched = delta.get("stop_sequence")
            matched_text = matched if isinstance(matched, str) else None
            if reason not in _REASONS:
                self.repairs["finish_reason"] += 1
            self._finish = Finish(_REASONS.get(reason, "end_turn"), matched_text, details or None)

    def _message_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        self.done = True

    def _error(self, event: dict[str, Any], out: list[Delta]) -> None:
        raise error_from_event(event)

    def _usage(self, usage: dict[str, Any] | None, out: list[Delta]) -> None:
        if usage:
            names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
            counted = [usage.get(name) for name in names]
            counts = Usage(*[count if type(count) is int and count >= 0 else None for count in counted])
            self._counted[0] |= counts.input_tokens is not None
            self._counted[1] |= counts.output_tokens is not None
            out.append(counts)

    def _append(self, delta: Delta, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)


class _BufferedBlock:
    """A block that is passed on whole once it is complete. Sizes in bytes."""

    __slots__ = ("block", "input", "input_size", "size")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.input: list[str] = []
        self.input_size = 0
        self.size = BLOCK_OVERHEAD + len(dumps(block))


def _parsed(payload: bytes) -> Any:
    try:
        return loads(payload)
    except orjson.JSONDecodeError as exc:
        raise BadUpstream("the engine sent an event that is not JSON") from exc


def _as_events(message: Any) -> Iterator[dict[str, Any]]:
    if message.get("type") == "error":
        yield message
        return
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": message, "usage": message.get("usage")}


def _checked(value: Any) -> Any:
    """`value`, which is passed on unchanged. Raises BadUpstream when it is nested too deeply to be encoded."""
    if not is_shallow(value):
        raise BadUpstream("the engine sent a block that is nested too deeply")
    return value


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
