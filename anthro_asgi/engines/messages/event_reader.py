"""Events of another Messages server's stream → deltas. Pure; what such servers break is mended by saying it again.

The deltas go through this service's own encoder, so blocks are numbered and closed by the grammar however the server
numbers and closes them; ids of messages, pings, missing keys and shapes of errors are ours. What is left to mend here:

- blocks that overlap (llama.cpp closes thinking and text together at the end): a delta of another block closes the
  open one, and tool calls queue as they do for chat streams;
- a signature that comes when its block has been left, or is empty: the encoder signs in its place;
- blocks that have no deltas here (server tools, their results, redacted thinking): they are gathered and given whole;
- a stream that ends without a stop reason broke off. After one, nothing more is needed.
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
    """Reads one answer. `calls` is False where the client allowed none: those that are made anyway are passed over.

    Raises ApiError for what the server reports in the stream, BadUpstream for nonsense, and AnswerTooLarge where more
    than the `limits` allow would have to be kept.
    """

    def __init__(self, new_id: Callable[[], str], *, calls: bool = True, limits: AnswerLimits = DEFAULT_LIMITS) -> None:
        self._calls = ToolCallQueue(new_id, limits=limits)
        super().__init__(self._calls.repairs)
        self._may_call = calls
        self._limits = limits
        self._open: object = None  # the index of the block whose delta came last
        self._overlap = False  # one went on, or began, before another had stopped
        self._whole: dict[object, _Whole] = {}  # blocks being gathered, by index
        self._kept = 0  # bytes of these
        self._told = [False, False]  # the tokens of the prompt, of the answer
        self._finish: Finish | None = None
        self.done = False  # `message_stop` was read

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done:  # nothing that follows is of the answer
                break
            if self._finish is None:
                self._events([_parsed(payload)], out)
            else:
                self._after_finish(payload, out)

    def _after_finish(self, payload: bytes, out: list[Delta]) -> None:
        """Counts and the end of a block may still come; whatever else does is not of the answer and cannot break it."""
        with suppress(BadUpstream):
            event = _parsed(payload)
            if isinstance(event, dict) and event.get("type") in _AFTER_FINISH:
                self._events([event], out)

    def _events(self, events: Iterable[Any], out: list[Delta]) -> None:
        try:
            for event in events:
                take = _TAKE.get(event["type"])
                if take is not None:
                    take(self, event, out)
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            raise BadUpstream("the engine sent an event of an unknown shape") from exc
        if self._calls.busy:
            out += self._calls.release()

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101 - for the type checker
        if not all(self._told):
            self.repairs["usage"] += 1
        if final_finish(self._finish, self._calls.has_calls) != self._finish:
            self.repairs["finish_reason"] += 1
        cut = self._finish.stop_reason == "max_tokens"
        return [*self._calls.release(at_end=True, cut=cut), self._finish]

    def whole(self, body: bytes) -> list[Delta]:
        """One Message, or an error, in answer to a stream: read as its events would say it."""
        out: list[Delta] = []
        self._events(_told_as_events(_parsed(body)), out)
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
                words = _words(block[kind])
                self._say(words if kind == "text" else Thinking(words), out)
            if kind == "thinking" and block.get("signature"):
                self._say(Signature(_words(block["signature"])), out)
            for citation in block.get("citations") or ():
                self._say(Citation(_shallow(citation)), out)
        elif kind == "tool_use":
            if not self._may_call:
                self.repairs["call_dropped"] += 1
                return
            given = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            self._calls.add_call(_number(index), _words(block["id"]), _words(block["name"]), given)
        elif not _words(kind):
            raise LookupError("a block of no type")
        else:
            self._gather(index, block)

    def _enter(self, index: object) -> None:
        """Another block goes on, or begins."""
        if self._open is not None and self._open != index and not self._overlap:
            self._overlap = True
            self.repairs["block_order"] += 1
        self._open = index

    def _block_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        index, delta = event.get("index"), event["delta"]
        kind = delta["type"]
        if index in self._whole:
            if kind == "input_json_delta":
                self._gather_input(self._whole[index], _words(delta["partial_json"]))
        elif kind == "text_delta":
            if self._open != index:
                self._enter(index)
            self._say(_words(delta["text"]), out)
        elif kind == "thinking_delta":
            if self._open != index:
                self._enter(index)
            self._say(Thinking(_words(delta["thinking"])), out)
        elif kind == "signature_delta":
            if delta["signature"] and self._open == index:
                self._say(Signature(_words(delta["signature"])), out)
            else:
                self.repairs["signature"] += 1
        elif kind == "input_json_delta":
            if self._may_call:
                self._calls.add_call(_number(index), None, None, _words(delta["partial_json"]))
        elif kind == "citations_delta":
            self._say(Citation(_shallow(delta["citation"])), out)

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = event.get("index")
        whole = self._whole.pop(index, None)
        if whole is not None:
            self._kept -= whole.size
            given = parse_tool_input("".join(whole.input), self.repairs)
            self._say(Block({**whole.block, "input": given} if given else whole.block), out)
        elif self._open is not None and self._open == index:
            self._open = None
            self._say(BlockStop(), out)
        else:
            self._calls.stop(_number(index))

    def _gather(self, index: object, block: dict[str, Any]) -> None:
        replaced = self._whole.get(index)
        self._kept -= replaced.size if replaced is not None else 0
        whole = self._whole[index] = _Whole({**_shallow(block)})
        self._kept += whole.size
        self._limits.check_answer(self._kept)

    def _gather_input(self, whole: "_Whole", piece: str) -> None:
        """Input is the one thing of such a block that comes in pieces."""
        whole.input.append(piece)
        whole.input_size += utf8_size(piece)
        whole.size += utf8_size(piece)
        self._kept += utf8_size(piece)
        self._limits.check_tool_input(whole.input_size)
        self._limits.check_answer(self._kept)

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        self._usage(event.get("usage"), out)
        delta = event["delta"]
        reason = delta.get("stop_reason")
        if reason is not None:
            details = {key: _shallow(delta[key]) for key in ("stop_details", "container") if delta.get(key) is not None}
            matched = delta.get("stop_sequence")
            told = matched if isinstance(matched, str) else None
            if reason not in _REASONS:
                self.repairs["finish_reason"] += 1
            self._finish = Finish(_REASONS.get(reason, "end_turn"), told, details or None)

    def _message_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        self.done = True

    def _error(self, event: dict[str, Any], out: list[Delta]) -> None:
        raise error_from_event(event)

    def _usage(self, usage: dict[str, Any] | None, out: list[Delta]) -> None:
        if usage:
            names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
            told = [usage.get(name) for name in names]
            counts = Usage(*[count if type(count) is int and count >= 0 else None for count in told])
            self._told[0] |= counts.input_tokens is not None
            self._told[1] |= counts.output_tokens is not None
            out.append(counts)

    def _say(self, delta: Delta, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.add(delta)
        else:
            out.append(delta)


class _Whole:
    """A block that is given whole, on its way. Sizes in bytes."""

    __slots__ = ("block", "input", "input_size", "size")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.input: list[str] = []  # its pieces
        self.input_size = 0
        self.size = BLOCK_OVERHEAD + len(dumps(block))


def _parsed(payload: bytes) -> Any:
    try:
        return loads(payload)
    except orjson.JSONDecodeError as exc:
        raise BadUpstream("the engine sent an event that is not JSON") from exc


def _told_as_events(message: Any) -> Iterator[dict[str, Any]]:
    if message.get("type") == "error":
        yield message
        return
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": message, "usage": message.get("usage")}


def _shallow(value: Any) -> Any:
    """What goes to the client as it is, if it can be written."""
    if not is_shallow(value):
        raise BadUpstream("the engine sent a block that is nested too deeply")
    return value


def _words(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(index: Any) -> int | None:
    return index if type(index) is int else None


_TAKE: Final[dict[str, Callable[[EventReader, dict[str, Any], list[Delta]], None]]] = {
    "message_start": EventReader._message_start,
    "content_block_start": EventReader._block_start,
    "content_block_delta": EventReader._block_delta,
    "content_block_stop": EventReader._block_stop,
    "message_delta": EventReader._message_delta,
    "message_stop": EventReader._message_stop,
    "error": EventReader._error,
}
