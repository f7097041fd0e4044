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
from typing import Any, Final

import orjson

from ..wire.deltas import Block, BlockStop, Citation, Delta, Finish, Signature, StopReason, Thinking, Usage
from ..wire.errors import BadUpstream
from ..wire.lenient import loads
from ..wire.repair import tool_input
from .calls import CallQueue
from .failures import failure
from .reader import Reader

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "pause_turn": "pause_turn",
}
_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class EventReader(Reader):
    """Reads one answer. `calls` is False where the client allowed none: those that are made anyway are passed over.

    Raises ApiError for what the server reports in the stream, BadUpstream for nonsense.
    """

    def __init__(self, new_id: Callable[[], str], *, calls: bool = True) -> None:
        super().__init__()
        self._calls = CallQueue(new_id)
        self._may_call = calls
        self._open: object = None  # the index of the block whose delta came last
        self._whole: dict[object, dict[str, Any]] = {}  # blocks being gathered, by index
        self._pieces: dict[object, str] = {}  # of their input, by index
        self._finish: Finish | None = None
        self.done = False  # `message_stop` was read

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            self._events([_parsed(payload)], out)

    def _events(self, events: Iterable[Any], out: list[Delta]) -> None:
        try:
            for event in events:
                take = _TAKE.get(event["type"])
                if take is not None:
                    take(self, event, out)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise BadUpstream("the engine sent an event of an unknown shape") from None
        if self._calls.busy:
            out += self._calls.release()

    def _rest(self) -> list[Delta]:
        assert self._finish is not None  # noqa: S101
        return [*self._calls.release(all_of_it=True), self._finish]

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
            self._open = index
            if block.get(kind):
                words = _words(block[kind])
                self._say(words if kind == "text" else Thinking(words), out)
            if kind == "thinking" and block.get("signature"):
                self._say(Signature(_words(block["signature"])), out)
            for citation in block.get("citations") or ():
                self._say(Citation(citation), out)
        elif kind == "tool_use":
            if not self._may_call:
                return
            given = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            self._calls.call(_number(index), _words(block["id"]), _words(block["name"]), given)
        else:
            self._whole[index] = {**block}

    def _block_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        index, delta = event.get("index"), event["delta"]
        kind = delta["type"]
        if index in self._whole:
            self._gather(index, delta)
        elif kind == "text_delta":
            self._open = index
            self._say(_words(delta["text"]), out)
        elif kind == "thinking_delta":
            self._open = index
            self._say(Thinking(_words(delta["thinking"])), out)
        elif kind == "signature_delta":
            if delta["signature"] and self._open == index:
                self._say(Signature(_words(delta["signature"])), out)
        elif kind == "input_json_delta":
            if self._may_call:
                self._calls.call(_number(index), None, None, _words(delta["partial_json"]))
        elif kind == "citations_delta":
            self._say(Citation(delta["citation"]), out)

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = event.get("index")
        block = self._whole.pop(index, None)
        if block is not None:
            given = tool_input(self._pieces.pop(index, ""))
            self._say(Block({**block, "input": given} if given else block), out)
        elif self._open is not None and self._open == index:
            self._open = None
            self._say(BlockStop(), out)
        else:
            self._calls.stop(_number(index))

    def _gather(self, index: object, delta: dict[str, Any]) -> None:
        """Input is the one thing of such a block that comes in pieces."""
        if delta["type"] == "input_json_delta":
            self._pieces[index] = self._pieces.get(index, "") + delta["partial_json"]

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        self._usage(event.get("usage"), out)
        delta = event["delta"]
        reason = delta.get("stop_reason")
        if reason is not None:
            details = {key: delta[key] for key in ("stop_details", "container") if delta.get(key) is not None}
            self._finish = Finish(_REASONS.get(reason, "end_turn"), delta.get("stop_sequence"), details or None)

    def _message_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        self.done = True

    def _error(self, event: dict[str, Any], out: list[Delta]) -> None:
        if self._finish is None:
            raise failure(_STATUS.get(event["error"].get("type"), 500), None, orjson.dumps(event))

    def _usage(self, usage: dict[str, Any] | None, out: list[Delta]) -> None:
        if usage:
            names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
            counts = [usage.get(name) for name in names]
            out.append(Usage(*[count if type(count) is int else None for count in counts]))

    def _say(self, delta: Delta, out: list[Delta]) -> None:
        if self._calls.busy:
            self._calls.text(delta)
        else:
            out.append(delta)


def _parsed(payload: bytes) -> Any:
    try:
        return loads(payload)
    except orjson.JSONDecodeError:
        raise BadUpstream("the engine sent what is not JSON") from None


def _told_as_events(message: Any) -> Iterator[dict[str, Any]]:
    if message.get("type") == "error":
        yield message
        return
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": message, "usage": message.get("usage")}


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
